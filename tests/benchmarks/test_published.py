"""The arithmetic of one positive per list, applied to what a paper prints."""

import math
from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
import pytest

from benchmarks.metrics import check_sanity, hit, mrr, ndcg
from benchmarks.report.readme import published
from data.types import FloatArray

PAPER = published()
DERIVED = {(f["dataset"], f["row"], f["metric"]): f for f in PAPER["impossible"] if "missing" not in f}
QUOTED = {(f["dataset"], f["row"], f["metric"]): f for f in PAPER["impossible"] if "missing" in f}
ROUNDING = 5e-5
HIT_1 = PAPER["hit_1"]["Beauty"]["ganprompt"]
"""Printed with three decimals, so what follows from it holds to about 5e-4."""
LONG = 10**6
"""Candidates in lists so long that the last place counts for nothing: how many the paper has is not known."""


def attainable(
    gain: Callable[[FloatArray], FloatArray], hits: Mapping[int, float], n_candidates: int
) -> tuple[float, float]:
    """Least and largest mean of a gain that falls with the rank, given hits, for one positive per list and no ties.

    Between two cut-offs all positives lie as deep, or as high, as the hits allow: with hits at 1 and 5,
    ``ndcg@5 <= hit@1 + (hit@5 - hit@1) / log2(3)``.

    Args:
        gain: of 0-based ranks, such as :func:`mrr`.
        hits: cut-off to mean of ``hit`` there.
        n_candidates: candidates including the positive.

    >>> [round(bound, 4) for bound in attainable(mrr, {1: 0.25, 5: 0.5}, 100)]
    [0.305, 0.4583]
    """
    cutoffs = sorted(hits)
    shares = np.diff([0.0, *(hits[k] for k in cutoffs), 1.0])
    highest, deepest = np.array([0, *cutoffs], np.float64), np.array([*cutoffs, n_candidates], np.float64) - 1
    return float(shares @ gain(deepest)), float(shares @ gain(highest))


def ndcg_at_5(rank):
    return ndcg(rank, 5)


def least_hit_at_5(gain, hit_1):
    """The hit@5 at which ``gain`` is the largest ndcg@5."""
    return hit_1 + (gain - hit_1) * math.log2(3)


@pytest.mark.parametrize("gain", [mrr, ndcg_at_5, lambda rank: ndcg(rank, 3)], ids=["mrr", "ndcg@5", "ndcg@3"])
@pytest.mark.parametrize("cutoffs", [(1, 3), (1, 2, 5), (5,)])
def test_bounds_are_the_least_and_the_largest_of_all_rankings(gain, cutoffs):
    users, candidates = 3, 7
    reached = {}
    for ranks in product(range(candidates), repeat=users):
        rank = np.array(ranks, float)
        hits = tuple(float(hit(rank, k).mean()) for k in cutoffs)
        reached.setdefault(hits, []).append(float(gain(rank).mean()))
    for hits, means in reached.items():
        bounds = attainable(gain, dict(zip(cutoffs, hits, strict=True)), candidates)
        assert bounds == pytest.approx((min(means), max(means)))


def test_every_bound_is_derived_below_or_marked_as_quoted():
    assert DERIVED.keys() == {("Beauty", "TALLRec", "ndcg@5"), ("Beauty", "GANPrompt", "mrr")}
    for figure in PAPER["impossible"]:
        assert figure["printed"] > figure.get("most", math.inf) or figure["printed"] < figure.get("least", -math.inf)


def test_tallrec_gains_more_than_it_hits_and_its_hits_are_no_multiple_of_one_user():
    figure = DERIVED["Beauty", "TALLRec", "ndcg@5"]
    broken = check_sanity(
        {"hit@5": figure["most"], "ndcg@5": figure["printed"]}, users=PAPER["users"]["Beauty"], tolerance=ROUNDING
    )
    assert broken == ["hit@5 = 0.4258 is not a multiple of 1/2267", "ndcg@5 = 0.4385 exceeds hit@5 = 0.4258"]


@pytest.mark.parametrize("error", [-5e-4, 0.0, 5e-4])
def test_ganprompts_mrr_is_too_small_for_its_ndcg_whatever_its_hits(error):
    figure, hit_1 = DERIVED["Beauty", "GANPrompt", "mrr"], HIT_1 + error
    gain = QUOTED["Beauty", "GANPrompt", "ndcg@5"]["printed"] - ROUNDING
    hit_5 = least_hit_at_5(gain, hit_1)
    assert hit_5 == pytest.approx(0.71, abs=5e-3)
    assert attainable(ndcg_at_5, {1: hit_1, 5: hit_5}, LONG)[1] == pytest.approx(gain)
    for more in (hit_5, (hit_5 + 1) / 2, 1.0):
        assert attainable(mrr, {1: hit_1, 5: more}, LONG)[0] >= figure["least"] > figure["printed"] + ROUNDING


def test_quoted_bounds_of_ganprompt_belong_to_one_and_the_same_hit_at_5():
    """This does not derive them: the row's hit@5 and hit@10 are not at hand."""
    hit_5 = least_hit_at_5(QUOTED["Beauty", "GANPrompt", "ndcg@5"]["most"], HIT_1)
    # Of n positives the first misses the first place: the largest ndcg@5 of a list whose hit@1 is 0.
    gains = 1 / np.log2(np.arange(2, 7))
    below_first = max(gains[1 : n + 1].sum() / gains[:n].sum() for n in range(1, 6))
    assert HIT_1 + (hit_5 - HIT_1) * below_first == pytest.approx(0.5077, abs=ROUNDING)
    least, most = (attainable(mrr, {1: HIT_1, 5: hit_5, 10: hit_10}, 100)[0] for hit_10 in (hit_5, 1.0))
    assert least < QUOTED["Beauty", "GANPrompt", "mrr"]["least"] < most


@pytest.mark.parametrize("row", PAPER["hit_1"].values(), ids=PAPER["hit_1"].keys())
def test_printed_improvements_hold_within_rounding(row):
    least = (row["ganprompt"] - 5e-4) / (row["other"] + 5e-4)
    most = (row["ganprompt"] + 5e-4) / (row["other"] - 5e-4)
    assert least <= 1 + row["improvement"] / 100 <= most
