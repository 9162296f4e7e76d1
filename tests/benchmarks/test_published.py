"""The arithmetic of one positive per list, applied to what a paper prints."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.metrics import attainable, check_sanity, hit, mrr, ndcg
from benchmarks.report.readme import beside, published

PAPER = published()
IMPOSSIBLE = {(figure["dataset"], figure["row"], figure["metric"]): figure for figure in PAPER["impossible"]}
ROUNDING = 5e-5
HIT_1 = PAPER["hit_1"]["Beauty"]["ganprompt"]
"""Printed with three decimals here, so what follows from it holds to about 5e-4."""


def ndcg_at_5(rank):
    return ndcg(rank, 5)


@given(st.lists(st.integers(0, 49), min_size=1, max_size=30))
def test_no_ranking_leaves_the_bounds_that_its_hits_set(ranks):
    rank = np.array(ranks, float)
    hits = {k: float(hit(rank, k).mean()) for k in (1, 5, 10)}
    for gain in (mrr, ndcg_at_5, lambda rank: ndcg(rank, 10)):
        least, most = attainable(gain, hits, 50)
        assert least - 1e-12 <= gain(rank).mean() <= most + 1e-12


@pytest.mark.parametrize("ranks", [[0, 1, 1, 5], [0, 4, 4, 49]])
def test_bounds_are_reached(ranks):
    rank = np.array(ranks, float)
    hits = {k: float(hit(rank, k).mean()) for k in (1, 5)}
    assert float(mrr(rank).mean()) in attainable(mrr, hits, 50)


@pytest.mark.parametrize("figure", IMPOSSIBLE.values(), ids=" ".join(["{dataset}", "{row}", "{metric}"]).format_map)
def test_figures_called_impossible_lie_beyond_their_bound(figure):
    assert figure["printed"] > figure.get("most", math.inf) or figure["printed"] < figure.get("least", -math.inf)


def test_tallrec_gains_more_than_it_hits_and_its_hits_are_no_multiple_of_one_user():
    figure = IMPOSSIBLE["Beauty", "TALLRec", "ndcg@5"]
    hits = {5: figure["most"]}
    assert attainable(ndcg_at_5, hits, 100)[1] == pytest.approx(figure["most"])
    broken = check_sanity(
        {"hit@5": hits[5], "ndcg@5": figure["printed"]}, users=PAPER["users"]["Beauty"], tolerance=ROUNDING
    )
    assert broken == ["hit@5 = 0.4258 is not a multiple of 1/2267", "ndcg@5 = 0.4385 exceeds hit@5 = 0.4258"]


def implied_hit_at_5(most: float) -> float:
    """The hit@5 at which ``most`` is the largest ndcg@5."""
    return HIT_1 + (most - HIT_1) * math.log2(3)


def test_bounds_quoted_for_ganprompt_belong_to_one_and_the_same_hit_at_5():
    hit_5 = implied_hit_at_5(IMPOSSIBLE["Beauty", "GANPrompt", "ndcg@5"]["most"])
    assert attainable(ndcg_at_5, {1: HIT_1, 5: hit_5}, 100)[1] == pytest.approx(0.4694)
    # Of n positives the first misses the first place: the largest ndcg@5 of a list whose hit@1 is 0.
    gains = 1 / np.log2(np.arange(2, 7))
    below_first = max(gains[1 : n + 1].sum() / gains[:n].sum() for n in range(1, 6))
    assert HIT_1 + (hit_5 - HIT_1) * below_first == pytest.approx(0.5077, abs=ROUNDING)
    assert IMPOSSIBLE["Beauty", "GANPrompt", "ndcg@5"]["printed"] > 0.5077


def test_ganprompts_mrr_is_too_small_whatever_its_hit_at_10():
    hit_5 = implied_hit_at_5(IMPOSSIBLE["Beauty", "GANPrompt", "ndcg@5"]["most"])
    figure = IMPOSSIBLE["Beauty", "GANPrompt", "mrr"]
    least = attainable(mrr, {1: HIT_1, 5: hit_5}, 100)[0]
    assert figure["printed"] + 10 * ROUNDING < least < figure["least"]


@pytest.mark.parametrize("row", PAPER["hit_1"].values(), ids=PAPER["hit_1"].keys())
def test_printed_improvements_hold_within_rounding(row):
    least = (row["ganprompt"] - 5e-4) / (row["other"] + 5e-4)
    most = (row["ganprompt"] + 5e-4) / (row["other"] - 5e-4)
    assert least <= 1 + row["improvement"] / 100 <= most


def test_ordering_is_that_of_the_run():
    standings = [{"method": "sasrec", "unseen": 0.4}, {"method": "ganprompt", "unseen": 0.32}]
    text = beside([*standings, {"method": "llm-rank", "note": "not run: no model"}], PAPER)
    assert "| sasrec > ganprompt |" in text and "| 2 of 2 |" in text and "| +25.00 % |" in text
    assert "| not in this run |" in beside([{"method": m, "unseen": u} for m, u in (("a", 0.4), ("b", 0.3))], PAPER)
