"""Ranking metrics against reference implementations and against the arithmetic they must obey."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.metrics import METRICS, auc, check_sanity, evaluate, hit, mrr, ndcg, rank_of_positive
from data.types import FloatArray, IntArray

USERS, CANDIDATES = 40, 100


def distinct_scores() -> tuple[FloatArray, IntArray]:
    rng = np.random.default_rng(3)
    scores = rng.permuted(np.tile(np.arange(CANDIDATES) / 7, (USERS, 1)), axis=1)
    return scores, rng.integers(CANDIDATES, size=USERS)


@st.composite
def lists(draw: st.DrawFn, levels: int) -> tuple[FloatArray, IntArray]:
    """Score lists of one to eight users; few levels make many ties."""
    users, candidates = draw(st.integers(1, 8)), draw(st.integers(2, 15))
    scores = draw(arrays(np.float64, (users, candidates), elements=st.integers(0, levels).map(float)))
    positive = draw(arrays(np.int64, users, elements=st.integers(0, candidates - 1)))
    return scores, positive


def test_rank_counts_better_candidates_and_half_of_the_equal_ones() -> None:
    scores = np.array([[5, 4, 3, 2], [1, 4, 3, 2], [3, 3, 3, 9], [1, 1, 1, 1]], float)
    assert rank_of_positive(scores, np.zeros(4, int)).tolist() == [0.0, 3.0, 2.0, 1.5]


def test_masked_candidates_do_not_compete_and_may_be_anything() -> None:
    scores = np.array([[np.nan, 0.9, 0.5, 0.5, np.inf, 0.5]])
    mask = np.array([[False, True, True, True, False, False]])
    assert rank_of_positive(scores, np.array([2]), mask).tolist() == [1.5]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_by_row(value: float) -> None:
    scores = np.zeros((5, 3))
    scores[[2, 4], 1] = value
    with pytest.raises(ValueError, match=r"row 2: the score in column 1"):
        rank_of_positive(scores, np.zeros(5, int))


@pytest.mark.parametrize("column", [-1, 3])
def test_a_positive_outside_the_list_is_refused(column: int) -> None:
    with pytest.raises(ValueError, match="row 1: the positive"):
        rank_of_positive(np.zeros((2, 3)), np.array([0, column]))


def test_a_positive_that_is_masked_out_is_refused() -> None:
    with pytest.raises(ValueError, match="row 0: the positive"):
        rank_of_positive(np.zeros((1, 3)), np.array([1]), np.array([[True, False, True]]))


@settings(deadline=None)
@given(lists(levels=3), st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(drawn: tuple[FloatArray, IntArray], random: Random) -> None:
    scores, positive = drawn
    order = list(range(scores.shape[1]))
    random.shuffle(order)
    moved = np.argsort(order)[positive]
    assert (rank_of_positive(scores[:, order], moved) == rank_of_positive(scores, positive)).all()


@settings(deadline=None)
@given(lists(levels=3))
def test_auc_is_that_of_scikit_learn_with_ties(drawn: tuple[FloatArray, IntArray]) -> None:
    roc_auc_score = pytest.importorskip("sklearn.metrics").roc_auc_score
    scores, positive = drawn
    values = auc(rank_of_positive(scores, positive), scores.shape[1])
    for row, (own, column) in enumerate(zip(scores, positive, strict=True)):
        assert values[row] == pytest.approx(roc_auc_score(np.arange(own.size) == column, own))


@pytest.mark.parametrize("k", [1, 5, 10])
def test_ndcg_is_that_of_scikit_learn_without_ties(k: int) -> None:
    ndcg_score = pytest.importorskip("sklearn.metrics").ndcg_score
    scores, positive = distinct_scores()
    expected = [
        ndcg_score([np.arange(CANDIDATES) == column], [own], k=k) for own, column in zip(scores, positive, strict=True)
    ]
    assert ndcg(rank_of_positive(scores, positive), k) == pytest.approx(np.array(expected))


@pytest.mark.slow  # ranx compiles for most of a minute
def test_hit_ndcg_and_mrr_are_those_of_ranx_without_ties() -> None:
    ranx = pytest.importorskip("ranx")
    scores, positive = distinct_scores()
    qrels = ranx.Qrels({f"u{user:02}": {f"i{column}": 1} for user, column in enumerate(positive)})
    run = ranx.Run({f"u{user:02}": {f"i{c}": float(s) for c, s in enumerate(own)} for user, own in enumerate(scores)})
    names = {
        f"{ours}@{k}": f"{theirs}@{k}" for ours, theirs in [("hit", "hit_rate"), ("ndcg", "ndcg")] for k in (1, 5, 10)
    }
    expected = ranx.evaluate(qrels, run, [*names.values(), "mrr"])
    values = evaluate(rank_of_positive(scores, positive), CANDIDATES)
    for ours, theirs in {**names, "mrr": "mrr"}.items():
        assert values[ours].mean() == pytest.approx(expected[theirs]), ours


def test_a_list_scored_alike_is_a_coin_flip_that_hits_nothing_first() -> None:
    rank = rank_of_positive(np.ones((1, 100)), np.array([7]))
    values = {key: value.item() for key, value in evaluate(rank, 100).items()}
    assert (values["auc"], values["hit@1"], values["hit@10"], values["ndcg@10"]) == (0.5, 0, 0, 0)


def test_a_place_shared_across_the_cutoff_is_a_miss() -> None:
    rank = np.array([4.0, 4.5, 5.0])
    assert hit(rank, 5).tolist() == [1, 0, 0]
    assert (ndcg(rank, 5) > 0).tolist() == [True, False, False]


def test_mrr_is_the_reciprocal_of_the_one_based_rank() -> None:
    assert mrr(np.array([0.0, 0.5, 4.0])).tolist() == [1.0, pytest.approx(2 / 3), 0.2]


def test_auc_counts_the_candidates_of_each_user_and_is_undefined_without_negatives() -> None:
    values = auc(np.array([1.0, 1.0, 0.0]), np.array([3, 5, 1]))
    assert values == pytest.approx(np.array([0.5, 0.75, np.nan]), nan_ok=True)


def test_evaluate_gives_every_metric_per_user_in_the_order_of_the_tables() -> None:
    values = evaluate(np.array([0.0, 3.0]), 100)
    assert list(values) == list(METRICS)
    assert list(METRICS) == ["auc", "hit@1", "hit@5", "hit@10", "ndcg@1", "ndcg@5", "ndcg@10", "mrr"]
    assert {value.shape for value in values.values()} == {(2,)}


@settings(deadline=None)
@given(st.one_of(lists(levels=1), lists(levels=10**6)))
def test_sanity_rules_hold_for_any_scores_with_and_without_ties(drawn: tuple[FloatArray, IntArray]) -> None:
    scores, positive = drawn
    values = evaluate(rank_of_positive(scores, positive), scores.shape[1])
    means = {key: float(value.mean()) for key, value in values.items()}
    assert check_sanity(means, users=len(scores)) == []
    assert all(0 <= mean <= 1 for mean in means.values())


@pytest.mark.parametrize(
    ("means", "sentence"),
    [
        ({"hit@5": 0.25, "ndcg@5": 0.5}, "ndcg@5 = 0.5 exceeds hit@5 = 0.25"),
        ({"hit@1": 0.5, "ndcg@1": 0.25}, "ndcg@1 = 0.25 differs from hit@1 = 0.5"),
        ({"hit@1": 0.5, "mrr": 0.25}, "mrr = 0.25 is below hit@1 = 0.5"),
        ({"hit@10": 0.3}, "hit@10 = 0.3 is not a multiple of 1/4"),
        ({"hit@10": float("nan")}, "hit@10 = nan is not a multiple of 1/4"),
    ],
)
def test_a_broken_rule_is_said_in_one_sentence(means: dict[str, float], sentence: str) -> None:
    assert check_sanity(means, users=4) == [sentence]


def test_rules_about_absent_metrics_are_passed_over() -> None:
    assert check_sanity({"auc": 0.7, "ndcg@5": 0.9, "mrr": 0.1}, users=3) == []


def test_rounding_of_a_printed_table_breaks_no_rule() -> None:
    printed = dict.fromkeys(["hit@1", "ndcg@1", "mrr"], round(100 / 2267, 4))
    assert check_sanity(printed, users=2267, tolerance=5e-5) == []
    assert check_sanity(printed, users=2267) == ["hit@1 = 0.0441 is not a multiple of 1/2267"]
