"""Words of the prompt replaced by words of the same meaning."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import ClassVar

import numpy as np

from benchmarks.perturbations.base import Graded, WordingPerturbation
from benchmarks.perturbations.wording import replace_words
from data.prompts.template import Template


@dataclass(frozen=True)
class Synonyms(Graded, WordingPerturbation):
    """Replaces a share of the words of a template by synonyms from a curated lexicon.

    The share is counted over all words of the wording. A word without an entry in ``synonyms.toml`` cannot be
    touched: where fewer words have one than the severity asks for, all of those are replaced.

    >>> from data.prompts.template import parse
    >>> parts = parse("After {history}, is {target} the next choice? Answer:")
    >>> template = Template("t", "recommend", "seen", parts)
    >>> Synonyms(0.5).perturb_template(template, np.random.default_rng(0)).source
    'Following {history}, is {target} the later pick? Answer:'

    Args:
        severity: share of words to replace.
    """

    family: ClassVar[str] = "synonyms"

    def perturb_template(self, template: Template, rng: np.random.Generator) -> Template:
        """The template with words replaced."""

        def synonym(word: str) -> str | None:
            entry = lexicon().get(word.lower())
            return _cased_like(word, entry[rng.integers(len(entry))]) if entry else None

        return replace_words(template, synonym, self.severity, rng)


@cache
def lexicon() -> Mapping[str, tuple[str, ...]]:
    """Synonyms by word in lower case, each inflected form with an entry of its own."""
    text = resources.files("benchmarks.perturbations").joinpath("synonyms.toml").read_text(encoding="utf-8")
    return {word: tuple(synonyms) for word, synonyms in tomllib.loads(text).items()}


def _cased_like(word: str, synonym: str) -> str:
    if len(word) > 1 and word.isupper():
        return synonym.upper()
    return synonym.capitalize() if word[0].isupper() else synonym
