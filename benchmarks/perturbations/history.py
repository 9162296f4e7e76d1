"""Histories in another order, with gaps, or with items that do not belong there."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from benchmarks.perturbations.base import Graded, HistoryPerturbation, PerturbationError, draw_touched
from data.types import IntArray


@dataclass(frozen=True)
class HistoryShuffle(Graded, HistoryPerturbation):
    """Moves a share of the items of a history to one another's places.

    The touched items change places in a ring drawn at random, so that every touched item does move;
    severity 1 is a shuffle that leaves no item in its place. One item cannot move alone: where the share is
    less than two items, two are touched, accordingly less often. A history of one item stays as it is.

    >>> history, pool = np.array([10, 11, 12, 13]), np.array([1, 2, 3])
    >>> HistoryShuffle(0.5).perturb(history, pool, np.random.default_rng(0)).tolist()
    [12, 11, 10, 13]

    Args:
        severity: share of items to move.
    """

    family: ClassVar[str] = "history-shuffle"

    def perturb(self, history: IntArray, pool: IntArray, rng: np.random.Generator) -> IntArray:
        """The history with items moved."""
        touched = draw_touched(len(history), self.severity, rng, least=2)
        shuffled = history.copy()
        shuffled[touched] = history[np.roll(touched, 1)]
        return shuffled


@dataclass(frozen=True)
class HistoryDrop(Graded, HistoryPerturbation):
    """Leaves out a share of the items of a history, never all: one item remains at least.

    >>> history, pool = np.array([10, 11, 12, 13]), np.array([1, 2, 3])
    >>> HistoryDrop(0.5).perturb(history, pool, np.random.default_rng(0)).tolist()
    [11, 13]

    Args:
        severity: share of items to leave out.
    """

    family: ClassVar[str] = "history-drop"

    def perturb(self, history: IntArray, pool: IntArray, rng: np.random.Generator) -> IntArray:
        """The history without the touched items."""
        touched = draw_touched(len(history), self.severity, rng)
        return np.delete(history, touched[: len(history) - 1])


@dataclass(frozen=True)
class HistoryInject(Graded, HistoryPerturbation):
    """Inserts other items at random places; the history's own items all stay.

    The history becomes longer; a model of sequences of limited length, such as RecBole's, takes the latest items and
    loses as many of the oldest. Inserted items are never candidates of the row, and never in the history shown; a few
    may be of what the user chose before it.

    >>> history, pool = np.array([10, 11, 12, 13]), np.array([1, 2, 3])
    >>> HistoryInject(0.5).perturb(history, pool, np.random.default_rng(2)).tolist()
    [10, 1, 11, 3, 12, 13]

    Args:
        severity: number of inserted items as a share of the history's length.
    """

    family: ClassVar[str] = "history-inject"

    def perturb(self, history: IntArray, pool: IntArray, rng: np.random.Generator) -> IntArray:
        """The history with further items.

        Raises:
            PerturbationError: if the pool has too few items.
        """
        number = len(draw_touched(len(history), self.severity, rng))
        if number > len(pool):
            raise PerturbationError(
                f"{self.family}: {number} items to insert, but only {len(pool)} are neither in the history "
                "nor candidates; use fewer negatives, or leave this family out"
            )
        places = rng.integers(len(history) + 1, size=len(history))
        return np.insert(history, places[:number], rng.permutation(pool)[:number])
