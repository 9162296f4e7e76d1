"""Words of the prompt with one slip of the finger each."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from benchmarks.perturbations.base import Graded, WordingPerturbation
from benchmarks.perturbations.keyboard import neighbouring_key
from benchmarks.perturbations.wording import replace_words
from data.prompts.template import Template

SHORTEST = 3


@dataclass(frozen=True)
class Typos(Graded, WordingPerturbation):
    """Misspells a share of the words of a template, counted over its whole wording, by one edit each.

    Words of one or two letters count but are never touched. The edits of a word are the same in every grade.

    >>> from data.prompts.template import parse
    >>> parts = parse("After {history}, is {target} the next choice? Answer:")
    >>> template = Template("t", "recommend", "seen", parts)
    >>> Typos(0.5).perturb_template(template, np.random.default_rng(0)).source
    'Afteer {history}, is {target} the bext choiice? Answer:'

    Args:
        severity: share of words to misspell.
    """

    family: ClassVar[str] = "typos"

    def perturb_template(self, template: Template, rng: np.random.Generator) -> Template:
        """The template with misspelt words."""

        def misspelt(word: str) -> str | None:
            return misspell(word, rng) if len(word) >= SHORTEST else None

        return replace_words(template, misspelt, self.severity, rng)


def misspell(word: str, rng: np.random.Generator) -> str:
    """The word with one edit: a neighbouring key, two letters swapped, a letter dropped or doubled.

    The result is never the word itself: where a swap would change nothing, the letter is doubled.

    >>> rng = np.random.default_rng(0)
    >>> [misspell("answer", rng) for _ in range(5)]
    ['answwer', 'asnwer', 'qnswer', 'answwer', 'anser']
    """
    edit = rng.integers(4)
    at = int(rng.integers(len(word)))
    here, after = word[at], word[at + 1 : at + 2]
    changed = (neighbouring_key(here, rng) + after, after + here, after, 2 * here + after)[edit]
    if changed == here + after:
        changed = 2 * here + after
    return word[:at] + changed + word[at + 2 :]
