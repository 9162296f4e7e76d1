"""Stage 2: how much the dual step is changed, chosen for the worst seen template."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from data.types import FloatArray
from methods.lrgd.attention import UNCHANGED, Strength

Grid = Mapping[str, tuple[float, ...]]
"""Values that are tried beside 0, by the name of what changes the step."""

GRID: Grid = {"alpha": (0.05, 0.1), "beta": (0.25, 0.5), "eps": (0.1, 0.3)}


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
    for name, values in grid.items():
        for tried in [replace(best, **{name: value}) for value in values]:
            trials += 1
            value = quality(tried)
            if value > reached:
                best, reached = tried, value
    return Choice(best, reached, plain, trials)


def worst(qualities: Sequence[FloatArray]) -> float:
    """The least mean quality among templates, each measured on the same users."""
    return min(float(values.mean()) for values in qualities)
