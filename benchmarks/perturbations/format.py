"""The same words in another typography."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from benchmarks.perturbations.base import PerturbationError, Ungraded, WordingPerturbation
from benchmarks.perturbations.wording import WORD
from data.prompts.template import ListStyle, Template

STYLES = (
    ListStyle(separator="; "),
    ListStyle(separator=" | "),
    ListStyle(separator=", ", before='"', after='"'),
    ListStyle(separator="\n", before="- "),
    ListStyle(separator="\n", before="{n}. "),
)


@dataclass(frozen=True)
class Format(Ungraded, WordingPerturbation):
    r"""Changes typography: each user gets one way of doing so, drawn at random.

    ``list`` writes the titles in a row in another style, the text of each title unchanged:

    >>> from data.prompts.template import Domain, parse
    >>> template = Template("t", "recommend", "seen", parse("Given {history}. Is it {target}? Answer:"))
    >>> values = {"history": ["Alien", "Brazil"], "target": "Cube"}
    >>> template.fill(Domain(), values).text
    'Given Alien, Brazil. Is it Cube? Answer:'
    >>> Format("list").perturb_template(template, np.random.default_rng(1)).fill(Domain(), values).text
    'Given "Alien", "Brazil". Is it Cube? Answer:'

    ``case`` writes the wording in lower case, upper case or with Capitals:

    >>> Format("case").perturb_template(template, np.random.default_rng(1)).fill(Domain(), values).text
    'GIVEN Alien, Brazil. IS IT Cube? ANSWER:'

    ``spacing`` doubles the blanks of the wording, or breaks the line after its sentences and clauses:

    >>> Format("spacing").perturb_template(template, np.random.default_rng(1)).fill(Domain(), values).text
    'Given  Alien, Brazil.  Is  it  Cube?  Answer:'

    Args:
        variant: ``list``, ``case`` or ``spacing``.

    Raises:
        PerturbationError: for another variant.
    """

    variant: Literal["list", "case", "spacing"]
    family: ClassVar[str] = "format"

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise PerturbationError(f"format is one of {', '.join(VARIANTS)}, not {self.variant!r}")

    def perturb_template(self, template: Template, rng: np.random.Generator) -> Template:
        """The template in another typography."""
        return VARIANTS[self.variant](template, rng)


def restyle_lists(template: Template, rng: np.random.Generator) -> Template:
    """The template with its lists written in a style that is not its own."""
    others = [style for style in STYLES if style != template.style]
    return replace(template, style=others[rng.integers(len(others))])


def recase(template: Template, rng: np.random.Generator) -> Template:
    """The template with its wording in lower case, in upper case, or with every word capitalised."""
    return _one_of((str.lower, str.upper, _capitals), template, rng)


def respace(template: Template, rng: np.random.Generator) -> Template:
    """The template with doubled blanks, or with line breaks after sentences and clauses."""
    return _one_of((_doubled_blanks, _line_breaks), template, rng)


VARIANTS: dict[str, Callable[[Template, np.random.Generator], Template]] = {
    "list": restyle_lists,
    "case": recase,
    "spacing": respace,
}


def _one_of(changes: Sequence[Callable[[str], str]], template: Template, rng: np.random.Generator) -> Template:
    """The template after one of the changes, drawn among those that make a difference to it."""
    changed = [template.map_wording(change) for change in changes]
    different = [other for other in changed if other != template]
    return different[rng.integers(len(different))] if different else template


def _capitals(text: str) -> str:
    return WORD.sub(lambda word: word[0].capitalize(), text)


def _doubled_blanks(text: str) -> str:
    return text.replace(" ", "  ")


def _line_breaks(text: str) -> str:
    return re.sub(r"(?<=[.?!:;,]) +", "\n", text)
