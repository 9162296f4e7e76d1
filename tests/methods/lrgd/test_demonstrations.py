"""Demonstrations are stretches of training histories, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.protocol import Protocol, prepare
from data.histories import Histories
from methods.base import Compute
from methods.lrgd.demonstrations import (
    FADING,
    Demonstration,
    LeakError,
    Neighbours,
    PoolSize,
    check_from_training,
    own_pool,
    pool,
    training_queries,
)
from methods.ranks import mid_rank, ndcg
from methods.registry import create

TRAIN = Histories.of([np.array([1, 2, 3, 4, 5]), np.array([2, 3, 9, 4]), np.array([7, 8, 2, 3, 6]), np.array([5])])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 5))
def test_a_pool_holds_stretches_of_training_histories_only(seed, shown, length):
    rng = np.random.default_rng(seed)
    train = Histories.of(rng.permutation(30)[: rng.integers(1, 15)] for _ in range(12))
    neighbours = Neighbours(train, 30)
    for user in range(12):
        end = int(rng.integers(1, len(train[user]) + 1))
        found = pool(neighbours, user, end, length, PoolSize(4, 4, shown))
        check_from_training(found, train)
        recent = set(train[user][max(0, end - length) :].tolist())
        assert all(recent.isdisjoint(one.items) for one in found if one.user == user)
        known = set(train[user][:end].tolist())
        assert all(one.choice not in known for one in found if one.user != user)


@pytest.mark.parametrize(
    "changed", [{"choice": 6}, {"history": (2, 4)}, {"user": 3}, {"history": (3, 2)}, {"history": (11, 3)}]
)
def test_what_is_not_a_training_stretch_is_a_leak(changed):
    good = Demonstration(0, (2, 3), 4)
    check_from_training([good], TRAIN)
    with pytest.raises(LeakError, match="not a stretch of the training history of user"):
        check_from_training([good, replace(good, **changed)], TRAIN)


def test_own_stretches_come_latest_first_and_share_no_choice():
    found = own_pool(np.arange(20), 0, 12, PoolSize(own=3, shown=3))
    assert [(one.history, one.choice) for one in found] == [((8, 9, 10), 11), ((4, 5, 6), 7), ((0, 1, 2), 3)]


def test_neighbours_show_the_choices_with_most_evidence_the_best_first():
    found = Neighbours(TRAIN, 10).pool(0, np.array([2, 3]), np.array([1, 2, 3]), PoolSize(0, 2, 2))
    assert [(one.user, one.history, one.choice) for one in found] == [(1, (2, 3), 9), (2, (2, 3), 6)]
    later = Neighbours(TRAIN, 10).pool(0, np.array([3, 8]), np.array([1, 2, 3]), PoolSize(0, 9, 1))
    assert [(one.user, one.history, one.choice) for one in later] == [(2, (3,), 6), (1, (3,), 9)]


def test_evidence_is_that_of_its_definition():
    rng = np.random.default_rng(1)
    train = Histories.of(rng.permutation(20)[: rng.integers(1, 9)] for _ in range(15))
    latest, shown = rng.permutation(20)[:4], 3
    weight = dict(zip(latest.tolist(), FADING ** np.arange(4)[::-1], strict=True))
    count = np.bincount(train.items, minlength=20)
    expected = []
    for user, row in enumerate(train):
        similar = sum(weight.get(item, 0) for item in row.tolist()) / np.sqrt(len(row))
        for at in range(len(row)):
            shared = sum(weight.get(item, 0) / np.sqrt(count[item]) for item in row[max(0, at - shown) : at].tolist())
            expected.append(similar * shared * (user != 6))
    np.testing.assert_allclose(Neighbours(train, 20).evidence(6, latest, shown), expected, atol=1e-12)
    assert max(expected) > 0


@pytest.mark.parametrize(("fading", "quality"), [(FADING, 0.370), (1.0, 0.345)])
def test_evidence_alone_ranks_better_where_later_items_count_more(monkeypatch, fading, quality):
    pytest.importorskip("recbole")
    monkeypatch.setattr("methods.lrgd.demonstrations.FADING", fading)
    task = prepare("ml-100k", Protocol(), {}).task(Compute())
    method = create("lrgd/no-model")
    method.fit(task, 0)
    assert ndcg(mid_rank(method.score(task.valid), task.valid_positive)).mean() == pytest.approx(quality, abs=5e-4)


def test_without_evidence_nothing_is_shown():
    assert Neighbours(TRAIN, 10).pool(0, np.array([1]), np.array([1]), PoolSize()) == []


def test_training_queries_reach_every_position_with_enough_before_it():
    queries = training_queries(TRAIN, np.random.default_rng(0))
    seen = {next(queries) for _ in range(300)}
    assert seen == {(0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (2, 2), (2, 3), (2, 4)}
    with pytest.raises(ValueError, match="no user has more than 2 training items"):
        next(training_queries(Histories.of(row[:2] for row in TRAIN), np.random.default_rng(0)))
