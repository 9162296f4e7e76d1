import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.conditions import Condition, ConditionError
from benchmarks.families import DEFAULT_GRADES, FAMILIES, expand
from benchmarks.perturbations.base import PerturbationError
from benchmarks.perturbations.demonstrations import DemonstrationCount
from benchmarks.perturbations.identity import Identity
from benchmarks.perturbations.register import Register
from benchmarks.perturbations.templates import Seen, Unseen
from benchmarks.perturbations.typos import Typos
from benchmarks.provenance import source
from data.prompts.library import templates
from data.prompts.template import Role, Template, parse
from methods.base import Requests

SEEN, UNSEEN = (
    tuple(template for template in templates("recommend") if template.family == family) for family in ("seen", "unseen")
)
KNOWN = Template("attribute-seen-0", "attribute", "seen", parse("Known wording of {history}:"))
ATTRIBUTE = tuple(
    Template(f"attribute-unseen-{n}", "attribute", "unseen", parse(f"Wording {n} of {{history}}:")) for n in range(3)
)
BOTH: dict[Role, tuple[Template, ...]] = {"recommend": SEEN + UNSEEN, "attribute": (KNOWN, *ATTRIBUTE)}


def names(conditions: tuple[Condition, ...]) -> list[str]:
    return [condition.name for condition in conditions]


def test_clean_comes_first_and_once_whatever_is_asked_for() -> None:
    assert names(expand({}, {})) == ["clean"]
    assert names(expand({"register": ["terse"], "clean": None}, {})) == ["clean", "register/terse"]


def test_a_graded_family_has_one_condition_per_grade() -> None:
    assert names(expand({"typos": None}, {}))[1:] == ["typos@0.05", "typos@0.1", "typos@0.2", "typos@0.3"]
    assert [c.perturbation for c in expand({"typos": [0, 0.25, 1]}, {})[1:]] == [
        Typos(0.0),
        Typos(0.25),
        Typos(1.0),
    ]


def test_a_family_with_variants_has_one_condition_per_variant() -> None:
    everything = names(expand({"format": None, "distractor": None, "register": None}, {}))[1:]
    assert everything == [
        "format/list",
        "format/case",
        "format/spacing",
        "distractor/before",
        "distractor/after",
        "register/polite",
        "register/terse",
        "register/role-play",
    ]
    assert expand({"register": ["polite"]}, {})[1].perturbation == Register("polite")


def test_a_family_of_numbers_has_one_condition_per_number() -> None:
    assert names(expand({"demonstration-count": None}, {}))[1:] == [
        f"demonstration-count/{count}" for count in (0, 1, 2, 4, 8)
    ]
    asked = expand({"demonstration-count": [3.0]}, {})[1]
    assert (asked.name, asked.perturbation) == ("demonstration-count/3", DemonstrationCount(3))
    for wrong in (0.5, float("inf"), float("nan"), "many", True):
        with pytest.raises(ConditionError, match="a number is 0, 1, 2"):
            expand({"demonstration-count": [wrong]}, {})


def test_there_is_one_unseen_condition_per_unseen_template() -> None:
    conditions = expand({"unseen": None}, {"recommend": UNSEEN})[1:]
    assert names(conditions) == [f"unseen/{template.id}" for template in UNSEEN]
    assert conditions[2].perturbation == Unseen((UNSEEN[2],))


def test_a_role_with_fewer_unseen_templates_starts_again() -> None:
    conditions = expand({"unseen": None}, BOTH)[1:]
    assert names(conditions) == [f"unseen/{template.id}" for template in UNSEEN]
    assert conditions[4].perturbation == Unseen((UNSEEN[4], ATTRIBUTE[1]))


def test_seen_templates_are_shown_one_after_the_other_but_for_those_that_ask_for_different_things() -> None:
    recorded = {"augment": templates("augment")}
    conditions = expand({"seen": None}, {**BOTH, **recorded})[1:]
    assert names(conditions) == [f"seen/{template.id}" for template in SEEN]
    assert conditions[4].perturbation == Seen((SEEN[4], KNOWN))
    assert names(expand({"seen": ["*-seen-03"]}, {"recommend": SEEN}))[1:] == ["seen/recommend-seen-03"]


def test_a_suite_can_name_the_unseen_templates_by_patterns() -> None:
    conditions = expand({"unseen": ["*-unseen-02", "recommend-unseen-05", "attribute-unseen-[01]"]}, BOTH)[1:]
    assert names(conditions) == ["unseen/recommend-unseen-02", "unseen/recommend-unseen-05"]
    assert conditions[1].perturbation == Unseen((UNSEEN[4], ATTRIBUTE[1]))
    with pytest.raises(ConditionError, match="role 'attribute' has no unseen templates that match recommend-unseen-05"):
        expand({"unseen": ["recommend-unseen-05"]}, BOTH)


