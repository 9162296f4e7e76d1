"""Stage 2: how much the dual step is changed, chosen for the worst seen template."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from data.types import FloatArray
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


def worst(qualities: Sequence[FloatArray]) -> float:
    """The least mean quality among templates, each measured on the same users."""
    return min(float(values.mean()) for values in qualities)
