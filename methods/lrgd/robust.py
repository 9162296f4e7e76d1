"""Stage 2: how much the dual step is changed, chosen for the worst seen template."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data.types import FloatArray, IntArray
from methods.lrgd.attention import UNCHANGED, Strength


@dataclass(frozen=True)
class Grid:
    """Values that are tried, beside 0.

    Args:
        alpha: for the regularised start.
        beta: for negative demonstrations.
        eps: for noise on demonstration keys.
    """

    alpha: tuple[float, ...] = (0.05, 0.1)
    beta: tuple[float, ...] = (0.25, 0.5)
    eps: tuple[float, ...] = (0.1, 0.3)

    @property
    def values(self) -> Mapping[str, tuple[float, ...]]:
        """The values by name."""
        return {"alpha": self.alpha, "beta": self.beta, "eps": self.eps}


GRID = Grid()


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Args:
        strength: the best setting.
        quality: its quality.
        plain: quality where nothing is changed.
        trials: settings tried.
    """

    strength: Strength
    quality: float
    plain: float
    trials: int


def choose(quality: Callable[[Strength], float], grid: Grid = GRID) -> Choice:
    """The best setting, one parameter after the other; 0 unless another value is strictly better.

    Args:
        quality: of a setting, higher is better.
        grid: what is tried.
    """
    best = UNCHANGED
    reached = plain = quality(best)
    trials = 1
    for name, values in grid.values.items():
        for tried in [replace(best, **{name: value}) for value in values]:
            trials += 1
            value = quality(tried)
            if value > reached:
                best, reached = tried, value
    return Choice(best, reached, plain, trials)


def ndcg_at_10(scores: FloatArray, positive: IntArray) -> FloatArray:
    """NDCG@10 of each row with one right candidate; ties count half a rank, and one for the tenth place is no hit.

    >>> ndcg_at_10(np.array([[3.0, 1.0, 2.0]]), np.array([2])).round(3).tolist()
    [0.631]
    """
    own = np.take_along_axis(scores, positive[:, None], axis=1)
    rank = (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2
    result: FloatArray = np.where(rank <= 9, 1 / np.log2(rank + 2), 0.0)
    return result


def worst(qualities: Sequence[FloatArray]) -> float:
    """The least mean quality among templates, each measured on the same users."""
    return min(float(values.mean()) for values in qualities)
