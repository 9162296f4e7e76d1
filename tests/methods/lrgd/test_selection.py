"""Which demonstrations a user gets."""

from dataclasses import replace
from functools import partial
from itertools import permutations, product

import numpy as np
import pytest

from methods.lrgd.demonstrations import Demonstration, PoolSize, check_from_training
from methods.lrgd.effect import first_order_effects
from methods.lrgd.icl import Query, encode
from methods.lrgd.selection import Selection, Selector, spread
from tests.methods.lrgd.world import DEMONSTRATE, make_decoder, make_encoder, make_world

SIZE = PoolSize(own=2, others=4, shown=2)


@pytest.fixture
def selector(tmp_path):
    encoder = make_encoder(400)
    task, model = make_world(tmp_path), make_decoder(encoder)

    def make(strategy="effect", seed=0, **settings) -> Selector:
        return Selector(task, model, encoder, Selection(strategy, size=SIZE, **settings), seed)

    return make


@pytest.mark.parametrize("strategy", ["effect", "random", "recent", "similar"])
def test_a_user_gets_training_stretches_and_the_same_ones_again(selector, strategy):
    one = selector(strategy, shots=3, targets=1)
    for user in (5, 0, 7):
        chosen = one.demonstrations(user)
        check_from_training(chosen, one.task.train)
        assert 0 < len(chosen) <= 3 and len(set(chosen)) == len(chosen)
        assert chosen == selector(strategy, shots=3, targets=1).demonstrations(user)


def test_recent_ones_are_the_users_own_and_similar_ones_those_of_others(selector):
    assert {one.user for one in selector("recent", targets=1).demonstrations(4)} == {4}
    assert 4 not in {one.user for one in selector("similar", targets=1).demonstrations(4)}


def test_all_strategies_choose_from_one_pool(selector):
    for user in range(8):
        found = set(selector("effect", targets=2).effects(user)[0])
        recent, similar, random = (
            set(selector(strategy, targets=2).demonstrations(user, 99)) for strategy in ("recent", "similar", "random")
        )
        assert random == recent | similar == found


def test_demonstrations_that_do_not_fit_into_one_prompt_are_measured_in_several(selector, monkeypatch):
    one = selector("effect", targets=1)
    together = one.effects(6)[1]
    assert together.all()
    monkeypatch.setattr(one.encoder, "window", 60)
    shown = []

    def measure(model, prompt):
        shown.append(int(prompt.owner.max()) + 1)
        return np.ones(shown[-1])

    found, effects = one.effects(6, measure)
    assert len(shown) > 1 and sum(shown) == len(found) == len(together) and effects.all()
    monkeypatch.setattr(one.encoder, "window", 20)
    assert not one.effects(6, measure)[1].any()


def test_a_demonstration_that_is_too_long_keeps_no_other_from_being_measured(selector, monkeypatch):
    for user in range(6, 12):
        one = selector("effect", targets=1)
        shown = {*one.task.train[user].tolist()}
        found, _ = one.effects(user)
        long = next(item for d in found for item in d.items if item not in shown)
        titles = tuple(t if n != long else " ".join([t] * 99) for n, t in enumerate(one.task.catalogue.titles))
        one.task = replace(one.task, catalogue=replace(one.task.catalogue, titles=titles))
        monkeypatch.setattr(one.encoder, "window", 150)
        _, effects = one.effects(user, lambda _, prompt: np.ones(prompt.demonstrations))
        assert [bool(effect) for effect in effects] == [long not in demonstration.items for demonstration in found]


def test_random_ones_depend_on_the_seed_and_not_on_who_was_asked_for_before(selector):
    drawn = [selector("random", seed=seed).demonstrations(3) for seed in range(6)]
    assert len(set(drawn)) > 1
    other = selector("random", seed=0)
    other.demonstrations(9)
    assert other.demonstrations(3) == drawn[0]


def test_without_shots_there_are_none(selector):
    assert selector("effect", shots=0).demonstrations(3) == ()


def test_no_demonstration_gives_away_a_pseudo_target(selector):
    for user in range(10):
        one = selector("effect", targets=2)
        found, effects = one.effects(user)
        assert len(found) == len(effects) and np.isfinite(effects).all()
        assert all(one.items.isdisjoint(set(selector().task.train[user][-2:].tolist())) for one in found)


def test_effects_belong_to_the_demonstrations_they_are_listed_with(selector):
    one = selector("effect", targets=1)
    found, effects = one.effects(6)
    assert np.std(effects) > 0 and len(found) <= 5  # so few that all orders can be tried
    row = one.task.train[6]
    history = tuple(row[:-1][-one.task.history_length :].tolist())
    titles = one.task.catalogue.titles

    def expected(template, order):
        query = Query(template, one.task.catalogue, history, tuple(found[n] for n in order))
        prompt = encode(one.encoder, query, [titles[row[-1]]])
        values = np.empty(len(found))
        values[list(order)] = first_order_effects(one.model, prompt.shown())
        return values

    orders = product(DEMONSTRATE, permutations(range(len(found))))
    assert any(np.allclose(effects, expected(template, order), atol=1e-5) for template, order in orders)


def test_effects_are_means_over_the_latest_items_each_behind_what_came_before(selector):
    one, asked = selector("effect", targets=2), []
    decode = one.encoder.tokenizer.decode

    def measure(_, prompt):
        asked.append((decode(prompt.ids[prompt.owner < 0]), decode(prompt.ids[-prompt.answer :])))
        return np.full(prompt.demonstrations, float(len(asked)))

    assert (one.effects(3, measure)[1] == 1.5).all()
    titles = [one.task.catalogue.titles[item] for item in one.task.train[3].tolist()]
    assert [answer for _, answer in asked] == titles[-2:]
    for at, (text, answer) in zip((-2, -1), asked, strict=True):
        history = ", ".join(titles[:at][-one.task.history_length :])
        assert history in text and answer not in text.removesuffix(answer)


def test_effects_are_of_the_order_that_is_set(selector):
    update = selector("effect", order="update").effects(3)[1]
    assert np.array_equal(selector().effects(3, partial(first_order_effects, order="update"))[1], update)
    assert not np.allclose(selector().effects(3)[1], update)


def test_the_best_demonstration_stands_next_to_the_question(selector):
    one = selector("effect", shots=2, redundancy=0.0)
    found, effects = one.effects(8)
    best = np.argsort(-effects)[:2]
    assert one.demonstrations(8) == (found[best[1]], found[best[0]])


def test_redundancy_trades_effect_for_variety():
    same = [Demonstration(0, (1, 2), 3), Demonstration(1, (1, 2), 3), Demonstration(2, (7, 8), 9)]
    values = np.array([1.0, 0.9, 0.1])
    assert spread(values, same, 2, redundancy=0.0) == [0, 1]
    assert spread(100 * values, same, 2, redundancy=3.0) == spread(values, same, 2, redundancy=3.0) == [0, 2]
    assert spread(values, same, 2, redundancy=10.0) == [0, 2]
    assert spread(values, same, 9, redundancy=0.0) == [0, 1, 2]
    assert spread(np.empty(0), [], 2, redundancy=1.0) == []
