"""What demonstrations are chosen by, as a ranking of its own."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from data.types import FloatArray
from methods.base import FitReport, MethodInfo, Requests, Task
from methods.checks import check_least
from methods.lrgd.demonstrations import Neighbours, PoolSize


@dataclass
class NoModel:
    """The evidence of similar users' histories for every candidate: no demonstrations, no language model, no training.

    What a language model makes of demonstrations has to be measured against what their choice knows already.

    Args:
        shown: history items of a stretch.
    """

    shown: int = PoolSize.shown

    info = MethodInfo(name="lrgd/no-model", paper="the neighbours that LRGD shows, by our own formula", cost=1.0)
    tuned_as: ClassVar[str] = info.name

    def __post_init__(self) -> None:
        check_least(self, {"shown": 1})

    def fit(self, task: Task, seed: int) -> FitReport:
        """Count the training interactions."""
        self._neighbours = Neighbours(task.train, task.catalogue.n_items)
        return FitReport(epochs=1, interactions=len(task.train.items))

    def score(self, requests: Requests) -> FloatArray:
        """Evidence for the candidates, shape ``[rows, candidates]``."""
        users, histories = requests.users.tolist(), requests.histories
        found = (self._neighbours.evidence(user, histories[row], self.shown) for row, user in enumerate(users))
        support = np.stack([self._neighbours.support(evidence) for evidence in found])
        return np.take_along_axis(support, requests.candidates, axis=1)
