"""A sentence that has nothing to do with the question."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from benchmarks.perturbations.base import PerturbationError, Ungraded, WordingPerturbation
from benchmarks.perturbations.wording import put_before, put_before_cue
from data.prompts.template import Template

SENTENCES = (
    "The weather has been mild for most of the week.",
    "A bus leaves from the main square every twenty minutes.",
    "Water boils at a lower temperature on a high mountain.",
    "The library closes early on public holidays.",
    "Somebody left an umbrella in the meeting room.",
    "Bees can see colours that humans cannot.",
    "The bridge was repainted in green last spring.",
    "Two neighbours are learning to play the violin.",
    "A cup of coffee costs a little more than it used to.",
    "The river freezes over about once in ten years.",
    "Most keyboards have a row of digits above the letters.",
    "The bakery on the corner opens at half past six.",
)
PLACES = {"before": put_before, "after": put_before_cue}


@dataclass(frozen=True)
class Distractor(Ungraded, WordingPerturbation):
    """Adds an irrelevant sentence, drawn at random from twelve, the same in both places.

    ``before`` is the start of the prompt; ``after`` is its end, but before a trailing answer cue such as
    ``Answer:`` (what follows the last sentence or line, see :func:`put_before_cue`).

    >>> from data.prompts.template import parse
    >>> template = Template("t", "recommend", "seen", parse("After {history}, is {target} next? Answer:"))
    >>> Distractor("before").perturb_template(template, np.random.default_rng(1)).source
    'Bees can see colours that humans cannot. After {history}, is {target} next? Answer:'
    >>> Distractor("after").perturb_template(template, np.random.default_rng(1)).source
    'After {history}, is {target} next? Bees can see colours that humans cannot. Answer:'

    Args:
        position: ``before`` or ``after``.

    Raises:
        PerturbationError: for another position.
    """

    position: Literal["before", "after"]
    family: ClassVar[str] = "distractor"

    def __post_init__(self) -> None:
        if self.position not in PLACES:
            raise PerturbationError(f"a distractor is placed {' or '.join(PLACES)}, not {self.position!r}")

    def perturb_template(self, template: Template, rng: np.random.Generator) -> Template:
        """The template with one sentence more."""
        return PLACES[self.position](template, SENTENCES[rng.integers(len(SENTENCES))])
