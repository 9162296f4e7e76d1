"""Chance level: a random order that depends on user and item alone."""

from dataclasses import dataclass

import numpy as np

from data.random import generator
from data.types import FloatArray
from methods.base import FitReport, MethodInfo, Requests, Task


@dataclass
class RandomOrder:
    """Scores drawn once per (seed, user, item): the same under every condition."""

    info = MethodInfo(name="random", paper="chance level", cost=0.1)

    def fit(self, task: Task, seed: int) -> FitReport:
        """Remember the seed."""
        self._seed, self._n_items = seed, task.catalogue.n_items
        return FitReport()

    def score(self, requests: Requests) -> FloatArray:
        """Uniform scores, shape ``[rows, candidates]``."""
        ids = (requests.catalogue.user_ids[user] for user in requests.users.tolist())
        drawn = [generator(self._seed, "random", user_id).random(self._n_items) for user_id in ids]
        return np.take_along_axis(np.stack(drawn), requests.candidates, axis=1)