def test_without_prompts_there_is_nothing_unseen() -> None:
    assert names(expand({"unseen": None}, {})) == ["clean"]


def test_a_role_without_unseen_templates_is_an_error() -> None:
    with pytest.raises(ConditionError, match="role 'attribute' has no unseen templates"):
        expand({"unseen": None}, {"recommend": UNSEEN, "attribute": ()})


def test_unseen_templates_that_no_condition_would_show_are_an_error() -> None:
    with pytest.raises(ConditionError, match=r"role 'recommend' has 12 unseen templates and 'attribute', .* 3: add as"):
        expand({"unseen": None}, {"attribute": ATTRIBUTE, "recommend": UNSEEN})


def test_every_registered_family_expands_to_conditions_of_that_family_with_names_of_their_own() -> None:
    conditions = expand(dict.fromkeys(FAMILIES), BOTH)
    assert {condition.perturbation.family for condition in conditions} == set(FAMILIES)
    for condition in conditions:
        assert re.split("[@/]", condition.name)[0] == condition.perturbation.family
        assert re.fullmatch(r"[a-z-]+(@[0-9.]+|/[a-z0-9-]+)?", condition.name)
    assert len(set(names(conditions))) == len(conditions) == 1 + 2 * 12 + 3 + 2 + 3 + 6 * len(DEFAULT_GRADES) + 2 + 5


def test_the_family_tells_what_it_reaches() -> None:
    reach = {c.perturbation.family: c.perturbation.reach for c in expand(dict.fromkeys(FAMILIES), BOTH)}
    values = {"history-shuffle", "history-drop", "history-inject", "title-noise"}
    assert {family for family, what in reach.items() if what == "values"} == values
    assert {family for family, what in reach.items() if what == "none"} == {"clean"}


def test_a_description_holds_name_family_reach_severity_and_parameters() -> None:
    described = {condition.name: condition.describe() for condition in expand(dict.fromkeys(FAMILIES), BOTH)}
    assert json.loads(json.dumps(described)) == described
    assert described["title-noise@0.3"] == {
        "name": "title-noise@0.3",
        "family": "title-noise",
        "reach": "values",
        "severity": 0.3,
        "parameters": {},
    }
    assert described["register/terse"]["parameters"] == {"tone": "terse"}
    assert described["register/terse"]["severity"] is None
    assert described["unseen/recommend-unseen-02"]["parameters"] == {
        "templates": ["recommend-unseen-02", "attribute-unseen-1"]
    }


def test_an_unknown_family_is_refused_with_its_neighbour_and_all_choices() -> None:
    with pytest.raises(
        ConditionError, match=r"no condition family 'typo': did you mean 'typos'.*clean, unseen, seen, format"
    ):
        expand({"typo": None}, {})
    with pytest.raises(ConditionError, match="no condition family 'zzz': choices are clean"):
        expand({"zzz": None}, {})


OWN = """
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from benchmarks.perturbations.base import Graded, Ungraded, WordingPerturbation

@dataclass(frozen=True)
class Loud(Ungraded, WordingPerturbation):
    family: ClassVar[str] = "loud"

    def perturb(self, text, rng):
        return text.upper()

@dataclass(frozen=True)
class Taken(Loud):
    family: ClassVar[str] = "typos"

@dataclass(frozen=True)
class Wanting(Loud):
    family: ClassVar[str] = "wanting"
    words: int

@dataclass(frozen=True)
class Short(Graded, WordingPerturbation):
    family: ClassVar[str] = "short"
    words: int

@dataclass(frozen=True)
class Refusing(Graded, WordingPerturbation):
    family: ClassVar[str] = "refusing"

    def __post_init__(self):
        raise RuntimeError("not today")

@dataclass(frozen=True)
class Fixed(WordingPerturbation):
    family: ClassVar[str] = "fixed"
    severity: ClassVar[float] = 0.5

@dataclass(frozen=True)
class Unkept(Loud):
    family: ClassVar[str] = "unkept"
    words: frozenset = frozenset({"film"})

@dataclass(frozen=True)
class Sorting(Ungraded):
    family: ClassVar[str] = "sorting"
    reach: ClassVar[str] = "values"

    def apply(self, requests, seed):
        return replace(requests, candidates=np.sort(requests.candidates))

@dataclass(frozen=True)
class Reading(Sorting):
    family: ClassVar[str] = "reading"

    def apply(self, requests, seed):
        return open("/no/such/lexicon")

@dataclass(frozen=True)
class Neither(WordingPerturbation):
    family: ClassVar[str] = "neither"

class Bare:
    family = "bare"
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with perturbations of a user, under a name that no other test imports."""
    name = f"own_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_perturbation_of_a_user_is_a_condition_whose_key_holds_its_file(own: str) -> None:
    _, condition = expand({f"{own}:Loud": None}, {})
    described = condition.describe()
    assert (condition.name, described["family"], described["severity"]) == ("loud", "loud", None)
    assert len(described["source"]) == 64 and described["source"] != source(__name__)
    assert "source" not in expand({"typos": [0.1]}, {})[1].describe()


