from pathlib import Path

import numpy as np
import pytest

from benchmarks.protocol import Protocol, prepare
from data.prompts import library
from methods.base import Compute
from methods.llmrec.method import LlmRec


@pytest.mark.slow
def test_quality_on_ml100k_is_that_of_the_pilot(tmp_path: Path) -> None:
    problem = prepare("ml-100k", Protocol(), {"augment": library.templates("augment")})
    for strategy, least in (("original", 0.28), ("eng", 0.28)):
        method = LlmRec(strategy)
        report = method.fit(problem.task(Compute(cache=tmp_path)), seed=0)
        scores = method.score(problem.test_requests())
        target = np.take_along_axis(scores, problem.test.positive[:, None], axis=1)
        rank = (scores > target).sum(axis=1)
        assert np.where(rank < 10, 1 / np.log2(rank + 2), 0.0).mean() > least
        assert report.converged
