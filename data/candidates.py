"""The items every method has to rank: one positive, and negatives that no part has of the user.

Touched means a positive of any part. What a user rated below the least rating of a positive is not, and may be a
negative: on ml-100k that holds for one negative in twenty.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from data.dataset import Dataset
from data.errors import InputError
from data.fingerprint import fingerprint
from data.random import generator
from data.types import BoolArray, IntArray

Part = Literal["valid", "test"]


class CandidateError(InputError):
    """No candidate lists of the requested kind exist for this data set."""


@dataclass(frozen=True)
class Candidates:
    """Candidate lists, one row per evaluated user; nobody can write into the arrays, which all methods share.

    Args:
        users: dense user indices, shape ``[rows]``.
        items: dense item indices, shape ``[rows, candidates]``.
        positive: column of the positive, shape ``[rows]``.
        mask: False where a column does not compete because the user touched the item (full ranking);
            None where all columns compete, shape ``[rows, candidates]``.
    """

    users: IntArray
    items: IntArray
    positive: IntArray
    mask: BoolArray | None = None

    def __post_init__(self) -> None:
        for array in (self.users, self.items, self.positive, self.mask):
            if array is not None:
                array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.users)

    @property
    def targets(self) -> IntArray:
        """The positive item of every row, shape ``[rows]``."""
        return np.take_along_axis(self.items, self.positive[:, None], axis=1)[:, 0]

    @cached_property
    def competing(self) -> IntArray:
        """Number of competing candidates per row, shape ``[rows]``."""
        counts = np.full(len(self), self.items.shape[1]) if self.mask is None else self.mask.sum(axis=1)
        counts.setflags(write=False)
        return counts

    def select(self, rows: IntArray) -> "Candidates":
        """The given rows, in the given order."""
        mask = None if self.mask is None else self.mask[rows]
        return Candidates(self.users[rows], self.items[rows], self.positive[rows], mask)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the lists."""
        return fingerprint(self.users, self.items, self.positive)


def sampled(
    dataset: Dataset, targets: IntArray, users: IntArray, part: Part, seed: int, negatives: int = 99
) -> Candidates:
    """One positive and ``negatives`` items drawn uniformly from those the user never touched in any part.

    Each user's draw depends on (data set, part, seed, user id) alone, so that a sample of users gets the
    same lists as all users. Columns are shuffled: position tells nothing.

    Args:
        dataset: all interactions, to know what a user touched.
        targets: positive item of every user, shape ``[users of the data set]``.
        users: users to draw for, shape ``[rows]``.
        part: which part the positives belong to.
        seed: seed of the draw.
        negatives: negatives per list.

    Raises:
        CandidateError: if a user has fewer than ``negatives`` untouched items, or none.
    """
    items = np.empty((len(users), negatives + 1), np.int64)
    positive = np.empty(len(users), np.int64)
    for row, user in enumerate(users.tolist()):
        user_id = dataset.catalogue.user_ids[user]
        untouched = np.setdiff1d(np.arange(dataset.catalogue.n_items), dataset.histories[user], assume_unique=True)
        if not len(untouched):
            raise _alone(dataset, user)
        if len(untouched) < negatives:
            raise CandidateError(
                f"{dataset.name}: user {user_id!r} has {len(untouched)} untouched items, fewer than the {negatives} "
                "negatives asked for; give fewer with --negatives, or --negatives full"
            )
        rng = generator(seed, "candidates", part, dataset.name, user_id)
        items[row, :negatives] = rng.choice(untouched, negatives, replace=False)
        positive[row] = rng.integers(negatives + 1)
        items[row, negatives] = items[row, positive[row]] if positive[row] < negatives else targets[user]
        items[row, positive[row]] = targets[user]
    return Candidates(users, items, positive)


def full(dataset: Dataset, targets: IntArray, users: IntArray) -> Candidates:
    """Every item of the catalogue in a row; items the user touched in any part do not compete.

    Raises:
        CandidateError: if a user has touched every item.
    """
    items = np.broadcast_to(np.arange(dataset.catalogue.n_items), (len(users), dataset.catalogue.n_items))
    mask = np.ones(items.shape, np.bool_)
    for row, user in enumerate(users.tolist()):
        mask[row, dataset.histories[user]] = False
    mask[np.arange(len(users)), targets[users]] = True
    lists = Candidates(users, items, targets[users], mask)
    if (lists.competing == 1).any():
        raise _alone(dataset, int(users[lists.competing.argmin()]))
    return lists


def _alone(dataset: Dataset, user: int) -> CandidateError:
    who = f"{dataset.name}: user {dataset.catalogue.user_ids[user]!r}"
    return CandidateError(f"{who} has touched every item: there is none to rank beside the positive")
