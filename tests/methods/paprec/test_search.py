"""The search accepts what its part of the evidence likes, stops where the other part loses, and spends its budget."""

import zlib

import numpy as np
import pytest

from methods.paprec.record import account
from methods.paprec.search import Gain, Kind, Search
from methods.paprec.surrogate import PERFECT

USERS, SHARED, OWN, WORDS, TOP = 6, 3, 2, 40, 5
POSITIONS = {"global": tuple(range(SHARED)), "user": tuple(range(SHARED, SHARED + OWN))}


class World:
    """Every word is worth something to a user at a position; triggers are worth the sum."""

    def __init__(self, seed=0, scale=0.1):
        self.worth = np.random.default_rng(seed).random((USERS, SHARED + OWN, WORDS)) * scale
        self.asked, self.seen = [], []

    def measure(self, tokens, asked):
        self.asked.append(asked.copy())
        values = self.worth[np.arange(USERS)[:, None], np.arange(tokens.shape[1])[None], tokens].sum(1)
        return np.where(asked, np.minimum(values, PERFECT), np.nan)

    def propose(self, tokens, position, each):
        rng = np.random.default_rng(zlib.crc32(tokens.tobytes() + bytes([position, each])))
        return rng.integers(WORDS, size=(USERS if each else 1, TOP))

    def search(self, names=("global", "user"), held=None, budget=1000, **changes):
        kinds = tuple(Kind(name, POSITIONS[name], name == "user", self.measure, held or self.measure) for name in names)
        settings = {"propose": self.propose, "rng": np.random.default_rng(3), "watch": self._watch, **changes}
        return Search(np.ones((USERS, SHARED + OWN), np.int64), kinds, budget=budget, **settings)

    def _watch(self, step, tokens):
        self.seen.append((step, tokens.copy()))


@pytest.fixture
def world():
    return World()


def values(world, tokens):
    return world.measure(tokens, np.ones(USERS, np.bool_))


def steps(world, start):
    """Every step with the triggers before and after it."""
    before = start
    for step, after in world.seen:
        yield step, before, after
        before = after


def test_no_step_lowers_the_value_it_accepts_on(world):
    search = world.search()
    start = search.tokens
    search.run()
    assert {step.kind for step, _ in world.seen} == {"global", "user"}
    for step, before, after in steps(world, start):
        change = values(world, after) - values(world, before)
        assert (change >= 0).all() if step.kind == "user" else change.mean() >= 0
    assert values(world, search.tokens).mean() > values(world, start).mean()


def test_a_step_changes_its_position_only_and_a_global_one_for_everybody(world):
    search = world.search()
    start = search.tokens
    search.run()
    for step, before, after in steps(world, start):
        assert set(np.flatnonzero((before != after).any(axis=0)).tolist()) <= {step.position}
        assert step.position in POSITIONS[step.kind]
        assert step.changed == (before != after).any(axis=1).sum()
    assert (search.tokens[:, :SHARED] == search.tokens[:1, :SHARED]).all()
    assert len(np.unique(search.tokens[:, SHARED:], axis=0)) > 1


def test_user_steps_change_only_the_users_that_improve(world):
    search = world.search(["user"])
    start = search.tokens
    search.run()
    changed = 0
    for _, before, after in steps(world, start):
        better = values(world, after) > values(world, before)
        np.testing.assert_array_equal((before != after).any(axis=1), better)
        changed += better.sum()
    assert changed > 0


def test_a_tie_is_no_improvement():
    search = World(scale=0.0).search()
    start = search.tokens.copy()
    search.run()
    np.testing.assert_array_equal(search.tokens, start)
    assert search.converged and search.evaluations == TOP * (SHARED + OWN)


def test_users_who_cannot_improve_are_not_asked_again():
    world = World()
    world.worth[2] += PERFECT
    search = world.search(["user"])
    search.run()
    candidates = [asked for asked in world.asked if not asked.all()]
    assert candidates and not any(asked[2] for asked in candidates)
    assert (search.tokens[2] == 1).all()


def test_users_without_evidence_keep_the_start_and_do_not_count(world):
    def partial(tokens, asked):
        return np.where(np.arange(USERS) < 4, World().measure(tokens, asked), np.nan)

    world.measure = partial
    search = world.search()
    search.run()
    assert (search.tokens[4:, SHARED:] == 1).all() and (search.tokens[:4, SHARED:] != 1).any()
    known = partial(search.tokens, np.ones(USERS, np.bool_))[:4].mean()
    total = sum(gain.search for gain in search.gains.values())
    assert total == pytest.approx(known - World().measure(np.ones_like(search.tokens), np.ones(USERS))[:4].mean())


def test_the_best_token_is_found_wherever_it_is_proposed(world):
    world.worth[:, 1, 17] = 0.3
    world.propose = lambda tokens, position, each: np.tile([8, 17, 9], (USERS if each else 1, 1))
    search = world.search(["global"])
    search.run()
    assert search.tokens[0, 1] == 17


def test_without_budget_the_prompt_is_the_one_to_start_with(world):
    search = world.search(budget=0)
    search.run()
    assert (search.tokens == 1).all() and not search.steps and search.evaluations == 0


@pytest.mark.parametrize("budget", [1, 7, 12])
def test_the_budget_is_never_exceeded(world, budget):
    search = world.search(budget=budget)
    search.run()
    assert search.evaluations == budget and not search.converged


def test_it_stops_when_a_round_of_each_kind_brings_nothing(world):
    search = world.search()
    search.run()
    assert search.converged
    last = search.steps[-1].round
    assert {step.kind for step in search.steps if step.round == last and not step.changed} == {"global", "user"}
    assert not any(step.changed for step in search.steps if step.round == last)


def test_a_round_the_held_out_part_loses_by_is_undone_and_the_last_of_its_kind(world):
    held = World(seed=9)
    held.worth[:, :, 1] += 5.0
    held.measure = lambda tokens, asked: held.worth[np.arange(USERS)[:, None], np.arange(5)[None], tokens].sum(1)
    search = world.search(["user"], held=held.measure)
    search.run()
    assert (search.tokens == 1).all() and {step.round for step in search.steps} == {1}
    lost = search.undone["user"]
    assert lost.search > 0 > lost.held and search.gains["user"] == Gain()


def test_where_nobody_is_held_out_no_round_stays(world):
    search = world.search(held=lambda tokens, asked: np.full(USERS, np.nan))
    search.run()
    assert (search.tokens == 1).all() and set(search.undone) == {"global", "user"} and search.converged
    assert all("where searched, nothing held out undone" in line for line in list(account(search))[:2])


def test_a_round_the_held_out_part_neither_gains_nor_loses_by_stays(world):
    search = world.search(["user"], held=lambda tokens, everybody: np.zeros(USERS))
    search.run()
    assert not search.undone and (search.tokens[:, SHARED:] != 1).any()


def test_a_round_that_is_undone_leaves_what_earlier_ones_have_brought(world):
    asked = []

    def held(tokens, everybody):
        """1 after the first round, and 0 before and after the second."""
        asked.append(tokens)
        return np.full(USERS, float(np.array_equal(tokens, asked[0])))

    search = world.search(["user"], held=held)
    start = search.tokens
    search.run()
    first = [tokens for step, tokens in world.seen if step.round == 1][-1]
    np.testing.assert_array_equal(search.tokens, first)
    change = values(world, first).mean() - values(world, start).mean()
    assert search.gains["user"].search == pytest.approx(change) and search.gains["user"].held == 1.0
    assert search.undone["user"].search > 0 and search.undone["user"].held == -1.0
    assert {step.undone for step in search.steps if step.round == 1} == {False}
    assert {step.undone for step in search.steps if step.round == 2} == {True}


def test_the_other_kind_goes_on(world):
    worst = {"global": World().measure, "user": lambda tokens, asked: (tokens[:, SHARED:] == 1).mean(1)}
    kinds = tuple(Kind(name, POSITIONS[name], name == "user", world.measure, worst[name]) for name in POSITIONS)
    search = world.search()
    search.kinds = kinds
    search.run()
    assert search.undone.keys() == {"user"}
    assert (search.tokens[:, SHARED:] == 1).all() and (search.tokens[:, :SHARED] != 1).any()
    assert max(step.round for step in search.steps if step.kind == "global") > 1


def test_gains_are_those_of_both_parts(world):
    search = world.search()
    start = values(world, search.tokens).mean()
    search.run()
    total = sum(gain.search for gain in search.gains.values())
    assert total == pytest.approx(values(world, search.tokens).mean() - start)
    assert total == pytest.approx(sum(gain.held for gain in search.gains.values()))


def test_tokens_tried_are_counted_per_user_and_time_is_that_of_the_whole_search(world, monkeypatch):
    now = iter(range(1000))
    monkeypatch.setattr("methods.paprec.search.time.perf_counter", lambda: float(next(now)))
    world.worth[2] += PERFECT
    search = world.search(["user"], budget=7)
    search.run()
    assert [step.tried for step in search.steps] == [TOP * (USERS - 1), 7 * (USERS - 1)]
    assert [step.seconds for step in search.steps] == [1.0, 2.0] and search.seconds == 3.0


def test_a_candidate_costs_one_call_for_all_users(world):
    search = world.search(["user"], budget=2 * TOP)
    search.run()
    assert len(world.asked) == 1 + 2 * TOP + 2  # what the round starts with, the candidates, twice the held-out part


def test_the_same_draws_give_the_same_triggers():
    found = []
    for _ in range(2):
        search = World().search()
        search.run()
        found.append(search.tokens)
    np.testing.assert_array_equal(*found)
