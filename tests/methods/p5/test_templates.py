"""Templates whose answer is a title."""

import difflib
import re

import pytest

from data.prompts.library import check_disjoint, roles, templates
from data.prompts.template import DOMAIN, Template, Wording
from tests.data.test_templates import MOVIES, words

SEQUENTIAL, CHOOSE = templates("sequential"), templates("choose")
SEEN = [template for template in SEQUENTIAL if template.family == "seen"]
UNSEEN = [template for template in SEQUENTIAL if template.family == "unseen"]


def test_there_are_twelve_of_each_family_to_score_with_and_seen_ones_to_choose_with():
    assert (len(SEEN), len(UNSEEN)) == (12, 12)
    assert len(CHOOSE) >= 6 and {template.family for template in CHOOSE} == {"seen"}


def test_templates_are_named_after_role_and_family():
    for group in (SEEN, UNSEEN, CHOOSE):
        assert [t.id for t in group] == [f"{t.role}-{t.family}-{n:02}" for n, t in enumerate(group, start=1)]


@pytest.mark.parametrize("template", [*SEQUENTIAL, *CHOOSE], ids=lambda template: template.id)
def test_a_template_ends_where_the_title_goes_on_and_holds_for_every_domain(template: Template):
    last = template.parts[-1]
    assert isinstance(last, Wording) and re.search(r"[?:;\w]$", last.text)
    hard_coded = r"\b(movies?|films?|watch\w*|view\w*|books?|read|products?|bought|buy\w*|purchas\w*|customers?)\b"
    assert not re.findall(hard_coded, " ".join(words(template)))
    slots = "|".join(DOMAIN)
    assert not re.search(rf"\ban? \{{({slots})\}}", template.source, re.IGNORECASE), "a or an depends on the domain"
    assert not re.search(rf"(^|[.?!\n] ?)\{{({slots})\}}", template.source), "domain words are in lower case"
    assert not re.search(rf"\{{({slots})\}}\w", template.source), "endings depend on the domain"
    offered = {"candidates": ["Cube", "Dune"]} if template.role == "choose" else {}
    filled = template.fill(MOVIES, {"history": ["Alien", "Brazil"], **offered}).text
    assert filled.count("Alien, Brazil") == 1
    assert filled.count("Cube, Dune") == len(offered)


@pytest.mark.parametrize("unseen", UNSEEN, ids=lambda template: template.id)
def test_an_unseen_template_is_no_near_copy_of_a_seen_one(unseen: Template):
    ratios = [difflib.SequenceMatcher(None, words(unseen), words(seen)).ratio() for seen in SEEN]
    assert max(ratios) < 0.5
    known = {word for seen in SEEN for word in words(seen)}
    assert len(set(words(unseen)) - known) >= 3


@pytest.mark.parametrize("family", [SEEN, UNSEEN], ids=["seen", "unseen"])
def test_each_family_varies_in_length(family: list[Template]):
    lengths = [len(words(template)) for template in family]
    assert min(lengths) <= 8 and max(lengths) >= 50


def test_no_template_of_a_role_repeats_one_of_another():
    check_disjoint([template for role in roles() for template in templates(role)])
