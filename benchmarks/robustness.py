"""What happens to a metric when the prompt changes: level, spread, decay, and the lists themselves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.significance import Interval, resampled_counts, resamples
from data.types import BoolArray, FloatArray, IntArray

TIE = 1e-12  # means closer than this differ by float rounding alone
ROUNDING = 1e-6  # scores of one prompt in other batches differ by less, as a share of the largest (float32)
FAR = 1e3  # times the median score: what is beyond was set, not computed
PAIRWISE = 300  # candidates up to which comparing all pairs takes less time than SciPy's sorting


def performance_drop_rate(clean: npt.ArrayLike, perturbed: npt.ArrayLike) -> FloatArray:
    """Share of the clean performance that is lost: ``1 - perturbed / clean``.

    Args:
        clean: metric under the clean prompt, any shape.
        perturbed: metric under the perturbed prompt, a shape that broadcasts with ``clean``.

    Returns:
        Rates of the broadcast shape, negative where the perturbation helps; NaN where ``clean`` is 0.

    Source: PromptBench (Zhu et al., 2023, arXiv 2306.04528), there over a whole data set.

    >>> performance_drop_rate([0.5, 0.0], [0.4, 0.1]).round(3).tolist()
    [0.2, nan]
    """
    whole = np.asarray(clean, np.float64)
    return 1 - np.asarray(perturbed, np.float64) / np.where(whole == 0, np.nan, whole)


def drop_interval(
    clean: FloatArray, perturbed: FloatArray, *, draws: int = 10_000, rng: np.random.Generator, level: float = 0.95
) -> Interval:
    """Percentile interval of the drop rate of the means, users, templates and seeds resampled for both at once.

    Args:
        clean: metric under the clean prompt, shape ``[users, seeds]``; not 0 for all.
        perturbed: the same under every template, shape ``[users, templates, seeds]``.
        draws: number of resamples; those without any clean performance have no rate and do not count.
        rng: source of randomness.
        level: share of resampled rates inside the interval.

    Source: as :func:`benchmarks.significance.bootstrap_interval`.

    >>> halved = np.tile([[0.2], [0.4]], (1, 3))[:, :, None] / 2
    >>> low, high = drop_interval(2 * halved[:, 0], halved, draws=99, rng=np.random.default_rng(0))
    >>> (round(low, 6), round(high, 6))
    (0.5, 0.5)
    """
    templates = perturbed.shape[1]
    both = np.concatenate([clean[:, None], perturbed], axis=1)
    rates = [
        performance_drop_rate(
            np.einsum("bs,bs->b", by_user[:, 0], by_seed),
            np.einsum("bts,bt,bs->b", by_user[:, 1:], by_template, by_seed) / templates,
        )
        for by_user, by_template, by_seed in resamples(both, (templates,), draws, rng)
    ]
    low, high = np.nanquantile(np.concatenate(rates), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


@dataclass(frozen=True, slots=True)
class Summary:
    """One metric over the templates of a condition.

    Args:
        mean: average template.
        worst: lowest template.
        lower_decile: tenth percentile, linearly interpolated.
        standard_deviation: sample standard deviation (n - 1); NaN for one template.
    """

    mean: float
    worst: float
    lower_decile: float
    standard_deviation: float


def summary(values: FloatArray) -> Summary:
    """Level and spread of a metric over templates.

    Args:
        values: metric per template, higher is better, shape ``[templates]``.

    Raises:
        ValueError: if there is no template.

    >>> summary(np.array([0.2, 0.3, 0.4])).worst
    0.2
    """
    if values.size == 0:
        raise ValueError("a summary over templates needs at least one template")
    worst = float(values.min())
    above = values - worst  # rounding must not make equal templates differ from their mean
    return Summary(
        mean=worst + float(above.mean()),
        worst=worst,
        lower_decile=float(np.quantile(values, 0.1)),
        standard_deviation=float(above.std(ddof=1)) if values.size > 1 else float("nan"),
    )


def saturation(values: FloatArray) -> float:
    """How close the average template comes to the best one: ``Sat = 1 - (max - mean)``.

    Args:
        values: metric per template in [0, 1], shape ``[templates]``.

    Source: Mizrahi et al., 2024 (arXiv 2401.00595).

    >>> saturation(np.array([0.5, 0.7]))
    0.9
    """
    return float(1 - (values.max() - values.mean()))


def combined_performance_score(values: FloatArray) -> float:
    """Best template, discounted by how far the average falls behind it: ``CPS = Sat * max``.

    Args:
        values: metric per template in [0, 1], shape ``[templates]``.

    Source: Mizrahi et al., 2024 (arXiv 2401.00595).

    >>> round(combined_performance_score(np.array([0.5, 0.7])), 3)
    0.63
    """
    return saturation(values) * float(values.max())


def severity_area(severity: FloatArray, values: FloatArray) -> float:
    """Area under the severity curve by trapezoids, divided by the severity range: the average height.

    Args:
        severity: grades in increasing order, the first 0 (the clean prompt), shape ``[grades]``.
        values: metric at each grade, shape ``[grades]``.

    Returns:
        v for a curve that is flat at v.

    Raises:
        ValueError: if the grades do not start at 0, do not increase, or are fewer than two.

    >>> severity_area(np.array([0.0, 0.1, 0.3]), np.array([0.6, 0.6, 0.3])).__round__(3)
    0.5
    """
    widths = np.diff(severity)
    if severity.size < 2 or severity[0] != 0 or (widths <= 0).any():
        raise ValueError(f"severities must start at 0 (clean) and increase, got {severity.tolist()}")
    return float(((values[1:] + values[:-1]) / 2) @ widths / severity[-1])


def scores_moved(clean: npt.NDArray[np.floating], scores: npt.NDArray[np.floating]) -> BoolArray:
    """Users any of whose scores a condition changed by more than float32 rounding.

    Scores far beyond all others, such as -1e9 for items that a method rules out, do not set the scale.

    Args:
        clean: one score per candidate, shape ``[users, candidates]``; minus infinity for items that do not compete.
        scores: the same for the other condition.

    Returns:
        True where it did, shape ``[users]``.

    >>> scores_moved(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 2.0 + 1e-7], [3.0, 5.0]])).tolist()
    [False, True]
    """
    sizes = np.abs(clean[np.isfinite(clean) & (clean != 0)]).astype(np.float64)
    largest = sizes[sizes <= FAR * np.median(sizes)].max() if sizes.size else 0.0
    moved = ~np.isclose(clean, scores, rtol=ROUNDING, atol=ROUNDING * largest)
    return np.asarray(moved.any(axis=1))


def top_k(scores: npt.NDArray[np.floating], k: int) -> IntArray:
    """The ``k`` best columns of every row, best first; equal scores in column order.

    Sampled candidates are shuffled per user, so this tie rule favours nobody; in full ranking they stand as in the
    catalogue. It is the same for every condition.

    Args:
        scores: one score per candidate, higher is better, shape ``[users, candidates]``.
        k: columns to keep, at least 1.

    Returns:
        Column indices, shape ``[users, min(k, candidates)]``.

    >>> top_k(np.array([[0.1, 0.9, 0.9, 0.4]]), k=3).tolist()
    [[1, 2, 3]]
    """
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def _overlaps(a: IntArray, b: IntArray, k: int) -> IntArray:
    """Number of items two lists share within their first d places, d = 1..k, shape ``[users, k]``."""
    same: BoolArray = a[:, :k, None] == b[:, None, :k]
    return same.cumsum(axis=1).cumsum(axis=2).diagonal(axis1=1, axis2=2)


def rank_biased_overlap(a: IntArray, b: IntArray, k: int = 10, p: float = 0.9) -> FloatArray:
    """Overlap of two lists averaged over depths, the top weighing most.

    ``(1 - p) / (1 - p^k) * sum over d <= k of p^(d-1) * |A_d n B_d| / d``, where A_d holds the first d
    items of ``a``. The factor makes the weights sum to 1, so that identical lists give 1 at any ``k``.

    Args:
        a: items, best first and each once, shape ``[users, candidates]``.
        b: the same for the other condition.
        k: depth of the comparison; lists shorter than that are compared in full.
        p: weight of each depth relative to the one above it, in (0, 1).

    Returns:
        Values in [0, 1], shape ``[users]``.

    Source: Webber, Moffat and Zobel, 2010; the truncation at ``k`` and its factor are our own choice.

    >>> rank_biased_overlap(np.array([[1, 2, 3]]), np.array([[2, 1, 3]]), k=2, p=0.5).round(4).tolist()
    [0.3333]
    """
    overlaps = _overlaps(a, b, k)
    depths = np.arange(1, overlaps.shape[1] + 1)
    return np.asarray(np.average(overlaps / depths, axis=1, weights=p ** (depths - 1)))


def jaccard_at(a: IntArray, b: IntArray, k: int = 10) -> FloatArray:
    """Items in both top-k lists as a share of the items in either.

    Args:
        a: items, best first and each once, shape ``[users, candidates]``.
        b: the same for the other condition.
        k: depth of the comparison; lists shorter than that are compared in full.

    Returns:
        Values in [0, 1], shape ``[users]``.

    >>> jaccard_at(np.array([[1, 2, 3]]), np.array([[3, 4, 1]]), k=3).tolist()
    [0.5]
    """
    overlaps = _overlaps(a, b, k)
    shared = overlaps[:, -1]
    either: IntArray = 2 * overlaps.shape[1] - shared
    return shared / either


def kendall_tau(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> FloatArray:
    """Kendall's tau-b of each user's scores under two conditions, ties accounted for.

    Args:
        a: one score per candidate, shape ``[users, candidates]``; minus infinity for items that do not compete.
        b: the same for the other condition.

    Returns:
        Values in [-1, 1], shape ``[users]``; NaN where either side scores all candidates alike.

    >>> kendall_tau(np.array([[1.0, 2.0, 3.0]]), np.array([[3.0, 2.0, 1.0]])).tolist()
    [-1.0]
    """
    taus = []
    for first, second in zip(a.astype(np.float64), b.astype(np.float64), strict=True):
        competing = np.isfinite(first) & np.isfinite(second)
        taus.append(_tau_b(first[competing], second[competing]))
    return np.array(taus, np.float64)


def _tau_b(a: FloatArray, b: FloatArray) -> float:
    """Kendall's tau-b of one user's scores; of short lists in a fifth of SciPy's time, with the same bits."""
    if len(a) > PAIRWISE:
        from scipy.stats import kendalltau

        return float(kendalltau(a, b).statistic)
    first, second = a[:, None] > a, b[:, None] > b
    untied = [np.count_nonzero(first), np.count_nonzero(second)]
    if 0 in untied:
        return float("nan")
    concordant, discordant = np.count_nonzero(first & second), np.count_nonzero(first & second.T)
    tau = (concordant - discordant) / np.sqrt(untied[0]) / np.sqrt(untied[1])
    return float(np.clip(tau, -1, 1))


def probability_first(
    values: FloatArray, roles: Sequence[str], *, draws: int = 10_000, rng: np.random.Generator
) -> FloatArray:
    """How often each method has the highest mean when templates are resampled with replacement.

    Args:
        values: metric per method and template, shape ``[methods, templates]``.
        roles: whose templates each method is shown; those of a role are drawn once for all its methods.
        draws: number of resamples.
        rng: source of randomness.

    Returns:
        Shares that sum to 1, shape ``[methods]``; methods that tie for the first place split it.

    >>> values = np.array([[0.9, 0.8], [0.1, 0.2]])
    >>> probability_first(values, ["recommend", "recommend"], draws=100, rng=np.random.default_rng(0)).tolist()
    [1.0, 0.0]
    """
    templates = values.shape[1]
    drawn = {role: resampled_counts(templates, draws, rng) for role in dict.fromkeys(roles)}
    means = np.stack([drawn[role] @ own for role, own in zip(roles, values, strict=True)], axis=1) / templates
    first = means >= means.max(axis=1, keepdims=True) - TIE
    return np.asarray((first / first.sum(axis=1, keepdims=True)).mean(axis=0))
