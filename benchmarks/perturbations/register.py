"""The same request in another tone."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from benchmarks.perturbations.base import PerturbationError, Ungraded, WordingPerturbation
from benchmarks.perturbations.wording import put_before, put_before_cue
from data.prompts.template import Template

GREETING = "Hello, I would be very grateful if you could help me with the following."
THANKS = "Thank you very much for your time."
ROLE = "Act as a renowned expert who has been advising people on what to pick for twenty years."
# What a telegram leaves out. A capital A stays, since it may name an option.
FILLERS = re.compile(r"\b(?:a|an|(?i:the|this|these|my|your|our|their|please|kindly|just|very)) +")


@dataclass(frozen=True)
class Register(Ungraded, WordingPerturbation):
    """Rewords a template in another tone, the same for every user.

    >>> from data.prompts.template import parse
    >>> parts = parse("Given the {items} {history}, is {target} next? Answer:")
    >>> template = Template("t", "recommend", "seen", parts)
    >>> rng = np.random.default_rng(0)

    ``polite`` adds a greeting in front and thanks at the end, before a trailing answer cue:

    >>> Register("polite").perturb_template(template, rng).source  # doctest: +NORMALIZE_WHITESPACE
    'Hello, I would be very grateful if you could help me with the following.
    Given the {items} {history}, is {target} next? Thank you very much for your time. Answer:'

    ``terse`` leaves out articles, possessives, courtesies and intensifiers:

    >>> Register("terse").perturb_template(template, rng).source
    'Given {items} {history}, is {target} next? Answer:'

    ``role-play`` adds a role in front:

    >>> Register("role-play").perturb_template(template, rng).source  # doctest: +NORMALIZE_WHITESPACE
    'Act as a renowned expert who has been advising people on what to pick for twenty years.
    Given the {items} {history}, is {target} next? Answer:'

    Args:
        tone: ``polite``, ``terse`` or ``role-play``.

    Raises:
        PerturbationError: for another tone.
    """

    tone: Literal["polite", "terse", "role-play"]
    family: ClassVar[str] = "register"

    def __post_init__(self) -> None:
        if self.tone not in TONES:
            raise PerturbationError(f"a register is one of {', '.join(TONES)}, not {self.tone!r}")

    def perturb_template(self, template: Template, rng: np.random.Generator) -> Template:
        """The template in another tone; nothing is drawn."""
        return TONES[self.tone](template)


def polite(template: Template) -> Template:
    """The template between a greeting and thanks."""
    return put_before(put_before_cue(template, THANKS), GREETING)


def terse(template: Template) -> Template:
    """The template without filler words."""
    return template.map_wording(lambda text: FILLERS.sub("", text))


def role_play(template: Template) -> Template:
    """The template after the role it is to be answered in."""
    return put_before(template, ROLE)


TONES: dict[str, Callable[[Template], Template]] = {"polite": polite, "terse": terse, "role-play": role_play}
