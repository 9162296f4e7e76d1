"""Perturbations of the wording."""

import re
from collections.abc import Callable
from dataclasses import replace
from string import ascii_letters

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.perturbations.base import (
    Perturbation,
    PerturbationError,
)
from benchmarks.perturbations.distractor import SENTENCES, Distractor
from benchmarks.perturbations.format import STYLES, Format
from benchmarks.perturbations.keyboard import NEIGHBOURS
from benchmarks.perturbations.register import GREETING, ROLE, THANKS, Register
from benchmarks.perturbations.synonyms import Synonyms, lexicon
from benchmarks.perturbations.templates import Unseen
from benchmarks.perturbations.typos import Typos, misspell
from benchmarks.perturbations.wording import WORD, put_before, put_before_cue
from data.prompts.template import Template, parse
from methods.base import Requests
from tests.benchmarks.perturbed import ASK, SEEN, UNSEEN, changed, rng, same, seeds, source


@given(word=st.text(ascii_letters, min_size=3, max_size=12), seed=seeds)
def test_a_misspelt_word_is_one_edit_away(word: str, seed: int) -> None:
    wrong = misspell(word, rng(seed))
    drops = {word[:n] + word[n + 1 :] for n in range(len(word))}
    doubles = {word[:n] + word[n] + word[n:] for n in range(len(word))}
    swaps = {word[:n] + word[n + 1] + word[n] + word[n + 2 :] for n in range(len(word) - 1)}
    keys = {word[:n] + k + word[n + 1 :] for n, c in enumerate(word.lower()) for k in NEIGHBOURS[c]}
    assert wrong != word
    assert wrong in drops | doubles | swaps or wrong.lower() in {key.lower() for key in keys}


def test_keys_are_neighbours_of_one_another() -> None:
    assert all(key in NEIGHBOURS[other] for key, others in NEIGHBOURS.items() for other in others)


def test_words_of_one_or_two_letters_are_never_misspelt() -> None:
    text = "I go to an {item}, so is it {target} or {history}?"
    assert all(source(Typos(1.0), text, seed) == text for seed in range(20))


def test_a_format_that_changes_nothing_is_not_drawn() -> None:
    text = "all {item} in lower case without stops"
    assert {source(Format("case"), text, seed) for seed in range(20)} == {
        "ALL {item} IN LOWER CASE WITHOUT STOPS",
        "All {item} In Lower Case Without Stops",
    }
    assert {source(Format("spacing"), text, seed) for seed in range(20)} == {text.replace(" ", "  ")}
    assert source(Format("spacing"), "{history}", 0) == "{history}"


def test_a_list_never_keeps_its_style() -> None:
    for own in STYLES:
        template = Template("t", "recommend", "seen", parse("{history}"), style=own)
        styles = {Format("list").perturb_template(template, rng(seed)).style for seed in range(50)}
        assert styles == set(STYLES) - {own}


def test_the_share_of_misspelt_words_is_counted_over_the_whole_template() -> None:
    text = "One {item} two {item} three {item} four {item} five"
    counts = {len(changed(text.split(), source(Typos(0.4), text, seed).split())) for seed in range(50)}
    assert counts == {2}


def test_synonyms_keep_capitals() -> None:
    assert source(Synonyms(1.0), "Title TITLE title", 0) == "Name NAME name"


def test_words_without_an_entry_keep_their_place_when_all_others_are_replaced() -> None:
    assert source(Synonyms(0.9), "The title of the zebra and the gnu", 0) == "The name of the zebra and the gnu"


def test_the_lexicon_replaces_a_word_by_other_single_words() -> None:
    for word, synonyms in lexicon().items():
        assert synonyms, word
        for synonym in (word, *synonyms):
            assert WORD.fullmatch(synonym), synonym
            assert synonym == synonym.lower()
        assert word not in synonyms
    assert len(lexicon()) >= 150


def test_the_lexicon_leaves_labels_alone() -> None:
    assert not {"yes", "no", "not"} & (lexicon().keys() | {s for entry in lexicon().values() for s in entry})


