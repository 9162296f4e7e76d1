"""The most often chosen first."""

from dataclasses import dataclass

import numpy as np

from data.types import FloatArray
from methods.base import FitReport, MethodInfo, Requests, Task


@dataclass
class Popularity:
    """Training interactions per item; of equally popular items the one with the lower index comes first."""

    info = MethodInfo(name="popularity", paper="number of training interactions", cost=0.1)

    def fit(self, task: Task, seed: int) -> FitReport:
        """Count the training interactions of every item."""
        counts = np.bincount(task.train.items, minlength=task.catalogue.n_items)
        self._score = counts - np.arange(len(counts)) / len(counts)
        return FitReport(epochs=1, interactions=len(task.train.items))

    def score(self, requests: Requests) -> FloatArray:
        """Counts of the candidates, shape ``[rows, candidates]``."""
        return self._score[requests.candidates]
