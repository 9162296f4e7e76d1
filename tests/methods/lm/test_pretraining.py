"""What embedded backbones teach themselves."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from methods.lm.pretraining import LARGEST_ODDS, UNREAD, Material, blanked, own_odds, self_taught
from tests.methods.lm.small import TEMPLATES

ITEMS = np.array([3, 0, 3])


def material(task, often):
    return Material(task.catalogue, task.train, TEMPLATES, often)


def never():
    raise AssertionError("asked for titles without a history")


def test_titles_known_by_heart_are_as_probable_as_their_items(task):
    titles = torch.log(torch.tensor([0.5, 0.01, 1e-9]))
    odds = own_odds(titles, ITEMS, material(task, 0.0), never)
    items = task.catalogue.n_items
    expected = [math.log(0.5 * items), math.log(0.01 * items), -LARGEST_ODDS]
    np.testing.assert_allclose(odds.numpy(), expected, rtol=1e-6)


def test_of_rare_titles_what_they_are_worth_without_a_history_is_taken_off(task):
    titles, alone = torch.tensor([-30.0, -40.0, -41.0]), torch.tensor([-32.0, -39.5, -32.0])
    odds = own_odds(titles, ITEMS, material(task, 1000.0), lambda: alone)
    counts = np.bincount(task.train.items, minlength=task.catalogue.n_items) + 1
    popularity = np.log(counts / counts.mean())[ITEMS]
    expected = [2 + popularity[0], -0.5 + popularity[1], -LARGEST_ODDS]
    np.testing.assert_allclose(odds.numpy(), expected, rtol=1e-5)


def test_what_a_backbone_teaches_itself_has_no_gradient(task):
    titles = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    for often in (0.0, 1000.0):
        assert not own_odds(titles, ITEMS, material(task, often), lambda: titles).requires_grad


@pytest.mark.parametrize(("often", "by_heart"), [(14.0, True), (16.0, False)])
def test_how_often_items_are_chosen_says_whether_titles_are_known_by_heart(task, often, by_heart):
    mean = len(task.train.items) / len(np.unique(task.train.items))
    assert mean == pytest.approx(15.0)
    assert material(task, often).by_heart is by_heart


def test_what_is_taught_is_own_odds_and_the_bit():
    guess, target, chosen = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 1.0]), torch.tensor([True, False])
    bits = float(binary_cross_entropy_with_logits(guess, chosen.float()))
    assert float(self_taught(guess, target, chosen, 0.3)) == pytest.approx(0.2 * (4 + 9) / 2 + 0.3 * bits)


def test_half_of_the_wordings_lose_words():
    rng = np.random.default_rng(0)
    share = np.mean([UNREAD in blanked(TEMPLATES[0], rng).source for _ in range(400)])
    assert 0.2 < share < 0.5  # some that could lose words lose none
