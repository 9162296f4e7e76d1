"""One wording gives the prompts of all classes and the sentence that is joined to a recommendation prompt."""

import re

import numpy as np
import pytest

from data.dataset import Domain
from data.prompts import library
from data.prompts.template import Template, TemplateError, parse
from methods.ganprompt.prompts import Attributes, classes, joined
from tests.methods.ganprompt.world import ATTRIBUTES, NAMES, SEEN

MOVIES = Domain("movie", "movies", "watch", "watched", "watching", "viewer")
RECOMMEND = library.templates("recommend")[0]


def text(template: Template) -> str:
    return template.fill(MOVIES, {"history": ["Alien", "Brazil"], "target": "Cube"}).text


def test_class_0_shows_the_plain_history_and_the_others_name_their_attribute() -> None:
    wording = next(t for t in SEEN if t.id == "attribute-seen-01")
    assert [text(template) for template in classes(wording, NAMES)] == [
        "This viewer has watched Alien, Brazil.",
        *(f"This viewer has watched Alien, Brazil. People who like these movies look for {name}." for name in NAMES),
    ]


def test_the_attribute_sentence_stands_in_front_of_the_recommendation_prompt() -> None:
    wording = next(t for t in SEEN if t.id == "attribute-generate")
    expected = f"If you recommend movies to this user, you should focus on plot. {text(RECOMMEND)}"
    assert text(joined(RECOMMEND, wording, "plot")) == expected
    assert joined(RECOMMEND, wording, "plot").labels == RECOMMEND.labels


@pytest.mark.parametrize("wording", library.templates("attribute"), ids=lambda t: t.id)
def test_every_wording_has_a_history_part_and_a_sentence(wording: Template) -> None:
    plain, first, second = (text(template) for template in classes(wording, ("plot", "cast")))
    assert first.startswith(plain) and "Alien, Brazil" in plain and not re.search("plot|cast", plain)
    assert first.replace("plot", "cast") == second != first
    sentence = text(joined(RECOMMEND, wording, "plot")).removesuffix(f" {text(RECOMMEND)}")
    assert "plot" in sentence and "Alien" not in sentence and first.endswith(sentence)


@pytest.mark.parametrize("source", ["{history}{attribute}", "X {history} {attribute}", "{history}. X", "{history}"])
def test_a_perturbed_wording_still_gives_prompts(source: str) -> None:
    wording = Template("w", "attribute", "seen", parse(source))
    assert all("Alien, Brazil" in text(template) for template in classes(wording, NAMES))
    assert text(joined(RECOMMEND, wording, "plot")).endswith(text(RECOMMEND))


def test_a_wording_whose_attribute_comes_first_is_refused() -> None:
    wording = Template("w", "attribute", "seen", parse("For their {attribute} they chose {history}."))
    for make in (lambda: classes(wording, NAMES), lambda: joined(RECOMMEND, wording, "plot")):
        with pytest.raises(TemplateError, match=r"'w': \{history\} comes before"):
            make()


def test_a_prompt_is_diversified_in_every_class_with_the_same_chance() -> None:
    rng = np.random.default_rng(0)
    drawn = [text(ATTRIBUTES.diversify(RECOMMEND, rng)) for _ in range(800)]
    plain = sum(prompt == text(RECOMMEND) for prompt in drawn)
    named = [sum(f"{name}" in prompt.split("This viewer has watched Alien")[0] for prompt in drawn) for name in NAMES]
    assert all(150 < count < 250 for count in [plain, *named])


def test_diversified_prompts_use_the_wordings_given_and_no_other() -> None:
    only = Attributes(NAMES, (Template("w", "attribute", "seen", parse("{history}. Zebra {attribute}.")),))
    rng = np.random.default_rng(0)
    drawn = {text(only.diversify(RECOMMEND, rng)).removesuffix(text(RECOMMEND)) for _ in range(60)}
    assert drawn == {"", *(f"Zebra {name}. " for name in NAMES)}
