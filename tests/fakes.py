"""Methods for testing the harness, named on the command line as ``tests.fakes:Name``."""

import hashlib
import time
from dataclasses import dataclass

import numpy as np

from data.types import FloatArray
from methods.base import FitReport, MethodInfo, NotRunnable, Requests, Task


def _hashed(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


@dataclass
class Prompted:
    """Scores by a hash of the whole prompt: deterministic, and changed by any change of the prompt."""

    seconds: float = 0.0
    info = MethodInfo("prompted", "a hash of the prompt", roles=frozenset({"recommend"}))

    def fit(self, task: Task, seed: int) -> FitReport:
        time.sleep(self.seconds)
        return FitReport(epochs=1, converged=True, interactions=len(task.train.items))

    def score(self, requests: Requests) -> FloatArray:
        return np.array([[self._score(requests, row, item) for item in items] for row, items in self._rows(requests)])

    def _rows(self, requests: Requests):
        return enumerate(requests.candidates.tolist())

    def _score(self, requests: Requests, row: int, item: int) -> float:
        return _hashed(requests.prompt("recommend", row).with_value("target", requests.catalogue.titles[item]).text)


class Cheater(Prompted):
    """Says that it has no prompt and looks at wording all the same."""

    info = MethodInfo("cheater", "none", roles=frozenset())
    calls = 0

    def score(self, requests: Requests) -> FloatArray:
        Cheater.calls += 1
        return np.random.default_rng(Cheater.calls).random(requests.candidates.shape)


class Missing(Prompted):
    """Needs what is not there."""

    info = MethodInfo("missing", "none", needs=frozenset({"network"}))

    def fit(self, task: Task, seed: int) -> FitReport:
        raise NotRunnable("no endpoint; set OPENAI_BASE_URL")


class Broken(Prompted):
    """Raises an error of its own."""

    info = MethodInfo("broken", "none")

    def fit(self, task: Task, seed: int) -> FitReport:
        raise RuntimeError("the loss is not a number")


class Undefined(Prompted):
    """Returns a score that is not a number."""

    info = MethodInfo("undefined", "none")

    def score(self, requests: Requests) -> FloatArray:
        return np.full(requests.candidates.shape, np.nan)


class Suicidal(Prompted):
    """Dies as a process that ran out of memory does."""

    info = MethodInfo("suicidal", "none")

    def fit(self, task: Task, seed: int) -> FitReport:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError
