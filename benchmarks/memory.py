"""How much memory scoring holds on to: ``python -m benchmarks.memory USERS [USERS ...]``.

Scoring streams, so that the peak does not grow with the number of users. Every number of users is measured in a
process of its own.
"""

import argparse
import math
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import provenance
from benchmarks.errors import positive, usage_errors
from data.histories import Histories
from data.random import generator
from data.types import FloatArray
from methods.base import FitReport, MethodInfo, Requests, Task

if TYPE_CHECKING:
    from methods.lm.scoring import Scorer


@dataclass
class Narrow:
    """A method with one narrow layer: what is measured of it is what scoring holds on to."""

    scorer: "Scorer"
    info = MethodInfo("narrow", "", frozenset({"recommend"}))

    def fit(self, task: Task, seed: int) -> FitReport:
        """Nothing to learn."""
        return FitReport()

    def score(self, requests: Requests) -> FloatArray:
        """Log-odds of the label words."""
        return self.scorer.label_odds(requests, "recommend")


def peak_memory(users: int) -> float:
    """Largest resident memory, in MiB, of a process that scores 100 candidates of so many users.

    The users of ml-100k come again and again, each time with another history.
    """
    from benchmarks.contract import score
    from benchmarks.random_models import llama
    from benchmarks.throughput import CASES, problem_requests, tokenizer_for
    from methods.lm.prompts import Encoder
    from methods.lm.scoring import Scorer

    requests = problem_requests()
    tokenizer = tokenizer_for(CASES[0], requests)
    model = llama(len(tokenizer), 16, 16, 1, 2, 2).eval()
    method = Narrow(Scorer(model, Encoder(tokenizer, 2048, local=True)))
    many, rng = requests.select(np.arange(users) % len(requests)), generator(0, "memory")
    histories = [rng.choice(requests.catalogue.n_items, len(shown), replace=False) for shown in many.histories]
    score(method, replace(many, histories=Histories.of(histories)))
    return provenance.peak_memory().get("host", math.nan)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("users", type=positive, nargs="+", help="users to score 100 candidates for")
    context = multiprocessing.get_context("spawn")
    for users in parser.parse_args(arguments).users:
        with usage_errors(parser), ProcessPoolExecutor(1, context) as fresh:
            print(f"{users} users: {fresh.submit(peak_memory, users).result():.0f} MiB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
