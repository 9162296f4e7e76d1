"""Ranks on validation lists, by which methods choose; test lists are ranked by the harness."""

import numpy as np

from data.types import FloatArray, IntArray


def mid_rank(scores: FloatArray, positive: IntArray | int = 0) -> FloatArray:
    """0-based rank of the positive of each list; ties share their mid-rank.

    Args:
        scores: one score per candidate, shape ``[lists, candidates]``.
        positive: column of the positive, one number or shape ``[lists]``.

    >>> mid_rank(np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 2.0]])).tolist()
    [0.0, 1.5]
    """
    own = np.take_along_axis(scores, np.broadcast_to(positive, len(scores))[:, None], axis=1)
    rank: FloatArray = (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
    return rank


def ndcg(rank: FloatArray, k: int = 10) -> FloatArray:
    """NDCG@k of lists with one positive; as in the suite, a tie for place ``k`` is no hit.

    >>> ndcg(np.array([0.0, 2.0, 9.5])).tolist()
    [1.0, 0.5, 0.0]
    """
    return np.where(rank <= k - 1, 1 / np.log2(rank + 2), 0.0)
