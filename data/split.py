"""Which interactions are trained on, tuned on and tested on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data.dataset import Dataset
from data.errors import InputError
from data.fingerprint import fingerprint
from data.histories import Histories
from data.types import IntArray


class SplitError(InputError):
    """The data set cannot be split as asked."""


@dataclass(frozen=True)
class Split:
    """Train history, validation item and test item of every user.

    Args:
        train: items to train on, one row per user, oldest first.
        valid: validation item per user, -1 where the user has none, shape ``[users]``.
        test: test item per user, -1 where the user has none, shape ``[users]``.
        notes: what was left out, one sentence each.
        shown: items of each user before the test item, oldest first; None for train and validation part.
    """

    train: Histories
    valid: IntArray
    test: IntArray
    notes: tuple[str, ...] = ()
    shown: Histories | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the three parts, and of what is shown where it is more than two of them."""
        return fingerprint(self.train, self.valid, self.test, *([] if self.shown is None else [self.shown]))

    @property
    def test_users(self) -> IntArray:
        """Users that have a test item and something to show before it."""
        return np.flatnonzero((self.test >= 0) & (self.test_histories.lengths > 0))

    @property
    def valid_users(self) -> IntArray:
        """Users that have a validation item and something to show before it."""
        return np.flatnonzero((self.valid >= 0) & (self.train.lengths > 0))

    @cached_property
    def test_histories(self) -> Histories:
        """What may be shown to a model that is asked for the test item."""
        return self.train.append(self.valid) if self.shown is None else self.shown


def leave_one_out(dataset: Dataset) -> Split:
    """The last item of every user is the test item, the last but one the validation item.

    Raises:
        SplitError: if a user has fewer than three interactions.
    """
    lengths = dataset.histories.lengths
    if (lengths < 3).any():
        user = int(np.argmax(lengths < 3))
        raise SplitError(
            f"{dataset.name}: user {dataset.catalogue.user_ids[user]!r} has {lengths[user]} interactions; "
            "leave-one-out needs at least 3 (raise --min-count)"
        )
    rows = list(dataset.histories)
    return Split(
        train=Histories.of(row[:-2] for row in rows),
        valid=np.array([row[-2] for row in rows]),
        test=np.array([row[-1] for row in rows]),
    )


def temporal(dataset: Dataset, valid_share: float = 0.1, test_share: float = 0.1) -> Split:
    """One cut in time for everybody, so that no model is trained on what happened after a test item.

    The latest ``test_share`` of all interactions lie after the test cut, the ``valid_share`` before
    them between the two cuts. A user's first item after a cut is the target. Other items between the cuts are not
    trained on, but shown where the test item is asked for; those after the test item are left out.
    Nobody is judged by a test item, nor tuned on by a validation item, with nothing before it.

    Source: Meng et al., "Exploring data splitting strategies for the evaluation of recommendation
    models", 2020 ("temporal global").

    Raises:
        SplitError: if the timestamps are positions within a user and so not comparable between users.
    """
    if dataset.ordinal:
        raise SplitError(
            f"{dataset.name}: timestamps count each user's interactions (1, 2, 3, ...) and cannot be compared "
            "between users; use the leave-one-out split"
        )
    valid_cut, test_cut = np.quantile(dataset.timestamps, [1 - valid_share - test_share, 1 - test_share])
    train, valid, test, shown = [], [], [], []
    for row, times in zip(
        dataset.histories, np.split(dataset.timestamps, dataset.histories.offsets[1:-1]), strict=True
    ):
        after_valid, after_test = np.searchsorted(times, [valid_cut, test_cut])
        train.append(row[:after_valid])
        valid.append(row[after_valid] if after_valid < after_test else -1)
        test.append(row[after_test] if after_test < len(row) else -1)
        shown.append(row[:after_test])
    tested, before = sum(item >= 0 for item in test), sum(map(len, shown))
    between = before - sum(map(len, train)) - sum(item >= 0 for item in valid)
    bare = sum(item >= 0 and not len(row) for item, row in zip(test, shown, strict=True))
    notes = (
        f"temporal split: {between} interactions after a user's first between the cuts, shown in the test alone",
        f"temporal split: {len(dataset.timestamps) - before - tested} interactions after a user's test item left out",
        f"temporal split: users with a test item and nothing before it, who are not judged: {bare}",
    )
    return Split(Histories.of(train), np.array(valid), np.array(test), notes, Histories.of(shown))


SPLITS: dict[str, Callable[[Dataset], Split]] = {"leave-one-out": leave_one_out, "temporal": temporal}
