"""Titles and descriptions with misspelt characters."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from benchmarks.perturbations.base import Graded, TitlePerturbation, draw_touched
from benchmarks.perturbations.keyboard import neighbouring_key


@dataclass(frozen=True)
class TitleNoise(Graded, TitlePerturbation):
    """Edits a share of the characters of titles and descriptions: replaced by a neighbouring key, dropped or doubled.

    All characters count; letters and digits can be touched. The first of these is never dropped, so that no
    title becomes empty. The edit of a character is the same in every grade.

    >>> TitleNoise(0.2).perturb("The Silence of the Lambs", np.random.default_rng(0))
    'Th Sukence of the Lakbbs'

    Args:
        severity: share of characters to edit.
    """

    family: ClassVar[str] = "title-noise"

    def perturb(self, title: str, rng: np.random.Generator) -> str:
        """The title with characters edited."""
        editable = [n for n, character in enumerate(title) if character.isalnum()]
        edits = {n: _slip(title[n], rng, may_drop=n != editable[0]) for n in editable}
        chosen = draw_touched(len(editable), self.severity, rng, total=len(title))
        touched = {editable[n] for n in chosen.tolist()}
        return "".join(edits[n] if n in touched else character for n, character in enumerate(title))


def _slip(character: str, rng: np.random.Generator, may_drop: bool) -> str:
    edit = rng.integers(3)
    if edit == 0:
        return neighbouring_key(character, rng)
    return "" if edit == 1 and may_drop else 2 * character
