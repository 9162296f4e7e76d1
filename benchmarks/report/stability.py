"""How much a method's lists change with the wording."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks import robustness
from benchmarks.report.results import Results, scores_of
from data.types import FloatArray, IntArray

STABILITY: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "rbo": lambda a, b: robustness.rank_biased_overlap(robustness.top_k(a, 10), robustness.top_k(b, 10)),
    "jaccard": lambda a, b: robustness.jaccard_at(robustness.top_k(a, 10), robustness.top_k(b, 10)),
    "kendall": robustness.kendall_tau,
    "reached": lambda a, b: robustness.scores_moved(a, b).astype(np.float64),
}


def list_stability(
    results: Results, method: str, conditions: IntArray, measures: Sequence[str] = ("rbo",)
) -> dict[str, float]:
    """Mean agreement of each user's list under some conditions with their clean list; NaN without scores.

    ``reached`` is no agreement but the share of users any of whose scores changed.

    Args:
        results: of a run.
        method: whose lists.
        conditions: indices of the conditions.
        measures: keys of :data:`STABILITY`.
    """
    # A cell's key says what its scores depend on: what was computed for it once holds as long as the process lives.
    seeds = zip(results.seeds, results.records[method], strict=True)
    cells = [(results.cell(method, seed), record["key"]) for seed, record in seeds]
    found = {
        measure: [_agreement(*cell, condition, measure) for cell in cells for condition in conditions.tolist()]
        for measure in measures
    }
    return {key: float(np.mean(values)) if values else float("nan") for key, values in found.items()}


@cache
def _agreement(cell: Path, key: str, condition: int, measure: str) -> float:
    clean, scores = scores_of(cell, 0), scores_of(cell, condition)
    if clean is None or scores is None:
        return float("nan")
    if condition and np.array_equal(clean, scores):  # computed once for all conditions that change nothing
        return _agreement(cell, key, 0, measure)
    return float(np.nanmean(STABILITY[measure](clean, scores)))
