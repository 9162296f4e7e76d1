"""Personalised PageRank between the items of a user-item graph, and each item's important neighbours.

Source: Lyu et al., "LLM-Rec: Personalized recommendation via prompting large language models", 2023,
section 2.3; Haveliwala, "Topic-sensitive PageRank", 2002.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from data.histories import Histories
from data.types import FloatArray, IntArray

NeighbourScore = Literal["ppr/degree", "ppr"]

DENSE_ITEMS = 6000
"""Up to so many items one Cholesky factor (items x items, float64) serves all restarts."""

BLOCK = 512
"""Items whose restarts are solved together where there are more."""


def item_pagerank(train: Histories, n_items: int, restart: float = 0.15) -> Iterator[tuple[IntArray, FloatArray]]:
    """Personalised PageRank of all items, for restarts at every item, in blocks.

    The walk steps along a uniformly drawn edge of the unweighted bipartite graph and restarts with
    probability ``restart``. Items are reached in an even number of steps only, so that with
    ``M = D_i^-1/2 B^T D_u^-1 B D_i^-1/2`` (B: users x items, D: degrees) the values of the items are
    ``restart * D_i^1/2 (I - (1 - restart)^2 M)^-1 D_i^-1/2``: one symmetric system with eigenvalues in
    [1 - (1 - restart)^2, 1], solved exactly, or by conjugate gradients in a few steps.

    Args:
        train: items of every user.
        n_items: number of items.
        restart: probability of a restart, in (0, 1].

    Yields:
        Restart items, shape ``[block]``, and the values of all items, shape ``[block, n_items]``. What is
        missing to 1 in a row is the share of the users; an item without users has all of it itself.
    """
    half, degree = _half_step(train, n_items)
    root = np.sqrt(np.maximum(degree, 1))
    continued = (1 - restart) ** 2
    factor = _cholesky(half, continued) if n_items <= DENSE_ITEMS else None
    for start in range(0, n_items, BLOCK):
        items = np.arange(start, min(start + BLOCK, n_items))
        source = np.zeros((n_items, len(items)))
        source[items, np.arange(len(items))] = 1 / root[items]
        solved = _conjugate_gradients(half, continued, source) if factor is None else _back_substitute(factor, source)
        values = restart * (root[:, None] * solved).T
        values[np.arange(len(items))[degree[items] == 0], items[degree[items] == 0]] = 1.0
        yield items, values


def important_neighbours(
    train: Histories,
    n_items: int,
    count: int = 3,
    restart: float = 0.15,
    score: NeighbourScore = "ppr/degree",
    exponent: float = 0.75,
) -> list[IntArray]:
    """The most important neighbours of every item, most important first.

    Args:
        train: items of every user.
        n_items: number of items.
        count: neighbours per item at most; fewer where fewer are reachable.
        restart: probability of a restart.
        score: ``ppr`` as in the paper, or ``ppr/degree``, which divides by ``degree ** exponent`` so that
            popular items are not everybody's neighbour (own choice).
        exponent: power of the degree.

    Returns:
        One array of item indices per item. Of equal scores the lower index comes first.
    """
    degree = np.bincount(train.items, minlength=n_items)
    weight = np.maximum(degree, 1.0) ** -exponent if score == "ppr/degree" else np.ones(n_items)
    chosen: list[IntArray] = []
    for items, values in item_pagerank(train, n_items, restart):
        scores = values * weight
        scores[np.arange(len(items)), items] = 0.0
        chosen += [_top(row, count) for row in scores]
    return chosen


def _top(scores: FloatArray, count: int) -> IntArray:
    """Positions of the largest positive scores; scores that differ by rounding alone are ties."""
    least = np.partition(scores, -count)[-count] if len(scores) > count else 0.0
    near = np.flatnonzero((scores >= least * (1 - 1e-9)) & (scores > 1e-15))
    order = np.lexsort((near, -np.round(scores[near] / max(scores.max(), 1e-300), 11)))
    return near[order][:count]


def _half_step(train: Histories, n_items: int) -> tuple[Any, IntArray]:
    """``D_u^-1/2 B D_i^-1/2`` (sparse, users x items), whose Gram matrix is M, and the items' degrees."""
    from scipy import sparse

    edges = np.unique(train.rows() * n_items + train.items)
    users, items = edges // n_items, edges % n_items
    user_degree, degree = np.bincount(users, minlength=len(train)), np.bincount(items, minlength=n_items)
    weights = 1 / np.sqrt(user_degree[users] * degree[items])
    return sparse.csr_array((weights, (users, items)), shape=(len(train), n_items)), degree


def _cholesky(half: Any, continued: float) -> Any:
    from scipy import linalg

    system = (half.T @ half).toarray() * -continued
    system[np.diag_indices_from(system)] += 1.0
    return linalg.cho_factor(system, lower=True, overwrite_a=True, check_finite=False)


def _back_substitute(factor: Any, source: FloatArray) -> FloatArray:
    from scipy import linalg

    solved: FloatArray = linalg.cho_solve(factor, source, check_finite=False)
    return solved


def _conjugate_gradients(half: Any, continued: float, source: FloatArray, tolerance: float = 1e-12) -> FloatArray:
    """Solve ``(I - continued * half^T half) x = source`` for all columns at once."""
    transposed = half.T.tocsr()
    solved, residual = np.zeros_like(source), source.copy()
    direction = residual.copy()
    norm = (residual**2).sum(axis=0)
    stop = tolerance**2 * norm
    while (norm > stop).any():
        image = direction - continued * (transposed @ (half @ direction))
        length = norm / np.maximum((direction * image).sum(axis=0), 1e-300)
        solved += length * direction
        residual -= length * image
        previous, norm = norm, (residual**2).sum(axis=0)
        direction = residual + norm / np.maximum(previous, 1e-300) * direction
    return solved
