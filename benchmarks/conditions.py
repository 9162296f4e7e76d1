"""Conditions: named perturbations, and the families a suite asks for them by."""

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from benchmarks.perturbations.base import Perturbation
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
from data.errors import InputError
from data.prompts.template import Role, Template
from data.spelling import near
from methods.base import Requests

DEFAULT_GRADES = (0.05, 0.1, 0.2, 0.3)
SHARED: Role = "recommend"
"""The role that gives the unseen conditions their number and names, whatever other roles a method has."""

Grades = Sequence[float | str] | None
Wordings = Mapping[Role, tuple[Template, ...]]


class ConditionError(InputError):
    """The conditions that were asked for do not exist."""


@dataclass(frozen=True)
class Condition:
    """One way of showing the requests.

    Args:
        name: what users see, unique in a run: ``clean``, ``typos@0.1``, ``register/polite``.
        perturbation: what is done to the requests.
    """

    name: str
    perturbation: Perturbation

    def apply(self, requests: Requests, seed: int) -> Requests:
        """The requests as shown under the condition."""
        return self.perturbation.apply(requests, seed)

    def describe(self) -> dict[str, Any]:
        """What is stored with the scores; JSON types only, templates by their ids.

        >>> Condition("typos@0.1", Typos(0.1)).describe()
        {'name': 'typos@0.1', 'family': 'typos', 'reach': 'wording', 'severity': 0.1, 'parameters': {}}
        """
        parameters = {
            field.name: _plain(getattr(self.perturbation, field.name))
            for field in dataclasses.fields(self.perturbation)  # type: ignore[arg-type]
            if field.name != "severity"
        }
        return {
            "name": self.name,
            "family": self.perturbation.family,
            "reach": self.perturbation.reach,
            "severity": self.perturbation.severity,
            "parameters": parameters,
        }


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


class Clean:
    """The clean condition alone."""

    def conditions(self, name: str, grades: Grades, wordings: Wordings) -> Iterable[Condition]:
        """One condition, without grades."""
        _refuse_grades(name, grades)
        yield Condition(name, Identity())


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


def _matching(patterns: Sequence[str], templates: Sequence[Template]) -> tuple[Template, ...]:
    """Templates whose ids match some pattern."""
    return tuple(t for t in templates if any(fnmatch.fnmatchcase(t.id, pattern) for pattern in patterns))


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "clean": Clean(),
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
        families: name of a family -> its grades or variants, None for the default ones.
        wordings: templates by role, for the families ``unseen`` and ``seen``; empty if no method has a prompt.

    Raises:
        ConditionError: for an unknown family or variant, unfit grades, or a condition asked for twice.
        PerturbationError: for a grade outside [0, 1].

    >>> [condition.name for condition in expand({"typos": [0.1, 0.2], "distractor": None}, {})]
    ['clean', 'typos@0.1', 'typos@0.2', 'distractor/before', 'distractor/after']
    """
    conditions: dict[str, Condition] = {}
    for name, grades in {"clean": None, **families}.items():
        if name not in FAMILIES:
            raise ConditionError(f"no condition family {name!r}: {_choices(name, tuple(FAMILIES))}")
        if grades is not None and not grades:
            raise ConditionError(f"{name}: the list is empty; give true for what the family has by default, or false")
        for condition in FAMILIES[name].conditions(name, grades, wordings):
            if condition.name in conditions:
                raise ConditionError(f"condition {condition.name!r} is asked for twice")
            conditions[condition.name] = condition
    return tuple(conditions.values())


def _choices(name: str, valid: Sequence[str]) -> str:
    return f"{near(name, valid)}choices are {', '.join(valid)}"


def _refuse_grades(name: str, grades: Grades) -> None:
    if grades is not None:
        raise ConditionError(f"{name} has no grades or variants to choose from, not {list(grades)!r}")


def _plain(value: Any) -> Any:
    if isinstance(value, Template):
        return value.id
    return [_plain(element) for element in value] if isinstance(value, tuple) else value
