"""Robustness measures against their definitions, written out the long way."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from benchmarks.robustness import (
    PAIRWISE,
    combined_performance_score,
    drop_interval,
    jaccard_at,
    kendall_tau,
    performance_drop_rate,
    probability_first,
    rank_biased_overlap,
    saturation,
    scores_moved,
    severity_area,
    summary,
    top_k,
)
from benchmarks.significance import resampled_counts
from data.types import IntArray

unit = st.floats(0, 1, allow_subnormal=False)


def shuffled_lists(users: int = 20, items: int = 30) -> tuple[IntArray, IntArray]:
    rng = np.random.default_rng(5)
    ordered = np.tile(np.arange(items), (users, 1))
    return rng.permuted(ordered, axis=1), rng.permuted(ordered, axis=1)


def test_the_drop_rate_is_the_lost_share_and_negative_where_something_is_won() -> None:
    assert performance_drop_rate([0.5, 0.4], [0.4, 0.5]) == pytest.approx(np.array([0.2, -0.25]))


def test_the_drop_rate_of_nothing_is_undefined_and_never_infinite() -> None:
    with np.errstate(all="raise"):
        assert np.isnan(performance_drop_rate([0.0, 0.0], [0.0, 0.3])).all()


def test_the_interval_of_a_drop_rate_resamples_users_templates_and_seeds_for_both_qualities_at_once() -> None:
    rng, draws = np.random.default_rng(0), 400
    clean, unseen = rng.uniform(0.1, 1, (7, 2)), rng.uniform(0, 1, (7, 3, 2))
    found = drop_interval(clean, unseen, draws=draws, rng=np.random.default_rng(1), level=0.9)
    rng = np.random.default_rng(1)
    users, templates, seeds = (resampled_counts(n, draws, rng) for n in (7, 3, 2))
    whole = np.einsum("bu,bs,us->b", users, seeds, clean) / (7 * 2)
    kept = np.einsum("bu,bt,bs,uts->b", users, templates, seeds, unseen) / (7 * 3 * 2)
    assert found == pytest.approx(np.quantile(1 - kept / whole, [0.05, 0.95]))


def test_resamples_without_any_clean_quality_have_no_drop_rate() -> None:
    clean = np.array([[1.0], [0.0]])
    found = drop_interval(clean, clean[:, None] / 2, draws=200, rng=np.random.default_rng(0))
    assert found == pytest.approx((0.5, 0.5))


def test_a_summary_holds_level_and_spread_over_templates() -> None:
    values = summary(np.arange(11) / 10)
    assert (values.mean, values.worst) == (pytest.approx(0.5), 0.0)
    assert values.lower_decile == pytest.approx(0.1)
    assert values.standard_deviation == pytest.approx(np.sqrt(0.11))


def test_the_deviation_over_one_template_is_undefined() -> None:
    values = summary(np.array([0.3]))
    assert np.isnan(values.standard_deviation)
    assert (values.mean, values.worst) == (0.3, 0.3)


@settings(deadline=None)
@given(unit, st.integers(2, 20))
def test_equal_templates_have_their_value_for_a_mean_and_no_deviation(value: float, templates: int) -> None:
    values = summary(np.full(templates, value))
    assert (values.mean, values.lower_decile, values.standard_deviation) == (value, value, 0)


def test_a_summary_of_no_template_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one template"):
        summary(np.array([]))


def test_equal_templates_saturate_and_unequal_ones_cost_performance() -> None:
    assert saturation(np.full(4, 0.3)) == 1
    assert combined_performance_score(np.full(4, 0.3)) == pytest.approx(0.3)
    assert saturation(np.array([0.2, 0.4, 0.9])) == pytest.approx(0.6)
    assert combined_performance_score(np.array([0.2, 0.4, 0.9])) == pytest.approx(0.54)


@settings(deadline=None)
@given(unit, st.lists(st.floats(0.01, 1), min_size=1, max_size=6))
def test_a_flat_severity_curve_has_its_own_height(height: float, steps: list[float]) -> None:
    severity = np.cumsum([0, *steps])
    assert severity_area(severity, np.full(severity.size, height)) == pytest.approx(height)


def test_the_severity_area_starts_at_the_clean_prompt_and_weighs_by_width() -> None:
    severity, values = np.array([0, 0.05, 0.1, 0.2, 0.3]), np.array([0.5, 0.4, 0.4, 0.2, 0.1])
    by_hand = (0.45 * 0.05 + 0.4 * 0.05 + 0.3 * 0.1 + 0.15 * 0.1) / 0.3
    assert severity_area(severity, values) == pytest.approx(by_hand)


@pytest.mark.parametrize("severity", [[0.1, 0.2], [0.0, 0.2, 0.1], [0.0, 0.0], [0.0], []])
def test_severities_that_do_not_increase_from_clean_are_refused(severity: list[float]) -> None:
    with pytest.raises(ValueError, match="must start at 0"):
        severity_area(np.array(severity), np.ones(len(severity)))


def test_top_k_breaks_ties_by_column() -> None:
    scores = np.array([[1, 3, 2, 3, 3], [0, 0, 0, 0, 0]], float)
    assert top_k(scores, 4).tolist() == [[1, 3, 4, 2], [0, 1, 2, 3]]
    assert top_k(np.arange(400.0)[None] % 2, 200).tolist() == [list(range(1, 400, 2))]


def test_top_k_of_a_short_list_is_the_list() -> None:
    assert top_k(np.array([[0.1, 0.2]]), 10).tolist() == [[1, 0]]


def test_rank_biased_overlap_of_a_literal_example() -> None:
    # overlaps 0, 2, 2 at depths 1, 2, 3; weights 1, 0.9, 0.81
    value = rank_biased_overlap(np.array([[1, 2, 3, 4]]), np.array([[2, 1, 4, 3]]), k=3).item()
    assert value == pytest.approx((0.9 * 2 / 2 + 0.81 * 2 / 3) / 2.71)


@pytest.mark.parametrize(("k", "p"), [(1, 0.9), (10, 0.9), (30, 0.5)])
def test_rank_biased_overlap_is_its_formula(k: int, p: float) -> None:
    a, b = shuffled_lists()
    for row, value in enumerate(rank_biased_overlap(a, b, k, p)):
        overlap = [len(set(a[row, :d]) & set(b[row, :d])) / d for d in range(1, k + 1)]
        total = sum(p ** (d - 1) * share for d, share in enumerate(overlap, start=1))
        assert value == pytest.approx((1 - p) / (1 - p**k) * total)


def test_a_change_at_the_top_costs_more_overlap_than_one_below() -> None:
    clean, top, below = np.arange(10)[None], np.arange(10)[None].copy(), np.arange(10)[None].copy()
    top[0, :2], below[0, 7:9] = [1, 0], [8, 7]
    assert rank_biased_overlap(clean, top) < rank_biased_overlap(clean, below) < 1


@pytest.mark.parametrize("measure", [rank_biased_overlap, jaccard_at])
def test_equal_lists_overlap_fully_and_disjoint_ones_not_at_all(measure: type[object]) -> None:
    a, b = np.arange(12)[None], np.arange(12, 24)[None]
    short = a[:, :4]
    assert measure(a, a) == pytest.approx(1)
    assert measure(short, short) == pytest.approx(1)
    assert measure(a, b) == 0


def test_jaccard_is_that_of_the_two_sets() -> None:
    a, b = shuffled_lists()
    for row, value in enumerate(jaccard_at(a, b, k=10)):
        first, second = set(a[row, :10]), set(b[row, :10])
        assert value == pytest.approx(len(first & second) / len(first | second))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [4, 10**6])
def test_kendall_tau_is_the_cosine_of_the_signs_of_all_differences(levels: int, dtype: type[np.floating]) -> None:
    a, b = np.random.default_rng(1).integers(levels, size=(2, 10, 40)).astype(dtype)
    signs = [np.sign(scores[:, :, None] - scores[:, None]).reshape(10, -1) for scores in (a, b)]
    lengths = [np.linalg.norm(each.astype(np.float64), axis=1) for each in signs]
    expected = (signs[0] * signs[1]).sum(axis=1) / (lengths[0] * lengths[1])
    assert kendall_tau(a, b) == pytest.approx(expected, rel=1e-12)
    assert kendall_tau(a, a) == pytest.approx(np.ones(10))


@pytest.mark.parametrize("length", [2, 3, 33, 100, PAIRWISE + 1])
@pytest.mark.parametrize("levels", [2, 20, 10**6])
def test_kendall_tau_has_the_bits_of_scipy(levels: int, length: int) -> None:
    a, b = np.random.default_rng(3).integers(levels, size=(2, 20, length)).astype(np.float32)
    b[:5] = a[:5] / 8
    expected = [kendalltau(*pair).statistic for pair in zip(a.astype(float), b.astype(float), strict=True)]
    assert np.array_equal(kendall_tau(a, b), expected, equal_nan=True)


def test_items_that_do_not_compete_do_not_count_in_kendall_tau() -> None:
    a, b = np.random.default_rng(0).random((2, 3, 12))
    less = [np.where(np.arange(12) % 4 == 1, -np.inf, scores) for scores in (a, b)]
    assert kendall_tau(*less) == pytest.approx(kendall_tau(*(scores[:, np.arange(12) % 4 != 1] for scores in (a, b))))


def test_kendall_tau_of_two_candidates_is_whether_they_stand_in_the_same_order() -> None:
    assert kendall_tau(np.array([[1.0, 2.0], [1.0, 2.0]]), np.array([[3.0, 4.0], [4.0, 3.0]])).tolist() == [1, -1]


def test_kendall_tau_is_undefined_where_one_side_is_constant() -> None:
    varied, constant = np.array([[1.0, 2.0, 3.0]]), np.ones((1, 3))
    assert np.isnan(kendall_tau(varied, constant)).all()
    assert np.isnan(kendall_tau(constant, varied)).all()


@pytest.mark.filterwarnings("error")
def test_kendall_tau_of_a_list_of_one_is_undefined_without_a_warning() -> None:
    assert np.isnan(kendall_tau(np.array([[1.0, -np.inf]]), np.array([[2.0, -np.inf]]))).all()


def test_probability_first_is_the_share_of_resamples_won() -> None:
    values = np.array([[0.9, 0.1, 0.4], [0.5, 0.6, 0.45], [0.0, 0.0, 0.1]])
    picks = [list(pick) for pick in itertools.product(range(3), repeat=3)]
    won = np.mean([np.eye(3)[values[:, pick].mean(axis=1).argmax()] for pick in picks], axis=0)
    estimate = probability_first(values, ["a"] * 3, draws=20_000, rng=np.random.default_rng(0))
    assert estimate == pytest.approx(won, abs=5 * 0.5 / np.sqrt(20_000))
    assert estimate[2] == 0


def test_probability_first_draws_the_templates_of_each_role_for_itself() -> None:
    values = np.array([[0.9, 0.1], [0.5, 0.4], [0.8, 0.2]])
    picks = list(itertools.product(itertools.product(range(2), repeat=2), repeat=2))
    won = np.zeros(3)
    for first, second in picks:
        means = np.array([values[0, list(first)], values[1, list(second)], values[2, list(second)]]).mean(axis=1)
        leads = means >= means.max() - 1e-12
        won += leads / leads.sum() / len(picks)
    estimate = probability_first(values, ["a", "b", "b"], draws=20_000, rng=np.random.default_rng(0))
    assert estimate == pytest.approx(won, abs=5 * 0.5 / np.sqrt(20_000))


def test_methods_that_tie_share_the_first_place() -> None:
    # the same three values to the reader, not to the float: 0.1 + 0.2 and 0.3
    values = np.array([[0.1 + 0.2, 0.7], [0.3, 0.7], [0.1, 0.1]])
    estimate = probability_first(values, ["a"] * 3, draws=50, rng=np.random.default_rng(0))
    assert estimate == pytest.approx(np.array([0.5, 0.5, 0.0]))


def test_users_are_moved_by_more_than_rounding_alone_and_masked_items_do_not_count() -> None:
    clean = np.array([[3.0, 20.0, -np.inf]] * 3, np.float32)
    other = clean.copy()
    other[1, 0] = np.nextafter(np.float32(3), np.float32(4))
    other[2, 0] += 1e-3
    assert scores_moved(clean, other).tolist() == [False, False, True]
    assert not scores_moved(np.zeros((2, 3)), np.zeros((2, 3))).any()


@pytest.mark.parametrize("excluded", [-1e9, np.finfo(np.float32).min, -np.inf])
def test_a_large_number_for_what_a_method_rules_out_hides_no_change(excluded: float) -> None:
    clean = np.array([[0.1, 0.2, excluded], [0.3, 0.4, excluded], [0.3, 0.4, 0.5]], np.float32)
    other = clean.copy()
    other[1, 0], other[2, 1] = 0.31, excluded
    assert scores_moved(clean, other).tolist() == [False, True, True]


def test_rounding_of_large_scores_among_tiny_ones_moves_nothing() -> None:
    """As of a softmax: one candidate has nearly all, and the median next to nothing."""
    clean = np.array([[0.9, 0.1, 1e-7, 2e-8, 1e-8]], np.float32)
    assert not scores_moved(clean, np.nextafter(clean, np.float32(1))).any()
    assert scores_moved(clean, clean * np.float32(1.001)).all()


def test_scores_move_by_more_than_a_millionth_of_the_largest() -> None:
    clean = np.array([[1.0, 2.0]])
    assert scores_moved(clean, clean + np.array([0, 1e-5])).all()
    assert not scores_moved(clean, clean + np.array([0, 1e-6])).any()


def test_the_lower_decile_lies_between_the_two_lowest_of_few_templates() -> None:
    assert summary(np.array([0.4, 0.2, 0.3])).lower_decile == pytest.approx(0.22)
