"""Ranking metrics per user, for one positive among the candidates of that user.

Everything follows from the 0-based rank of the positive. Ties share their mid-rank: the auc of a method that scores
all candidates alike is 0.5, as of a coin, and it hits nothing among the first few, where a coin hits by chance.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from data.types import BoolArray, FloatArray, IntArray

Count = int | IntArray
Metric = Callable[[FloatArray, Count], FloatArray]


def rank_of_positive(scores: npt.NDArray[np.floating], positive: IntArray, mask: BoolArray | None = None) -> FloatArray:
    """0-based mid-rank of the positive: candidates scored higher, plus half of those scored the same.

    Args:
        scores: one score per candidate, higher is better, shape ``[users, candidates]``.
        positive: column of the positive, shape ``[users]``.
        mask: False where a candidate does not compete; None where all do, shape ``[users, candidates]``.

    Returns:
        Ranks in [0, candidates - 1], whole or half, shape ``[users]``.

    Raises:
        ValueError: if a competing score is not finite, or a positive is not among the competing columns.

    >>> rank_of_positive(np.array([[0.1, 0.9, 0.5], [0.7, 0.7, 0.2]]), np.array([2, 0])).tolist()
    [1.0, 0.5]
    """
    competing = np.ones(scores.shape, np.bool_) if mask is None else mask
    _refuse_unrankable(scores, positive, competing)
    own = np.take_along_axis(scores, positive[:, None], axis=1)
    higher = ((scores > own) & competing).sum(axis=1)
    return np.asarray(higher + tied_with_positive(scores, positive, mask) / 2, np.float64)


def tied_with_positive(scores: npt.NDArray[np.floating], positive: IntArray, mask: BoolArray | None = None) -> IntArray:
    """Other candidates scored the same as the positive: its rank lies half as many above and below the mid-rank.

    Args:
        scores: as in :func:`rank_of_positive`.
        positive: as there.
        mask: as there.

    >>> tied_with_positive(np.array([[0.1, 0.9, 0.5], [0.7, 0.7, 0.2]]), np.array([2, 0])).tolist()
    [0, 1]
    """
    own = np.take_along_axis(scores, positive[:, None], axis=1)
    same = scores == own if mask is None else (scores == own) & mask
    return np.asarray(same.sum(axis=1) - 1, np.int64)


def _refuse_unrankable(scores: npt.NDArray[np.floating], positive: IntArray, competing: BoolArray) -> None:
    """Raise a ValueError that names the first row whose positive cannot be ranked."""
    users, candidates = scores.shape
    outside = (positive < 0) | (positive >= candidates)
    absent = outside | ~competing[np.arange(users), np.where(outside, 0, positive)]
    if absent.any():
        row = int(absent.argmax())
        raise ValueError(f"row {row}: the positive (column {positive[row]}) is not among the competing candidates")
    broken = (~np.isfinite(scores) & competing).any(axis=1)
    if broken.any():
        row = int(broken.argmax())
        column = int((~np.isfinite(scores[row]) & competing[row]).argmax())
        raise ValueError(f"row {row}: the score in column {column} is {scores[row, column]}; scores must be finite")


def auc(rank: FloatArray, n_candidates: Count) -> FloatArray:
    """Area under the ROC curve: the share of negatives ranked below the positive, ties counting half.

    Args:
        rank: 0-based mid-rank of the positive, shape ``[users]``.
        n_candidates: competing candidates including the positive, one number or shape ``[users]``.

    Returns:
        Values in [0, 1], shape ``[users]``; NaN for a list without negatives.

    Source: Hanley and McNeil, 1982 (the Wilcoxon statistic), for one positive.

    >>> auc(np.array([0.0, 49.5, 99.0]), 100).tolist()
    [1.0, 0.5, 0.0]
    """
    with np.errstate(invalid="ignore"):
        return 1 - rank / np.asarray(n_candidates - 1, np.float64)


def hit(rank: FloatArray, k: int) -> FloatArray:
    """Whether the positive is among the first ``k``: 1 where ``rank <= k - 1``, else 0.

    A positive that shares places k and k + 1 with another candidate has rank k - 0.5 and is a miss. With
    ``rank < k`` it would be a hit of gain below 1, and ndcg@1 would no longer equal hit@1.

    Args:
        rank: 0-based mid-rank of the positive, shape ``[users]``.
        k: cut-off, at least 1.

    Returns:
        0 or 1, shape ``[users]``.

    >>> hit(np.array([0.0, 0.5, 4.0]), k=1).tolist()
    [1.0, 0.0, 0.0]
    """
    return (rank <= k - 1).astype(np.float64)


def ndcg(rank: FloatArray, k: int) -> FloatArray:
    """Normalised discounted cumulative gain at ``k``: ``1 / log2(rank + 2)`` for a hit, else 0.

    Args:
        rank: 0-based mid-rank of the positive, shape ``[users]``.
        k: cut-off, at least 1.

    Returns:
        Values in [0, 1], shape ``[users]``; never above :func:`hit`.

    Source: Järvelin and Kekäläinen, 2002, with binary gain; the ideal gain of one positive is 1.

    >>> ndcg(np.array([0.0, 2.0, 9.0]), k=5).tolist()
    [1.0, 0.5, 0.0]
    """
    return hit(rank, k) / np.log2(rank + 2)


def mrr(rank: FloatArray) -> FloatArray:
    """Reciprocal of the 1-based rank, without a cut-off.

    Args:
        rank: 0-based mid-rank of the positive, shape ``[users]``.

    Returns:
        Values in (0, 1], shape ``[users]``.

    Source: Voorhees, 1999 (TREC-8 question answering track).

    >>> mrr(np.array([0.0, 1.0, 3.0])).tolist()
    [1.0, 0.5, 0.25]
    """
    return 1 / (rank + 1)


def _at(metric: Callable[[FloatArray, int], FloatArray], k: int) -> Metric:
    """``metric`` with its cut-off fixed, in the signature of :data:`METRICS`."""
    return lambda rank, n_candidates: metric(rank, k)


CUTOFFS: Final = (1, 5, 10)

METRICS: Final[Mapping[str, Metric]] = {
    "auc": auc,
    **{f"hit@{k}": _at(hit, k) for k in CUTOFFS},
    **{f"ndcg@{k}": _at(ndcg, k) for k in CUTOFFS},
    "mrr": lambda rank, n_candidates: mrr(rank),
}


def evaluate(rank: FloatArray, n_candidates: Count) -> dict[str, FloatArray]:
    """All of :data:`METRICS`, in their order.

    Args:
        rank: 0-based mid-rank of the positive, shape ``[users]``.
        n_candidates: competing candidates including the positive, one number or shape ``[users]``.

    Returns:
        Metric key to values, each of shape ``[users]``.

    >>> {key: float(values[0]) for key, values in evaluate(np.array([2.0]), 101).items()}["ndcg@5"]
    0.5
    """
    return {key: metric(rank, n_candidates) for key, metric in METRICS.items()}


def check_sanity(means: Mapping[str, float], users: int, tolerance: float = 1e-9) -> list[str]:
    """Which rules of arithmetic a row of mean metrics breaks, given one positive per list.

    ``ndcg@k <= hit@k``, ``ndcg@1 = hit@1``, ``mrr >= hit@1``, and every ``hit@k`` a multiple of 1/users.

    Args:
        means: metric key to mean over users; rules about absent keys are passed over.
        users: number of users averaged over.
        tolerance: largest rounding error of a value: 5e-5 for a table printed with four decimals.

    Returns:
        One sentence per broken rule; empty if all hold.

    >>> check_sanity({"hit@5": 0.4258, "ndcg@5": 0.4385}, users=10_000, tolerance=5e-5)
    ['ndcg@5 = 0.4385 exceeds hit@5 = 0.4258']
    """
    return [sentence for holds, sentence in _rules(means, users, tolerance) if not holds]


def _rules(means: Mapping[str, float], users: int, tolerance: float) -> Iterator[tuple[bool, str]]:
    """Every rule that applies: whether it holds (never for NaN), and what to say if it does not."""
    for key, value in means.items():
        metric, _, k = key.partition("@")
        bound = means.get(f"hit@{k}")
        if metric == "hit":
            nearest = np.round(value * users) / users
            yield abs(value - nearest) <= tolerance, f"{key} = {value:.6g} is not a multiple of 1/{users}"
        if metric == "ndcg" and bound is not None:
            yield value <= bound + tolerance, f"{key} = {value:.6g} exceeds hit@{k} = {bound:.6g}"
    first = means.get("hit@1")
    if first is not None and "ndcg@1" in means:
        equal = abs(means["ndcg@1"] - first) <= tolerance
        yield equal, f"ndcg@1 = {means['ndcg@1']:.6g} differs from hit@1 = {first:.6g}"
    if first is not None and "mrr" in means:
        yield means["mrr"] >= first - tolerance, f"mrr = {means['mrr']:.6g} is below hit@1 = {first:.6g}"