@pytest.mark.parametrize("template", SEEN, ids=lambda template: template.id)
def test_the_articles_stay_right_when_all_words_are_replaced(template: Template) -> None:
    for seed in range(10):
        text = Synonyms(1.0).perturb_template(template, rng(seed)).source
        assert not re.search(r"\b(a [aeio]|an [^aeio])", text, re.IGNORECASE), text


def test_the_distractor_is_the_same_before_and_after() -> None:
    for seed in range(5):
        (sentence,) = (s for s in SENTENCES if s in source(Distractor("before"), ASK, seed))
        assert sentence in source(Distractor("after"), ASK, seed)


def test_every_distractor_is_drawn() -> None:
    assert len({source(Distractor("before"), ASK, seed) for seed in range(200)}) == len(SENTENCES) == 12


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("After {history}, {target}?", "After {history}, {target}? X."),
        ("After {history}. {target}? Answer:", "After {history}. {target}? X. Answer:"),
        (
            "After {history}. {target}? {positive} or {negative}:",
            "After {history}. {target}? X. {positive} or {negative}:",
        ),
        ("After {history}\nNext {target}\nAnswer:", "After {history}\nNext {target}\nX.\nAnswer:"),
        ("After {history},\nis it {target}?", "After {history},\nis it {target}?\nX."),
        ("After {history} comes {target}, which is", "X. After {history} comes {target}, which is"),
    ],
)
def test_a_sentence_goes_before_the_answer_cue(text: str, expected: str) -> None:
    assert put_before_cue(Template("t", "recommend", "seen", parse(text)), "X.").source == expected


@pytest.mark.parametrize("template", SEEN, ids=lambda template: template.id)
def test_the_answer_cue_of_every_template_survives_the_distractor(template: Template) -> None:
    before, after = (Distractor(place).perturb_template(template, rng(1)).source for place in ("before", "after"))
    assert before.endswith(template.source)
    if template.source.endswith("?"):
        assert after.startswith(template.source)
    else:
        assert after.split()[-1] == template.source.split()[-1]


def test_a_sentence_in_front_takes_a_line_where_there_are_lines() -> None:
    lines = Template("t", "recommend", "seen", parse("After {history}\nAnswer:"))
    assert put_before(lines, "X.").source == "X.\nAfter {history}\nAnswer:"


def test_a_telegram_keeps_what_is_not_filler() -> None:
    text = "Please tell me a title: the {item} or option A? An answer is the best, my friend, very kindly."
    assert source(Register("terse"), text, 0) == "tell me title: {item} or option A? An answer is best, friend, kindly."


def test_the_registers_add_no_label_word() -> None:
    assert not re.search(r"\b(yes|no)\b", " ".join([GREETING, THANKS, ROLE, *SENTENCES]), re.IGNORECASE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Format("font"), "format is one of list, case, spacing, not 'font'"),  # type: ignore[arg-type]
        (lambda: Distractor("middle"), "before or after, not 'middle'"),  # type: ignore[arg-type]
        (lambda: Register("rude"), "polite, terse, role-play, not 'rude'"),  # type: ignore[arg-type]
    ],
)
def test_an_unknown_variant_is_refused(make: Callable[[], Perturbation], message: str) -> None:
    with pytest.raises(PerturbationError, match=message):
        make()


# unseen templates


def test_unseen_shows_everybody_the_same_template_and_leaves_other_roles(toy: Requests) -> None:
    after = Unseen((UNSEEN,)).apply(toy, 1)
    assert after.templates == {"recommend": (UNSEEN,) * 3, "attribute": toy.templates["attribute"]}
    assert same(after, replace(toy, templates=after.templates))


def test_unseen_adds_no_role(toy: Requests) -> None:
    bare = replace(toy, templates={})
    assert Unseen((UNSEEN,)).apply(bare, 1).templates == {}


def test_unseen_refuses_a_seen_template_and_two_of_one_role() -> None:
    with pytest.raises(PerturbationError, match="template 'u' is a seen one, not of unseen"):
        Unseen((replace(UNSEEN, family="seen"),))
    with pytest.raises(PerturbationError, match="one unseen template per role"):
        Unseen((UNSEEN, replace(UNSEEN, id="v")))
