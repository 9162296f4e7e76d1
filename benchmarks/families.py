"""The families of conditions that a suite asks for by name."""

import dataclasses
import fnmatch
import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, get_args

from benchmarks.conditions import Condition, ConditionError
from benchmarks.perturbations.base import Perturbation, Reach
from benchmarks.perturbations.demonstrations import ORDERS, DemonstrationCount, DemonstrationOrder
from benchmarks.perturbations.distractor import PLACES, Distractor
from benchmarks.perturbations.format import VARIANTS, Format
from benchmarks.perturbations.history import HistoryDrop, HistoryInject, HistoryShuffle
from benchmarks.perturbations.identity import Identity
from benchmarks.perturbations.register import TONES, Register
from benchmarks.perturbations.synonyms import Synonyms
from benchmarks.perturbations.templates import SameTemplate, Seen, Unseen
from benchmarks.perturbations.title_noise import TitleNoise
from benchmarks.perturbations.typos import Typos
from data.errors import InputError, told
from data.fingerprint import fingerprint
from data.prompts.template import Role, Template
from data.spelling import near

DEFAULT_GRADES = (0.05, 0.1, 0.2, 0.3)
SHARED: Role = "recommend"
"""The role that gives the unseen conditions their number and names, whatever other roles a method has."""

Grades = Sequence[float | str] | None
Wordings = Mapping[Role, tuple[Template, ...]]


class Family(Protocol):
    """How the name of a family in a suite becomes conditions."""

    def conditions(self, name: str, grades: Grades, wordings: Wordings) -> Iterable[Condition]:
        """The conditions of the family.

        Raises:
            ConditionError: for grades the family does not have.
            PerturbationError: for a grade outside [0, 1].
        """
        ...


@dataclass(frozen=True)
class Grading:
    """One condition per severity, ``typos@0.1``.

    Args:
        make: makes the perturbation of a severity.
    """

    make: Callable[[float], Perturbation]

    def conditions(self, name: str, grades: Grades, wordings: Wordings) -> Iterable[Condition]:
        """One condition per grade; by default 0.05, 0.1, 0.2 and 0.3."""
        for grade in DEFAULT_GRADES if grades is None else grades:
            if isinstance(grade, bool | str):
                raise ConditionError(f"{name}: a grade is a share between 0 and 1, not {grade!r}")
            yield Condition(f"{name}@{grade:g}", self.make(float(grade)))


@dataclass(frozen=True)
class Variants:
    """One condition per variant, ``register/polite``.

    Args:
        make: makes the perturbation of a variant.
        names: names of the variants.
    """

    make: Callable[[Any], Perturbation]
    names: tuple[str, ...]

    def conditions(self, name: str, grades: Grades, wordings: Wordings) -> Iterable[Condition]:
        """One condition per variant; by default all."""
        for variant in self.names if grades is None else grades:
            if variant not in self.names:
                raise ConditionError(f"{name}: no variant {variant!r}; {_choices(str(variant), self.names)}")
            yield Condition(f"{name}/{variant}", self.make(variant))


@dataclass(frozen=True)
class Numbers:
    """One condition per number, ``demonstration-count/4``.

    Args:
        make: makes the perturbation of a number.
        default: numbers a suite gets that names none.
    """

    make: Callable[[int], Perturbation]
    default: tuple[int, ...]

    def conditions(self, name: str, grades: Grades, wordings: Wordings) -> Iterable[Condition]:
        """One condition per number."""
        for number in self.default if grades is None else grades:
            if isinstance(number, bool | str) or not float(number).is_integer():
                raise ConditionError(f"{name}: a number is 0, 1, 2, ..., not {number!r}")
            yield Condition(f"{name}/{number:g}", self.make(int(number)))


@dataclass(frozen=True)
class PerTemplate:
    """One condition per template of a family, ``unseen/recommend-unseen-03``.

    The first role gives the number and the names of the conditions, so that they are the same for methods with
    other roles beside it. Condition ``k`` shows the ``k``-th template of every role, starting again from the first
    where a role has fewer; one that has more is refused, since the rest would never be shown. Seen templates that
    ask for different things, as those with strategies do, are none of a family. Instead of grades, a suite can name the
    templates, by their ids or patterns such as ``*-unseen-03``.

    Args:
        make: shows one template per role, of the family that it is named after.
    """

    make: type[SameTemplate]

    def conditions(self, name: str, grades: Grades, wordings: Wordings) -> Iterable[Condition]:
        """As many conditions as the first role has templates of the family, or has of those that are named."""
        patterns = [str(pattern) for pattern in (("*",) if grades is None else grades)]
        own = {role: tuple(t for t in group if t.family == self.make.family) for role, group in wordings.items()}
        if self.make is Seen:
            own = {role: group for role, group in own.items() if not any(t.strategy for t in group)}
        chosen = {role: _matching(patterns, group) for role, group in own.items()}
        names = next(iter(chosen.values()), ())
        for role, templates in chosen.items():
            if not templates:
                raise ConditionError(f"{name}: role {role!r} has no {name} templates that match {', '.join(patterns)}")
            if len(templates) > len(names):
                raise ConditionError(
                    f"{name}: role {role!r} has {len(templates)} {name} templates and {names[0].role!r}, which numbers "
                    f"the conditions, {len(names)}: add as many of role {names[0].role!r}"
                )
        for k, naming in enumerate(names):
            shown = tuple(templates[k % len(templates)] for templates in chosen.values())
            yield Condition(f"{name}/{naming.id}", self.make(shown))


