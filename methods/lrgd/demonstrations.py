"""Demonstrations: stretches of training histories and the choice that came next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse

from data.histories import Histories
from data.types import FloatArray, IntArray

Strategy = Literal["effect", "random", "recent", "similar"]
"""How demonstrations are selected, see :class:`methods.lrgd.selection.Selection`."""
Order = Literal["removal", "update"]
"""First-order effects, see :mod:`methods.lrgd.effect`."""


class LeakError(ValueError):
    """A demonstration shows what is not part of the training data."""


@dataclass(frozen=True)
class Demonstration:
    """What one user chose, and what next.

    Args:
        user: whose behaviour it is.
        history: items, oldest first.
        choice: the item that came next.
    """

    user: int
    history: tuple[int, ...]
    choice: int

    @property
    def items(self) -> frozenset[int]:
        """All items it shows."""
        return frozenset((*self.history, self.choice))


def overlap(one: Demonstration, other: Demonstration) -> float:
    """Jaccard similarity of the items of two demonstrations.

    >>> overlap(Demonstration(0, (1, 2), 3), Demonstration(5, (2, 3), 4))
    0.5
    """
    return len(one.items & other.items) / len(one.items | other.items)


def check_from_training(demonstrations: Sequence[Demonstration], train: Histories) -> None:
    """Check that every demonstration is a stretch of its user's training history, in that order.

    The training part holds neither validation nor test items of the user, so neither do demonstrations.

    Raises:
        LeakError: naming the first demonstration that is not.
    """
    for one in demonstrations:
        row, shown = train[one.user].tolist(), [*one.history, one.choice]
        start = row.index(shown[0]) if shown[0] in row else -1
        if start < 0 or row[start : start + len(shown)] != shown:
            raise LeakError(f"{one} is not a stretch of the training history of user {one.user}")


FADING = 0.8
"""Weight of an item of the user relative to the next later one.

Ranking the validation lists of ml-100k by evidence alone, without a model, gives NDCG@10 0.370 with it and 0.345 with
1: ``python -m pytest tests/methods/lrgd/test_demonstrations.py -k evidence_alone`` measures both."""


@dataclass(frozen=True)
class PoolSize:
    """How many demonstrations there are to choose from for a user.

    Args:
        own: of the user's own earlier behaviour.
        others: of similar users, each ending in another choice.
        shown: history items of a demonstration.
    """

    own: int = 4
    others: int = 12
    shown: int = 3


def stretch(row: IntArray, user: int, at: int, shown: int) -> Demonstration:
    """The demonstration whose choice is at a position of a training history."""
    return Demonstration(user, tuple(row[max(0, at - shown) : at].tolist()), int(row[at]))


def own_pool(row: IntArray, user: int, end: int, size: PoolSize) -> list[Demonstration]:
    """Stretches of the user's own history before a position, the latest first, sharing no choice.

    Args:
        row: the user's training history.
        user: the user.
        end: only items before this position are shown.
        size: how many, and how long.
    """
    places = range(end - 1, 0, -(size.shown + 1))
    return [stretch(row, user, at, size.shown) for at in list(places)[: size.own]]


class Neighbours:
    """Stretches of other users' training histories that resemble what a user chose last."""

    def __init__(self, train: Histories, n_items: int) -> None:
        self.train = train
        self._owner = train.rows()
        counts = np.bincount(train.items, minlength=n_items)
        self._rarity = 1 / np.sqrt(np.maximum(counts, 1))
        scale = 1 / np.sqrt(np.maximum(train.lengths, 1))
        pairs = np.unique(np.stack([self._owner, train.items]), axis=1)
        self._chosen = sparse.csr_array((scale[pairs[0]], tuple(pairs)), shape=(len(train), n_items))

    def evidence(self, user: int, latest: IntArray, shown: int) -> FloatArray:
        """How much the stretch that ends in each training event speaks for what the user chooses next.

        What its history shares with the user's latest items (later and rarer items count more), times the
        similarity of its user to these items (their cosine, but for a factor); 0 for the user's own.

        Args:
            user: the user.
            latest: the user's latest items, oldest first.
            shown: history items of a stretch.

        Returns:
            Shape ``[training events]``.
        """
        weights = np.zeros(len(self._rarity))
        weights[latest] = FADING ** np.arange(len(latest))[::-1]
        worth = (weights * self._rarity)[self.train.items]
        shared = np.zeros(len(worth))
        for back in range(1, shown + 1):
            shared[back:] += worth[:-back] * (self._owner[back:] == self._owner[:-back])
        evidence: FloatArray = shared * (self._chosen @ weights)[self._owner]
        evidence[self._owner == user] = 0.0
        return evidence

    def support(self, evidence: FloatArray) -> FloatArray:
        """All evidence for every item, shape ``[items]``."""
        return np.bincount(self.train.items, evidence, len(self._rarity)).astype(np.float64)

    def pool(self, user: int, latest: IntArray, known: IntArray, size: PoolSize) -> list[Demonstration]:
        """Stretches that end in the choices with most evidence, each choice shown by its best one; best first.

        Args:
            user: the user.
            latest: the latest items of the user, oldest first.
            known: all items of the user; none of them is a choice.
            size: how many, and how long.
        """
        evidence = self.evidence(user, latest, size.shown)
        support = self.support(evidence)
        support[known] = 0.0
        best = np.argsort(-support, kind="stable")[: size.others]
        return [self._shown(choice, evidence, size.shown) for choice in best[support[best] > 0].tolist()]

    def _shown(self, choice: int, evidence: FloatArray, shown: int) -> Demonstration:
        """The stretch with most evidence that ends in a choice."""
        events = np.flatnonzero(self.train.items == choice)
        event = int(events[np.argmax(evidence[events])])
        user = int(self._owner[event])
        return stretch(self.train[user], user, event - int(self.train.offsets[user]), shown)


def pool(neighbours: Neighbours, user: int, end: int, length: int, size: PoolSize) -> list[Demonstration]:
    """Demonstrations to choose from for a user at a point of the user's training history.

    Args:
        neighbours: similar users.
        user: the user.
        end: only the user's own items before this position are used; the stretches come before the
            ``length`` items that a prompt shows as history.
        length: history items of the prompt.
        size: how many.
    """
    row = neighbours.train[user]
    recent = row[max(0, end - length) : end]
    own = own_pool(row, user, max(0, end - length), size)
    return own + neighbours.pool(user, recent, row[:end], size)


def training_queries(train: Histories, rng: np.random.Generator, shortest: int = 2) -> Iterator[tuple[int, int]]:
    """Users and positions in their training histories to predict, without end; long histories come more often.

    Raises:
        ValueError: if no user has more than ``shortest`` items.
    """
    users = np.repeat(np.arange(len(train)), np.maximum(train.lengths - shortest, 0))
    if not len(users):
        raise ValueError(f"no user has more than {shortest} training items: there is nothing to learn to answer")
    while True:
        for user in users[rng.permutation(len(users))].tolist():
            yield user, int(rng.integers(shortest, len(train[user])))