@pytest.mark.parametrize(
    ("named", "grades", "sentence"),
    [
        ("{}:Loud", [0.1], "Loud has no grades"),
        ("{}:Silent", None, "has no attribute 'Silent'"),
        ("no_such_module:Loud", None, "No module named 'no_such_module'"),
        ("{}:Wanting", None, "missing 1 required positional argument: 'words'"),
        ("{}:Short", [0.1], "missing 1 required positional argument: 'words'"),
        ("{}:Refusing", [0.1], "RuntimeError: not today"),
        ("{}:Refusing", [2.0, "x"], "RuntimeError: not today"),
        ("{}:Neither", None, "no perturbation: a dataclass with family, reach, apply, and a severity that is a field"),
        ("{}:Fixed", None, "no perturbation: a dataclass with family, reach, apply, and a severity that is a field"),
        ("{}:Unkept", None, "no canonical form for a fingerprint: frozenset"),
        ("{}:Bare", None, "no perturbation: a dataclass"),
        ("{}:OWN", None, "has no attribute 'OWN'"),
        ("{}:Taken", None, "family must be a word that is no name of another family, not 'typos'"),
        ("{}", None, "or package.module:Class of your own"),
    ],
)
def test_what_is_no_perturbation_of_a_user_is_refused(own: str, named: str, grades: Any, sentence: str) -> None:
    with pytest.raises(ConditionError, match=sentence):
        expand({named.format(own): grades}, {})


def test_a_perturbation_that_changes_candidates_or_cannot_read_its_file_ends_its_cell_alone(
    own: str, toy: Requests
) -> None:
    _, sorting, reading = expand({f"{own}:Sorting": None, f"{own}:Reading": None}, {})
    with pytest.raises(ValueError, match="sorting: a perturbation leaves the candidates of requests as they are"):
        sorting.apply(toy, 0)
    with pytest.raises(RuntimeError, match=r"reading: .*/no/such/lexicon"):  # no OSError, which is the run folder's
        reading.apply(toy, 0)


def test_an_unknown_variant_is_refused_with_its_neighbour() -> None:
    with pytest.raises(ConditionError, match="register: no variant 'polit'; did you mean 'polite'"):
        expand({"register": ["polit"]}, {})


def test_grades_of_a_family_without_any_are_refused() -> None:
    with pytest.raises(ConditionError, match="clean has no grades"):
        expand({"clean": [0.1]}, {})


def test_grades_that_are_no_shares_are_refused() -> None:
    with pytest.raises(PerturbationError, match=r"share between 0 and 1, not 1\.5"):
        expand({"typos": [1.5]}, {})
    for grade in ("weak", True):
        with pytest.raises(ConditionError, match=f"typos: a grade is a share between 0 and 1, not {grade!r}"):
            expand({"typos": [grade]}, {})


def test_a_condition_asked_for_twice_is_refused() -> None:
    with pytest.raises(ConditionError, match=r"'typos@0\.1' is asked for twice"):
        expand({"typos": [0.1, 0.2, 0.1]}, {})


def test_a_condition_applies_its_perturbation(toy: Requests) -> None:
    condition = Condition("typos@0.6", Typos(0.6))
    assert condition.apply(toy, 1).templates == Typos(0.6).apply(toy, 1).templates != toy.templates
    assert Condition("clean", Identity()).apply(toy, 1) is toy


def test_every_condition_can_be_shown(toy: Requests) -> None:
    for condition in expand(dict.fromkeys(FAMILIES), BOTH):
        shown = condition.apply(toy, 1)
        assert shown.candidates is toy.candidates
        for row in range(len(toy)):
            prompt = shown.prompt("recommend", row).with_value("target", "Psycho").text
            assert "Psycho" in prompt
