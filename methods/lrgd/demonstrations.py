"""Demonstrations: stretches of training histories and the choice that came next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data.histories import Histories
from data.types import BoolArray, IntArray


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


@dataclass(frozen=True)
class PoolSize:
    """How many demonstrations there are to choose from for a user.

    Args:
        own: of the user's own earlier behaviour.
        others: of similar users, one each.
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
    """Similar users by the cosine of their sets of training items."""

    def __init__(self, train: Histories, n_items: int) -> None:
        self.train = train
        chosen = np.zeros((len(train), n_items), np.float32)
        chosen[train.rows(), train.items] = 1.0
        self._chosen = chosen / np.sqrt(np.maximum(chosen.sum(1, keepdims=True), 1.0))

    def similar(self, user: int, items: IntArray, number: int) -> IntArray:
        """The users whose histories are most similar to a set of items, ties by their order; never the user."""
        query = np.zeros(self._chosen.shape[1], np.float32)
        query[items] = 1.0
        order = np.argsort(-(self._chosen @ query), kind="stable")
        others: IntArray = order[order != user][:number]
        return others

    def pool(self, user: int, shown: IntArray, known: IntArray, size: PoolSize) -> list[Demonstration]:
        """One stretch of each similar user, no choice twice, those of the most similar users first.

        Of all stretches of a similar user, the one is taken that shares most with what the user is shown to
        have chosen and whose choice most similar users have, both counted alike; ties go to the latest. Its
        choice is an item the user does not have yet.

        Args:
            user: the user.
            shown: the latest items of the user.
            known: all items of the user; none of them is a choice.
            size: how many, and how long.
        """
        similar = self.similar(user, shown, max(CROWD, 2 * size.others))
        support = (self._chosen[similar] > 0).sum(0)
        closed = np.zeros(len(support), np.bool_)
        closed[known] = True
        found: list[Demonstration] = []
        for other in similar[: 2 * size.others].tolist():
            row = self.train[other]
            at = _best_place(np.isin(row, shown), support[row], closed[row], size.shown)
            if at is not None and len(found) < size.others:
                found.append(stretch(row, other, at, size.shown))
                closed[row[at]] = True
        return found


CROWD = 50
"""Similar users who are asked what they have; only twice as many as are wanted show something."""


def _best_place(shared: BoolArray, support: IntArray, closed: BoolArray, shown: int) -> int | None:
    """Position of the choice of the best stretch of a history, None if there is no open item behind any."""
    before = np.concatenate([[0], np.cumsum(shared)])
    at = np.arange(1, len(shared))
    worth = np.where(closed[1:], -1, before[at] - before[np.maximum(0, at - shown)] + support[1:])
    if not len(at) or worth.max() < 0:
        return None
    return int(at[len(worth) - 1 - np.argmax(worth[::-1])])


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


def clash(one: Demonstration, items: Sequence[int]) -> bool:
    """Whether a demonstration shows one of some items."""
    return not one.items.isdisjoint(items)


def training_queries(train: Histories, rng: np.random.Generator, shortest: int = 2) -> Iterator[tuple[int, int]]:
    """Users and positions in their training histories to predict, without end; long histories come more often."""
    users = np.repeat(np.arange(len(train)), np.maximum(train.lengths - shortest, 0))
    while True:
        for user in users[rng.permutation(len(users))].tolist():
            yield user, int(rng.integers(shortest, len(train[user])))
