"""Paired tests against scipy and statsmodels, and against what they promise under a true null."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import benchmarks.significance as significance
from benchmarks.significance import (
    bootstrap_interval,
    compare,
    effect_size,
    friedman,
    holm,
    nemenyi_critical_difference,
    paired_permutation_p,
    rank_correlation,
    t_p,
    wilcoxon_p,
)
from data.types import FloatArray


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def crossed(users: int = 60, templates: int = 5, seeds: int = 3) -> FloatArray:
    """Differences with an effect of each user, template and seed, and noise."""
    rng = generator(9)
    effects = rng.normal(size=(users, 1, 1)) + rng.normal(size=(1, templates, 1)) + rng.normal(size=(1, 1, seeds))
    return effects + rng.normal(size=(users, templates, seeds))


@pytest.mark.parametrize("shift", [0.0, 0.4, 0.8])
def test_permutation_p_approaches_the_exact_one_of_scipy(shift: float) -> None:
    from scipy.stats import permutation_test

    difference = generator(2).normal(shift, size=10)
    exact = permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    p = paired_permutation_p(difference, draws=100_000, rng=generator())
    assert p == pytest.approx(exact, abs=5 * np.sqrt(exact / 100_000))


def test_permutation_p_counts_the_observed_assignment_and_is_never_zero() -> None:
    assert paired_permutation_p(np.full(200, 0.1), draws=999, rng=generator()) == 1 / 1000


def test_permutation_p_is_one_where_nothing_differs() -> None:
    assert paired_permutation_p(np.zeros(30), draws=99, rng=generator()) == 1


def test_sums_equal_but_for_float_rounding_count_as_extreme() -> None:
    p = paired_permutation_p(np.array([0.1] * 6 + [-0.1] * 4), draws=20_000, rng=generator())
    assert p == pytest.approx(1 - 252 / 1024, abs=0.02)  # all but the sums of 0: 10 over 5 of 2^10
    assert sum([0.1, 0.2, -0.3]) != 0
    assert paired_permutation_p(np.array([0.1, 0.2, -0.3]), draws=999, rng=generator()) == 1


def test_permutation_p_does_not_depend_on_which_method_comes_first() -> None:
    difference = generator(1).normal(0.2, size=50)
    assert paired_permutation_p(difference, rng=generator()) == paired_permutation_p(-difference, rng=generator())


def test_small_blocks_of_memory_give_the_same_test(monkeypatch: pytest.MonkeyPatch) -> None:
    difference = generator(1).normal(0.2, size=50)
    whole = paired_permutation_p(difference, draws=20_000, rng=generator())
    monkeypatch.setattr(significance, "BLOCK", 1000)
    assert paired_permutation_p(difference, draws=20_000, rng=generator()) == pytest.approx(whole, abs=0.01)


@pytest.mark.parametrize("function", [paired_permutation_p, bootstrap_interval])
def test_undefined_differences_are_refused_by_user(function: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="user 2"):
        function(np.array([0.1, 0.2, np.nan]), rng=generator())
    with pytest.raises(ValueError, match="at least one user"):
        function(np.array([]), rng=generator())


def test_the_interval_over_users_is_that_of_scipy() -> None:
    from scipy.stats import bootstrap

    values = generator(4).exponential(size=80)
    expected = bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=generator(1))
    interval = bootstrap_interval(values, draws=20_000, rng=generator())
    assert interval == pytest.approx(tuple(expected.confidence_interval), abs=0.02)


def test_the_interval_resamples_users_templates_and_seeds_each() -> None:
    values, rng = crossed(), generator(1)
    means = [values[np.ix_(*(rng.integers(n, size=n) for n in values.shape))].mean() for _ in range(20_000)]
    interval = bootstrap_interval(values, draws=20_000, rng=generator())
    assert interval == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.05)


def test_templates_that_disagree_widen_the_interval() -> None:
    values = np.repeat(generator(3).normal(size=(100, 1)), 4, axis=1)
    agreeing = bootstrap_interval(values, rng=generator())
    disagreeing = bootstrap_interval(values + np.array([-1.0, -0.5, 0.5, 1.0]), rng=generator())
    assert disagreeing.high - disagreeing.low > 2 * (agreeing.high - agreeing.low)


def test_templates_of_their_own_have_no_order_that_means_anything() -> None:
    easy = np.linspace(-0.3, 0.3, 12)
    a = 0.5 + easy + generator(1).normal(0, 0.01, (40, 12))
    b = 0.4 + easy + generator(2).normal(0, 0.01, (40, 12))

    def width(other: FloatArray, same: bool) -> float:
        found = compare(a, other, same_templates=same, draws=99, resamples=4000, rng=generator(3))
        assert found.difference == pytest.approx(0.1, abs=0.01) and found.interval.low < 0.1 < found.interval.high
        return found.interval.high - found.interval.low

    turned = b[:, ::-1].copy()
    assert width(b, True) < 0.05 < 0.3 < width(turned, True)
    assert width(b, False) == pytest.approx(width(turned, False), rel=0.1)
    assert width(b, False) == pytest.approx(width(turned, True) / np.sqrt(2), rel=0.1)


def test_a_higher_level_gives_an_interval_around_a_lower_one() -> None:
    wide, narrow = (bootstrap_interval(crossed(), rng=generator(), level=level) for level in (0.99, 0.9))
    assert wide.low < narrow.low < crossed().mean() < narrow.high < wide.high


@pytest.mark.parametrize("users", [8, 200])
def test_t_and_wilcoxon_are_those_of_scipy(users: int) -> None:
    from scipy.stats import ttest_rel, wilcoxon

    a, b = generator(6).normal(size=(2, users))
    assert t_p(a - b) == pytest.approx(ttest_rel(a, b).pvalue)
    assert wilcoxon_p(a - b) == pytest.approx(wilcoxon(a, b).pvalue)
    assert effect_size(a - b) * np.sqrt(users) == pytest.approx(ttest_rel(a, b).statistic)


@pytest.mark.parametrize("users", [1, 2, 6, 10, 13, 14])
def test_wilcoxon_of_few_users_with_ties_is_that_of_scipy(users: int) -> None:
    from scipy.stats import wilcoxon

    for difference in generator(users).choice([0, 0.1, -0.1, 0.2, 0.3, -0.3, 0.5], (4 if users < 13 else 1, users)):
        if difference.any():
            assert wilcoxon_p(difference) == pytest.approx(wilcoxon(difference).pvalue, abs=1e-12)


@pytest.mark.filterwarnings("error")
def test_differences_that_are_all_zero_leave_parametric_tests_undefined() -> None:
    zero = np.zeros(12)
    assert np.isnan([t_p(zero), wilcoxon_p(zero), effect_size(zero)]).all()


@pytest.mark.filterwarnings("error")
def test_differences_that_are_all_the_same_are_an_infinite_effect() -> None:
    assert effect_size(np.full(7, -0.1)) == -np.inf
    assert t_p(np.full(7, -0.1)) == 0


def test_float_noise_is_no_effect() -> None:
    noise = np.array([0.1 + 0.2 - 0.3, 0.0, 0.3 - 0.1 - 0.2])
    assert noise.any() and np.isnan([effect_size(noise), t_p(noise)]).all()
    assert effect_size(noise - 0.2) == -np.inf and t_p(noise - 0.2) == 0


def test_one_user_has_no_effect_size() -> None:
    assert np.isnan([effect_size(np.array([0.4])), t_p(np.array([0.4]))]).all()


def test_float_noise_does_not_break_ties_of_wilcoxon_ranks() -> None:
    noisy = np.tile([0.3 - 0.1, -0.2, 0.1], 8)
    assert 0.3 - 0.1 != 0.2
    assert wilcoxon_p(noisy) == wilcoxon_p(np.tile([0.2, -0.2, 0.1], 8))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p: list[float]) -> None:
    multipletests = pytest.importorskip("statsmodels.stats.multitest").multipletests
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gc.collect", lambda: 0)  # it does so every time
        adjusted = multipletests(p, method="holm")[1]
    assert holm(np.array(p)) == pytest.approx(adjusted)


@given(st.lists(st.floats(0, 1), max_size=8), st.integers(0, 8))
def test_undefined_tests_do_not_count_for_holm(p: list[float], place: int) -> None:
    place = min(place, len(p))
    adjusted = holm(np.array([*p[:place], np.nan, *p[place:]]))
    assert np.isnan(adjusted[place])
    assert np.delete(adjusted, place).tolist() == holm(np.array(p)).tolist()


def test_friedman_ranks_the_best_first_and_corrects_for_ties_as_scipy_does() -> None:
    from scipy.stats import friedmanchisquare

    scores = np.array([[0.9, 0.7, 0.1], [0.8, 0.8, 0.3], [0.6, 0.7, 0.7], [0.5, 0.4, 0.2]])
    result = friedman(scores)
    assert result.average_ranks.tolist() == [
        (1 + 1.5 + 3 + 1) / 4,
        (2 + 1.5 + 1.5 + 2) / 4,
        (3 + 3 + 1.5 + 3) / 4,
    ]
    assert (result.statistic, result.p) == pytest.approx(tuple(friedmanchisquare(*scores.T)))


@pytest.mark.filterwarnings("error")
def test_friedman_is_undefined_where_all_methods_tie_and_refused_for_two() -> None:
    assert np.isnan(friedman(np.ones((4, 3))).p)
    with pytest.raises(ValueError, match="three methods or more, got 2"):
        friedman(np.ones((4, 2)))


@pytest.mark.parametrize(
    ("alpha", "quantiles"),
    [
        (0.05, [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]),
        (0.10, [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]),
    ],
)
def test_the_critical_difference_uses_the_quantiles_of_demsar(alpha: float, quantiles: list[float]) -> None:
    for methods, quantile in enumerate(quantiles, start=2):
        expected = quantile * np.sqrt(methods * (methods + 1) / (6 * 14))
        assert nemenyi_critical_difference(methods, 14, alpha) == pytest.approx(expected, abs=1e-3)


def test_a_comparison_averages_templates_and_seeds_before_testing_users() -> None:
    a, b = crossed(), np.zeros((60, 5, 3))
    by_user = a.mean(axis=(1, 2))
    comparison = compare(a, b, draws=999, rng=generator())
    assert (comparison.difference, comparison.n) == (pytest.approx(a.mean()), 60)
    assert comparison.interval.low < a.mean() < comparison.interval.high
    assert comparison.t_p == t_p(by_user)
    assert comparison.wilcoxon_p == wilcoxon_p(by_user)
    assert comparison.effect_size == effect_size(by_user)


def test_copies_of_a_template_add_no_significance() -> None:
    a, b = generator(7).normal(0.1, size=(2, 40, 1))
    once = compare(a, b, draws=999, rng=generator())
    copied = compare(np.tile(a, 20), np.tile(b, 20), draws=999, rng=generator())
    assert copied.t_p == pytest.approx(once.t_p)
    assert copied.p == pytest.approx(once.p, abs=0.05)


def test_the_same_generator_gives_the_same_comparison_and_swapping_sides_its_mirror() -> None:
    a, b = generator(8).normal(size=(2, 30, 4))
    first, again, mirrored = (compare(*pair, draws=500, rng=generator()) for pair in [(a, b), (a, b), (b, a)])
    assert first == again
    assert (first.p, first.difference) == (mirrored.p, -mirrored.difference)


def test_values_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) and \(4,\)"):
        compare(np.ones(3), np.ones(4), rng=generator())


REPEATS, LEVEL = 10_000, 0.05


def rejections(test: Callable[[FloatArray, np.random.Generator], float], draw: Callable[..., FloatArray]) -> int:
    """How many of REPEATS samples of 30 interchangeable users are called different at LEVEL."""
    rng = generator(2024)
    return sum(test(draw(rng, 30), rng) <= LEVEL for _ in range(REPEATS))


def normal(rng: np.random.Generator, users: int) -> FloatArray:
    return rng.normal(size=users)


def reciprocal_ranks(rng: np.random.Generator, users: int) -> FloatArray:
    """Differences between two methods that rank at random: skewed metrics with many ties."""
    a, b = 1 / rng.integers(1, 11, size=(2, users))
    return a - b


def permutation(difference: FloatArray, rng: np.random.Generator) -> float:
    # (1 + extreme) / 200 <= 0.05 has probability exactly 10 / 200 without ties
    return paired_permutation_p(difference, draws=199, rng=rng)


def student(difference: FloatArray, rng: np.random.Generator) -> float:
    return t_p(difference)


@pytest.mark.slow
@pytest.mark.parametrize("test", [permutation, student])
def test_a_true_null_is_rejected_as_often_as_promised(test: Callable[..., float]) -> None:
    """Rejections are Binomial(10000, 0.05): 99.9 % of the time between 430 and 573."""
    from scipy.stats import binom

    low, high = binom.interval(0.999, REPEATS, LEVEL)
    assert low <= rejections(test, normal) <= high


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "share"), [(3, 0.75), (10, 0.9)])
def test_intervals_over_few_seeds_hold_the_truth_as_rarely_as_they_say(seeds: int, share: float) -> None:
    rng, repeats = generator(2024), 2000
    found = [bootstrap_interval(rng.normal(size=(1, 1, seeds)), draws=2000, rng=rng) for _ in range(repeats)]
    assert np.mean([low <= 0 <= high for low, high in found]) == pytest.approx(share, abs=0.03)


@pytest.mark.slow
def test_a_true_null_is_not_rejected_more_often_than_promised_for_skewed_metrics_with_ties() -> None:
    from scipy.stats import binom

    assert rejections(permutation, reciprocal_ranks) <= binom.ppf(0.9995, REPEATS, LEVEL)


@pytest.mark.filterwarnings("error")
def test_rank_correlation_with_what_does_not_vary_is_undefined_without_a_warning() -> None:
    assert np.isnan(rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))


def test_signs_are_drawn_from_all_bytes() -> None:
    bits = np.concatenate(list(significance._random_bits(8, 20_000, generator())))
    assert set(np.packbits(bits, axis=1).ravel().tolist()) == set(range(256))


def test_a_comparison_has_the_draws_resamples_and_level_that_are_asked_for() -> None:
    values, rng = crossed(), generator(5)
    found = compare(values, np.zeros_like(values), draws=99, resamples=500, rng=generator(5), level=0.8)
    assert found.interval == bootstrap_interval(values, draws=500, rng=rng, level=0.8)
    assert found.p == paired_permutation_p(values.reshape(60, -1).mean(axis=1), draws=99, rng=rng)


def test_rank_correlation_is_of_ranks() -> None:
    assert rank_correlation([1.0, 2.0, 3.0, 4.0], [1.0, 10.0, 100.0, 1000.0]) == 1
