"""Perturbations of histories and titles."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.perturbations.base import (
    HistoryPerturbation,
    PerturbationError,
)
from benchmarks.perturbations.history import HistoryDrop, HistoryInject, HistoryShuffle
from benchmarks.perturbations.title_noise import TitleNoise
from data.histories import Histories
from methods.base import Requests
from tests.benchmarks.perturbed import HISTORY, NO_ITEMS, grades, is_subsequence, rng, seeds


@given(make=st.sampled_from(HISTORY), severity=grades, seed=seeds)
def test_histories_never_contain_a_candidate_or_an_item_twice(
    toy: Requests, make: Callable[[float], HistoryPerturbation], severity: float, seed: int
) -> None:
    after = make(severity).apply(toy, seed)
    for history, candidates in zip(after.histories, after.candidates, strict=True):
        assert not set(history.tolist()) & set(candidates.tolist())
        assert len(set(history.tolist())) == len(history)


@given(severity=grades, seed=seeds, n=st.integers(0, 10))
def test_shuffling_keeps_all_items(severity: float, seed: int, n: int) -> None:
    history = np.arange(n)
    assert np.sort(HistoryShuffle(severity).perturb(history, NO_ITEMS, rng(seed))).tolist() == history.tolist()
    assert history.tolist() == list(range(n)), "the request's own array is not written to"


@given(seed=seeds, n=st.integers(2, 10))
def test_a_full_shuffle_moves_every_item(seed: int, n: int) -> None:
    history = np.arange(n)
    assert (HistoryShuffle(1.0).perturb(history, NO_ITEMS, rng(seed)) != history).all()


def test_the_share_of_moved_items_is_the_severity_even_for_short_histories() -> None:
    history = np.arange(5)
    shuffled = [HistoryShuffle(0.1).perturb(history, NO_ITEMS, rng(seed)) for seed in range(2000)]
    assert np.mean([(row != history).mean() for row in shuffled]) == pytest.approx(0.1, abs=0.02)


@given(severity=grades, seed=seeds, n=st.integers(1, 10))
def test_dropping_keeps_the_order_and_at_least_one_item(severity: float, seed: int, n: int) -> None:
    kept = HistoryDrop(severity).perturb(np.arange(n), NO_ITEMS, rng(seed))
    assert is_subsequence(kept, np.arange(n))
    assert len(kept) >= 1
    assert severity < 1 or len(kept) == 1


@given(severity=grades, seed=seeds, n=st.integers(0, 10))
def test_injecting_keeps_the_history_and_takes_from_the_pool(severity: float, seed: int, n: int) -> None:
    history, pool = np.arange(n), np.arange(20, 40)
    longer = HistoryInject(severity).perturb(history, pool, rng(seed))
    assert is_subsequence(history, longer)
    assert set(longer.tolist()) - set(history.tolist()) <= set(pool.tolist())
    assert abs(len(longer) - n - severity * n) < 1


def test_injecting_reaches_every_place() -> None:
    rows = [HistoryInject(1.0).perturb(np.arange(1), np.arange(20, 40), rng(seed)) for seed in range(50)]
    assert {int(np.flatnonzero(row >= 20)[0]) for row in rows} == {0, 1}


def test_injecting_without_enough_items_is_an_error_that_says_why(toy: Requests) -> None:
    everything = np.broadcast_to(np.arange(toy.catalogue.n_items), (3, toy.catalogue.n_items))
    with pytest.raises(PerturbationError, match=r"6 items to insert, but only 0 .* use fewer negatives"):
        HistoryInject(1.0).apply(replace(toy, candidates=everything), 1)


@pytest.mark.parametrize("make", HISTORY)
def test_an_empty_history_stays_empty(make: Callable[[float], HistoryPerturbation]) -> None:
    assert make(1.0).perturb(NO_ITEMS, np.arange(3), rng()).tolist() == []


# titles


def test_an_item_is_called_the_same_in_every_prompt(toy: Requests) -> None:
    twins = replace(toy, histories=Histories.of([np.arange(6)] * 3), candidates=np.full((3, 5), 20))
    after = TitleNoise(0.3).apply(twins, 1)
    shown = [after.prompt("attribute", row).text for row in range(3)]
    assert len(set(shown)) == 1
    assert shown[0] != toy.prompt("attribute", 0).text


def test_two_items_with_one_title_are_misspelt_differently(toy: Requests) -> None:
    titles = ("Dead Man Walking",) * toy.catalogue.n_items
    after = TitleNoise(0.3).apply(replace(toy, catalogue=replace(toy.catalogue, titles=titles)), 1)
    assert len(set(after.catalogue.titles)) > 20


@given(title=st.text(min_size=1, max_size=20), severity=grades, seed=seeds)
def test_a_noisy_title_is_never_empty(title: str, severity: float, seed: int) -> None:
    assert TitleNoise(severity).perturb(title, rng(seed))


def test_a_title_of_one_letter_never_becomes_empty() -> None:
    assert all(TitleNoise(1.0).perturb("M", rng(seed)) for seed in range(20))


def test_title_noise_leaves_blanks_and_punctuation() -> None:
    shown = TitleNoise(1.0).perturb("... !?", rng())
    assert shown == "... !?"
    assert re.sub(r"\w", "", TitleNoise(1.0).perturb("When Harry Met Sally...", rng())) == "   ..."


@pytest.mark.parametrize("n", [1, 2, 5])
def test_dropping_all_keeps_one_item(n: int) -> None:
    assert {len(HistoryDrop(1.0).perturb(np.arange(n), NO_ITEMS, rng(seed))) for seed in range(20)} == {1}
