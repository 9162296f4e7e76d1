"""The metric that accepts triggers."""

from data.types import FloatArray, IntArray
from methods.ranks import mid_rank, ndcg

PERFECT = 2.0
"""Surrogate of a list whose positive is first: nobody who has it can improve."""


def surrogate(scores: FloatArray, positive: IntArray | int = 0, k: int = 5) -> FloatArray:
    """NDCG@k + Hit@k of each list with one right candidate, in [0, 2]; ties share their mid-rank.

    Args:
        scores: one score per candidate, shape ``[lists, candidates]``.
        positive: column of the right one, one number or shape ``[lists]``.
        k: cut-off (5 in the paper).

    >>> import numpy as np
    >>> surrogate(np.array([[3.0, 1.0, 2.0], [1.0, 3.0, 2.0]]), k=2).tolist()
    [2.0, 0.0]
    """
    rank = mid_rank(scores, positive)
    return (rank <= k - 1) + ndcg(rank, k)
