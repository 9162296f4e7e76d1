"""Vectors of users and items from the suite's own collaborative models, with their default settings."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from data.types import IntArray
from methods.base import FitReport, Task
from methods.recbole.adapter import RecBoleModel
from methods.recbole.models import BPR, LightGCN

if TYPE_CHECKING:
    from torch import Tensor

COLLABORATIVE: Mapping[str, tuple[type[RecBoleModel], Callable[[Any], tuple["Tensor", "Tensor"]]]] = {
    "bpr": (BPR, lambda model: (model.user_embedding.weight, model.item_embedding.weight)),
    "lightgcn": (LightGCN, lambda model: model()),
}
"""Row of the leaderboard -> its class, and how RecBole's model gives the vectors of all users and items."""


def collaborative_vectors(name: str, task: Task, seed: int) -> "tuple[Tensor, FitReport]":
    """Fit a collaborative model as its row is fitted where nothing is set or tuned, and take its vectors.

    A user or item without a training interaction has a random vector there; it gets the mean of the others here.

    Args:
        name: key of :data:`COLLABORATIVE`.
        task: what to learn from.
        seed: seed of the model.

    Returns:
        Vectors of all users, then of all items, of mean square 1 in either part, shape ``[users + items, size]``;
        and what fitting took.

    Raises:
        NotRunnable: if RecBole is missing, or there is nothing to learn or stop on.
    """
    import torch

    row, vectors_of = COLLABORATIVE[name]
    model = row()
    report = model.fit(task, seed)
    trained = model.trained
    with torch.no_grad():
        users, items = (part.detach().cpu() for part in vectors_of(trained.model))
    parts = (
        _scaled(users[trained.users], np.flatnonzero(task.train.lengths)),
        _scaled(items[trained.items], np.unique(task.train.items)),
    )
    return torch.cat(parts), report


def _scaled(vectors: "Tensor", known: IntArray) -> "Tensor":
    """Mean of the known vectors for the others; then all scaled to a mean square of 1 over the known ones."""
    import torch

    result = vectors[known].mean(dim=0).repeat(len(vectors), 1)
    result[known] = vectors[known]
    return result / result[known].square().mean().sqrt().clamp(min=torch.finfo(result.dtype).tiny)
