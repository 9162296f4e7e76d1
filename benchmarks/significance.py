"""Paired comparisons of methods on identical users, candidates, templates and seeds.

The unit of every test is the user: templates and seeds are averaged first. The bootstrap interval is the
one that also asks how the result would move with other templates and seeds.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from data.types import FloatArray, IntArray

BLOCK: Final = 2**22  # random numbers held at once: 32 MiB as floats
TIE: Final = 1e-12  # relative difference below which two statistics count as equal


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def _refuse_undefined(values: FloatArray) -> None:
    """Raise a ValueError unless there are values and all are finite: NaN would pass for 'not extreme'."""
    if values.size == 0:
        raise ValueError("a paired comparison needs at least one user")
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise ValueError(f"user {row}: the paired difference is not finite; compare users for whom both are defined")


def _blocks(draws: int, width: int) -> Iterator[int]:
    """Sizes of blocks of draws, ``width`` numbers each, that fit into memory and add up to ``draws``."""
    size = max(1, BLOCK // width)
    yield from (min(size, draws - start) for start in range(0, draws, size))


def paired_permutation_p(difference: FloatArray, *, draws: int = 10_000, rng: np.random.Generator) -> float:
    """Two-sided sign-flip permutation test of a mean paired difference: ``p = (1 + extreme) / (1 + draws)``.

    If the methods are interchangeable, each user's difference is as likely to have the other sign.

    Args:
        difference: one value per user, shape ``[users]``.
        draws: random assignments of signs.
        rng: source of randomness.

    Returns:
        p in (0, 1]; 1 where all differences are 0.

    Raises:
        ValueError: if there is no user or a difference is not finite.

    Source: Fisher, 1935, chapter 3; the added one: Phipson and Smyth, 2010.

    >>> paired_permutation_p(np.ones(20), draws=999, rng=np.random.default_rng(0))
    0.001
    """
    _refuse_undefined(difference)
    # sum of s_i * d_i over signs s_i = 1 - 2 * bit_i
    total = difference.sum()
    threshold = abs(total) - TIE * np.abs(difference).sum()
    extreme = 0
    for bits in _random_bits(difference.size, draws, rng):
        extreme += int((np.abs(total - 2 * (bits @ difference)) >= threshold).sum())
    return (1 + extreme) / (1 + draws)


def _random_bits(width: int, draws: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.uint8]]:
    """Fair coin flips in blocks of shape ``[some draws, width]``, eight from every random byte."""
    for block in _blocks(draws, width):
        octets = rng.integers(256, size=(block, -(-width // 8)), dtype=np.uint8)
        yield np.unpackbits(octets, axis=1, count=width)


def resampled_counts(units: int, draws: int, rng: np.random.Generator) -> IntArray:
    """How often each unit is drawn when as many are drawn with replacement.

    Args:
        units: number of users, templates or seeds.
        draws: number of resamples.
        rng: source of randomness.

    Returns:
        Counts whose rows sum to ``units``, shape ``[draws, units]``.

    >>> resampled_counts(3, 2, np.random.default_rng(0)).sum(axis=1).tolist()
    [3, 3]
    """
    return rng.multinomial(units, np.full(units, 1 / units), size=draws)


def resamples(
    cube: FloatArray, groups: Sequence[int], draws: int, rng: np.random.Generator
) -> Iterator[tuple[FloatArray, IntArray, IntArray]]:
    """Users, templates and seeds, each resampled with replacement, in blocks of ``b`` draws that fit into memory.

    Args:
        cube: shape ``[users, planes, seeds]``.
        groups: sizes of the groups of templates, each resampled on its own.
        draws: number of resamples.
        rng: source of randomness.

    Yields:
        The cube summed over the users drawn, shape ``[b, planes, seeds]``, and how often each template and each seed
        is drawn, shapes ``[b, templates]`` and ``[b, seeds]``.
    """
    users, planes, seeds = cube.shape
    for block in _blocks(draws, users + planes * seeds):
        by_user = resampled_counts(users, block, rng) @ cube.reshape(users, -1)
        by_template = np.concatenate([resampled_counts(size, block, rng) for size in groups], axis=1)
        yield by_user.reshape(block, planes, seeds), by_template, resampled_counts(seeds, block, rng)


def bootstrap_interval(
    values: FloatArray,
    *,
    groups: Sequence[int] = (),
    draws: int = 10_000,
    rng: np.random.Generator,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of the mean with users, templates and seeds each resampled with replacement.

    Args:
        values: shape ``[users]``, ``[users, templates]`` or ``[users, templates, seeds]``.
        groups: sizes of the groups of templates, each resampled on its own; by default all are one group.
        draws: number of resamples.
        rng: source of randomness.
        level: share of resampled means inside the interval.

    Raises:
        ValueError: if there is no value or a value is not finite.

    Source: Owen, 2007 (pigeonhole bootstrap); for three factors Owen and Eckles, 2012, who show that it
    overestimates the variance mildly where every factor has many levels. Of few seeds it sees too little: where
    nothing but the seed matters, a 95 % interval holds the truth 75 % of the time with three seeds, 90 % with ten;
    one seed adds nothing to it.

    >>> bootstrap_interval(np.full((5, 2, 3), 0.5), draws=100, rng=np.random.default_rng(0))
    Interval(low=0.5, high=0.5)
    """
    _refuse_undefined(values)
    cube: FloatArray = values.reshape(values.shape + (1,) * (3 - values.ndim))
    parts = resamples(cube, groups or cube.shape[1:2], draws, rng)
    totals = [np.einsum("bts,bt,bs->b", *part) for part in parts]
    low, high = np.quantile(np.concatenate(totals) / cube.size, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


ALL_SIGNS = 13
"""Up to so many users, ties and users without a difference are no reason for an approximation of Wilcoxon's test."""


def _settled(difference: FloatArray) -> FloatArray:
    """Differences without float noise: it must neither break ties between ranks nor pass for an effect."""
    return difference.round(12)


def effect_size(difference: FloatArray) -> float:
    """Cohen's d for paired values: mean difference over its standard deviation (n - 1).

    Args:
        difference: one value per user, shape ``[users]``.

    Returns:
        d_z; infinite where all differences are the same, NaN where they are all 0 or there is one user.

    Source: Lakens, 2013, equation 6.

    >>> effect_size(np.array([1.0, 2.0, 3.0]))
    2.0
    """
    settled = _settled(difference)
    if settled.size < 2 or not settled.any():
        return float("nan")
    if np.ptp(settled) == 0:  # the computed deviation of equal floats is not always 0
        return float(np.copysign(np.inf, settled[0]))
    return float(difference.mean() / difference.std(ddof=1))


def t_p(difference: FloatArray) -> float:
    """Two-sided p of the paired t-test, with ``t = d_z * sqrt(users)``.

    Args:
        difference: one value per user, shape ``[users]``.

    Returns:
        p in [0, 1]; NaN where all differences are 0 or there is one user.

    >>> round(t_p(np.array([1.0, 2.0, 3.0])), 4)
    0.0742
    """
    from scipy.special import stdtr

    return float(2 * stdtr(difference.size - 1, -abs(effect_size(difference)) * np.sqrt(difference.size)))


def wilcoxon_p(difference: FloatArray) -> float:
    """Two-sided p of the Wilcoxon signed-rank test; users without a difference are left out.

    Args:
        difference: one value per user, shape ``[users]``.

    Returns:
        p in (0, 1]; NaN where all differences are 0.

    Source: Wilcoxon, 1945, as in :func:`scipy.stats.wilcoxon`.

    >>> wilcoxon_p(np.array([1.0, 2.0, 3.0]))
    0.25
    """
    from scipy.stats import permutation_test, rankdata, wilcoxon  # half a second to import

    settled = _settled(difference)
    if not settled.any():
        return float("nan")
    if settled.size > ALL_SIGNS or (settled.all() and np.unique(np.abs(settled)).size == settled.size):
        return float(wilcoxon(settled).pvalue)
    # Here wilcoxon, too, goes through all signs, but ranks anew for each: a second that this takes a hundredth of.
    signed = np.sign(settled) * (rankdata(np.abs(settled)) - np.count_nonzero(settled == 0))
    found = permutation_test(
        (signed,), lambda ranks, axis: ranks.sum(axis), permutation_type="samples", n_resamples=2**ALL_SIGNS
    )
    return float(found.pvalue)


def holm(p: FloatArray) -> FloatArray:
    """Holm's step-down adjustment of a family of p-values.

    Args:
        p: one value per comparison, NaN where a test is undefined, shape ``[comparisons]``.

    Returns:
        Adjusted values in input order, at most 1, shape ``[comparisons]``; NaN stays NaN and does not count.

    Source: Holm, 1979.

    >>> holm(np.array([0.03, 0.01, np.nan, 0.04])).tolist()
    [0.06, 0.03, nan, 0.06]
    """
    adjusted = np.full(p.shape, np.nan)
    ascending = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN sorts last
    remaining = np.arange(ascending.size, 0, -1)
    adjusted[ascending] = np.minimum(np.maximum.accumulate(remaining * p[ascending]), 1)
    return adjusted


@dataclass(frozen=True)
class Friedman:
    """Friedman's test of several methods on several data sets.

    Args:
        average_ranks: mean rank of each method, 1 is best, shape ``[methods]``.
        statistic: Friedman's chi-square, corrected for ties.
        p: its p-value; NaN where all methods tie on every data set.
    """

    average_ranks: FloatArray
    statistic: float
    p: float


def friedman(scores: FloatArray) -> Friedman:
    """Whether the methods' ranks differ across data sets by more than chance.

    Args:
        scores: one value per data set and method, higher is better, shape ``[datasets, methods]``.

    Raises:
        ValueError: if there are fewer than three methods.

    Source: Demšar, 2006, section 3.2.2.

    >>> friedman(np.array([[0.9, 0.5, 0.1], [0.8, 0.6, 0.2]])).average_ranks.tolist()
    [1.0, 2.0, 3.0]
    """
    from scipy.stats import friedmanchisquare, rankdata

    if scores.shape[1] < 3:
        raise ValueError(f"Friedman's test needs three methods or more, got {scores.shape[1]}; compare two in pairs")
    ranks = rankdata(-scores, axis=1)
    if np.ptp(ranks) == 0:
        return Friedman(ranks.mean(axis=0), float("nan"), float("nan"))
    statistic, p = friedmanchisquare(*scores.T)
    return Friedman(ranks.mean(axis=0), float(statistic), float(p))


def nemenyi_critical_difference(n_methods: int, n_datasets: int, alpha: float = 0.05) -> float:
    """How far two average ranks must be apart to differ: ``q * sqrt(k (k + 1) / (6 N))``.

    Args:
        n_methods: k, at least 2.
        n_datasets: N, at least 1.
        alpha: level of the whole family of comparisons.

    Source: Demšar, 2006, section 3.2.2; q is the studentised range quantile over sqrt(2) (table 5a).

    >>> round(nemenyi_critical_difference(5, 30), 3)
    1.114
    """
    from scipy.stats import studentized_range

    q = studentized_range.ppf(1 - alpha, n_methods, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(n_methods * (n_methods + 1) / (6 * n_datasets)))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Method a against method b, paired by user; positive differences favour a.

    Args:
        difference: mean of a - b.
        interval: bootstrap interval of it over users, templates and seeds.
        p: paired permutation test, the primary test; not yet adjusted by :func:`holm`.
        effect_size: Cohen's d_z.
        wilcoxon_p: Wilcoxon signed-rank test.
        t_p: paired t-test.
        n: number of users.
    """

    difference: float
    interval: Interval
    p: float
    effect_size: float
    wilcoxon_p: float
    t_p: float
    n: int


def compare(
    a: FloatArray,
    b: FloatArray,
    *,
    same_templates: bool = True,
    draws: int = 10_000,
    resamples: int = 10_000,
    rng: np.random.Generator,
    level: float = 0.95,
) -> Comparison:
    """Compare two methods on the same users; pass drops instead of metrics to compare drops.

    Args:
        a: shape ``[users]``, ``[users, templates]`` or ``[users, templates, seeds]``.
        b: the same users and seeds in the same order, and as many templates.
        same_templates: whether those of a and b are the same in the same order. Templates of their own have no order
            that means anything, and are resampled each for itself.
        draws: sign flips of the permutation test.
        resamples: resamples of the bootstrap.
        rng: source of randomness.
        level: confidence level of the interval.

    Raises:
        ValueError: if the shapes differ, there is no user, or a difference is not finite.

    >>> compare(np.array([0.5, 0.6]), np.array([0.4, 0.5]), draws=99, rng=np.random.default_rng(0)).n
    2
    """
    if a.shape != b.shape:
        raise ValueError(f"paired values must have the same shape, got {a.shape} and {b.shape}")
    values = a - b
    _refuse_undefined(values)
    difference = values.reshape(len(values), -1).mean(axis=1)
    groups: tuple[int, ...] = ()
    if not same_templates:
        values, groups = 2 * np.concatenate([a, -b], axis=1), (a.shape[1], b.shape[1])
    return Comparison(
        difference=float(difference.mean()),
        interval=bootstrap_interval(values, groups=groups, draws=resamples, rng=rng, level=level),
        p=paired_permutation_p(difference, draws=draws, rng=rng),
        effect_size=effect_size(difference),
        wilcoxon_p=wilcoxon_p(difference),
        t_p=t_p(difference),
        n=len(difference),
    )


def rank_correlation(first: Iterable[float], second: Iterable[float]) -> float:
    """Spearman's rank correlation of two samples of shape ``[n]``, to twelve decimals; NaN where one is constant.

    >>> rank_correlation([1.0, 2.0, 3.0], [10.0, 20.0, 25.0])
    1.0
    """
    from scipy.stats import spearmanr

    with warnings.catch_warnings(action="ignore"):  # of constant samples
        return round(float(spearmanr(list(first), list(second)).statistic), 12)
