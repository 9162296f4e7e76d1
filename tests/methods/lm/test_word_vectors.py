"""Words of titles that are chosen together get vectors that point the same way."""

import numpy as np

from data.histories import Histories
from methods.lm.word_vectors import word_vectors

WORDS = [[0, 1], [0, 2], [3, 4], [3, 5], [6]]


def histories():
    rng = np.random.default_rng(0)
    return Histories.of(rng.permutation([0, 1] if row % 2 else [2, 3]) for row in range(40))


def test_words_that_meet_are_near_and_others_are_not():
    vectors = word_vectors(WORDS, histories(), 8, 4)
    unit = vectors[:6] / np.linalg.norm(vectors[:6], axis=1, keepdims=True)
    near = unit @ unit.T
    same = np.arange(6)[:, None] // 3 == np.arange(6) // 3
    assert near[same].min() > near[~same].max() + 0.3


def test_words_nobody_met_have_none():
    vectors = word_vectors(WORDS, histories(), 8, 4)
    assert not vectors[6:].any() and vectors[:6].any(axis=1).all()
    assert np.isclose(vectors[:6].std(), 1)


def test_they_are_the_same_every_time():
    np.testing.assert_array_equal(*(word_vectors(WORDS, histories(), 8, 4) for _ in range(2)))


def test_histories_of_one_item_give_none():
    assert not word_vectors(WORDS, Histories.of([np.array([0]), np.array([1])]), 8, 4).any()