@dataclass(frozen=True)
class Own:
    """Conditions of a perturbation, such as a user's own: one per severity if it has severities, else one of its name.

    Args:
        make: its class.
    """

    make: type[Perturbation]

    def conditions(self, name: str, grades: Grades, wordings: Wordings) -> Iterable[Condition]:
        """Named after the family of the class."""
        try:
            if _graded(self.make):
                found = list(Grading(self.make).conditions(self.make.family, grades, wordings))
            else:
                _refuse_grades(name, grades)
                found = [Condition(self.make.family, self.make())]
            fingerprint([condition.describe() for condition in found])  # of fields that can be stored
            return found
        except InputError:
            raise
        except Exception as error:  # of its own code
            raise ConditionError(f"condition {name!r}: {told(error)}") from error


def _matching(patterns: Sequence[str], templates: Sequence[Template]) -> tuple[Template, ...]:
    """Templates whose ids match some pattern."""
    return tuple(t for t in templates if any(fnmatch.fnmatchcase(t.id, pattern) for pattern in patterns))


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "clean": Own(Identity),
        "unseen": PerTemplate(Unseen),
        "seen": PerTemplate(Seen),
        "format": Variants(Format, tuple(VARIANTS)),
        "typos": Grading(Typos),
        "synonyms": Grading(Synonyms),
        "distractor": Variants(Distractor, tuple(PLACES)),
        "register": Variants(Register, tuple(TONES)),
        "history-shuffle": Grading(HistoryShuffle),
        "history-drop": Grading(HistoryDrop),
        "history-inject": Grading(HistoryInject),
        "title-noise": Grading(TitleNoise),
        "demonstration-order": Variants(DemonstrationOrder, ORDERS),
        "demonstration-count": Numbers(DemonstrationCount, (0, 1, 2, 4, 8)),
    }
)


def expand(families: Mapping[str, Grades], wordings: Wordings) -> tuple[Condition, ...]:
    """All conditions of a suite; the first is always ``clean``.

    Args:
        families: name of a family, or ``package.module:Class`` of a perturbation -> its grades or variants, None for
            the default ones.
        wordings: templates by role, for the families ``unseen`` and ``seen``; empty if no method has a prompt.

    Raises:
        ConditionError: for an unknown family or variant, unfit grades, or a condition asked for twice.
        PerturbationError: for a grade outside [0, 1].

    >>> [condition.name for condition in expand({"typos": [0.1, 0.2], "distractor": None}, {})]
    ['clean', 'typos@0.1', 'typos@0.2', 'distractor/before', 'distractor/after']
    """
    conditions: dict[str, Condition] = {}
    for name, grades in {"clean": None, **families}.items():
        family = _family(name)
        if grades is not None and not grades:
            raise ConditionError(f"{name}: the list is empty; give true for what the family has by default, or false")
        for condition in family.conditions(name, grades, wordings):
            if condition.name in conditions:
                raise ConditionError(f"condition {condition.name!r} is asked for twice")
            conditions[condition.name] = condition
    return tuple(conditions.values())


def _family(name: str) -> Family:
    """A family by name, or that of a user's own perturbation."""
    if name in FAMILIES:
        return FAMILIES[name]
    module, _, attribute = name.partition(":")
    if not (module and attribute):
        known = _choices(name, tuple(FAMILIES))
        raise ConditionError(f"no condition family {name!r}: {known}, or package.module:Class of your own")
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # a script without a guard may end by itself
        raise ConditionError(f"condition {name!r}: {told(error)}") from error
    if not _is_perturbation(found):
        raise ConditionError(
            f"condition {name!r}: no perturbation: a dataclass with family, reach, apply, and a severity that is "
            "a field or None"
        )
    family = getattr(found, "family", None)
    if not isinstance(family, str) or not re.fullmatch(r"[\w-]+", family) or family in FAMILIES:
        raise ConditionError(
            f"condition {name!r}: family must be a word that is no name of another family, not {family!r}"
        )
    return Own(found)


def _is_perturbation(found: Any) -> bool:
    if not (isinstance(found, type) and dataclasses.is_dataclass(found) and hasattr(found, "apply")):
        return False
    has_severity = _graded(found) or getattr(found, "severity", "") is None
    return getattr(found, "reach", None) in get_args(Reach) and has_severity


def _graded(found: Any) -> bool:
    return any(field.name == "severity" for field in dataclasses.fields(found))


def _choices(name: str, valid: Sequence[str]) -> str:
    return f"{near(name, valid)}choices are {', '.join(valid)}"


def _refuse_grades(name: str, grades: Grades) -> None:
    if grades is not None:
        raise ConditionError(f"{name} has no grades or variants to choose from, not {list(grades)!r}")
