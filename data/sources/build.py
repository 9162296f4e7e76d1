"""From rows of a file to a Dataset: positives, core filter, order, and an account of what was left out."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.dataset import Catalogue, Dataset, Domain
from data.errors import InputError
from data.histories import Histories
from data.types import BoolArray, FloatArray, IntArray

STARS = 5
"""Largest rating of the scale that the least rating of a positive is meant for by default."""
MOSTLY = 0.8
"""Share of steps, and of users, that tells positions from times."""
LONGEST = 1000
"""Characters of a title: descriptions and page scripts that stand in its place would fill a model's window."""
SOME = 0.1
"""Share of users from which a run says that their latest items are in no order."""


class DataError(InputError):
    """A data file cannot be used; the message names file and line."""


@dataclass(frozen=True)
class Interactions:
    """Rows of an interaction file.

    Args:
        users: user id of each row.
        items: item id of each row.
        timestamps: time of each row, shape ``[rows]``.
        ratings: rating of each row, None where the source has none.
        where: file and line of a row, for messages.
    """

    users: Sequence[str]
    items: Sequence[str]
    timestamps: FloatArray
    ratings: FloatArray | None
    where: Callable[[int], str]


@dataclass(frozen=True)
class ItemTexts:
    """Titles and further fields by item id."""

    titles: Mapping[str, str]
    fields: Mapping[str, Mapping[str, str]]
    path: Path


def build(
    name: str, rows: Interactions, texts: ItemTexts, domain: Domain, min_rating: float = 4.0, min_count: int = 5
) -> Dataset:
    """A data set of positive interactions.

    Rows rated under ``min_rating`` are not positives (where there are ratings). Of repeated (user, item)
    pairs the earliest counts. Users and items with fewer than ``min_count`` positives are left out, again
    and again until none is left to leave out. A user's items are ordered by time, ties by the SHA-256
    (hex) of "user/item". All of this is counted in the notes of the data set.

    Raises:
        DataError: if nothing is left, or none of the texts is of an item that is.
    """
    user_ids, user = _dense(rows.users)
    item_ids, item = _dense(rows.items)
    order = _chronological(rows, user)
    ordinal = _ordinal(user[order], item[order], rows.timestamps[order])  # of all rows, without a filter's gaps
    notes = []

    positive = np.ones(len(order), np.bool_) if rows.ratings is None else rows.ratings[order] >= min_rating
    notes += _note(~positive, order, rows, f"rated under {min_rating:g} and not counted as positives")
    if rows.ratings is not None and (top := rows.ratings.max(initial=0)) > STARS:
        notes.append(f"ratings reach {top:g}, and positives are those of {min_rating:g} and more (--min-rating)")
    order = order[positive]

    first = np.zeros(len(order), np.bool_)
    first[np.unique(user[order] * len(item_ids) + item[order], return_index=True)[1]] = True
    notes += _note(~first, order, rows, "repeat a (user, item) pair; the earliest is kept")
    order = order[first]

    kept = _core(user[order], item[order], min_count)
    notes += _note(~kept, order, rows, f"of users or items with fewer than {min_count} positives left out")
    order = order[kept]
    if not len(order):
        cure = "lower --min-rating or --min-count" if notes else "the file has none"
        raise DataError(f"{name}: no interaction is left; {'; '.join([*notes, cure])}")

    users, user_row = np.unique(user[order], return_inverse=True)
    items, item_index = np.unique(item[order], return_inverse=True)
    kept_ids = [item_ids[i] for i in items]
    titles, title_notes = _titles(kept_ids, texts)
    catalogue = Catalogue(
        name=name,
        user_ids=tuple(user_ids[u] for u in users),
        item_ids=tuple(kept_ids),
        titles=titles,
        fields={key: tuple(values.get(i, "") for i in kept_ids) for key, values in texts.fields.items()},
        domain=domain,
    )
    offsets = np.searchsorted(user_row, np.arange(len(users) + 1))
    histories = Histories(item_index.astype(np.int64), offsets.astype(np.int64))
    times = rows.timestamps[order]
    notes += [*title_notes, *_indistinct(titles, times, histories)]
    return Dataset(catalogue, histories, times, tuple(notes), ordinal)


def _dense(ids: Sequence[str]) -> tuple[list[str], IntArray]:
    """Distinct ids, in numeric order if all are decimal and alphabetic order if not, and their indices."""
    distinct = set(ids)
    decimal = all(i.isascii() and i.isdecimal() for i in distinct)
    ordered = sorted(distinct, key=_as_number if decimal else None)
    index = {i: n for n, i in enumerate(ordered)}
    return ordered, np.array([index[i] for i in ids], np.int64)


def _as_number(digits: str) -> tuple[int, str, str]:
    """What decimal ids are sorted by; int() refuses those with thousands of digits.

    >>> sorted(["10", "9", "09", "0"], key=_as_number)
    ['0', '09', '9', '10']
    """
    value = digits.lstrip("0")
    return len(value), value, digits


def _chronological(rows: Interactions, user: IntArray) -> IntArray:
    """Row numbers by user, then time, then hash; digests are in the order of their hex digits."""
    pairs = (f"{u}/{i}".encode() for u, i in zip(rows.users, rows.items, strict=True))
    tie = np.fromiter((hashlib.sha256(pair).digest() for pair in pairs), "S32", len(user))
    return np.lexsort((tie, rows.timestamps, user))


def _ordinal(user: IntArray, item: IntArray, times: FloatArray) -> bool:
    """Whether the times, given by user and time, are positions within the user and not comparable between users.

    They are if each user's next row is always 1 later; or mostly, where most users start at the same number: rows added
    to a file of positions, or missing in it, hide nothing. Days counted from one date are not taken for positions, even
    if everybody is there on the first: a user has days without a row, or with several. Repeated rows count once.
    """
    same, gap = np.diff(user) == 0, np.diff(times)
    steps = gap[same & ((gap > 0) | (np.diff(item) != 0))]
    if (steps == 1).all():
        return True
    _, alike = np.unique(times[np.append(True, ~same)], return_counts=True)
    return bool((steps == 1).mean() >= MOSTLY and alike.max() >= MOSTLY * alike.sum())


def _core(user: IntArray, item: IntArray, min_count: int) -> BoolArray:
    """Entries that stay when users and items with too few entries are dropped until stable."""
    kept = np.ones(len(user), np.bool_)
    while True:
        of_user, of_item = (np.bincount(ids[kept], minlength=ids.max(initial=0) + 1)[ids] for ids in (user, item))
        stay = kept & (of_user >= min_count) & (of_item >= min_count)
        if (stay == kept).all():
            return kept
        kept = stay


def _note(affected: BoolArray, order: IntArray, rows: Interactions, what: str) -> list[str]:
    if not affected.any():
        return []
    earliest = int(order[affected].min())
    return [f"{int(affected.sum())} interactions {what} (first: {rows.where(earliest)})"]


def _indistinct(titles: Sequence[str], times: FloatArray, histories: Histories) -> list[str]:
    """Notes on data that do not tell what comes when, or one item from another."""
    notes, distinct = [], len(set(titles))
    if (times == np.repeat(times[histories.offsets[:-1]], histories.lengths)).all():
        notes.append("no user has two different timestamps: which of their items are the latest is arbitrary")
    elif (tied := _tied_at_the_end(times, histories)) > SOME * len(histories):
        notes.append(f"the last two items of {tied} of {len(histories)} users have one timestamp: a hash orders them")
    if 2 * distinct < len(titles):
        notes.append(f"different titles of {len(titles)} items: {distinct}; prompts cannot tell many of them apart")
    return notes


def _tied_at_the_end(times: FloatArray, histories: Histories) -> int:
    last = histories.offsets[1:][histories.lengths > 1] - 1
    return int((times[last] == times[last - 1]).sum())


def _titles(item_ids: Sequence[str], texts: ItemTexts) -> tuple[tuple[str, ...], list[str]]:
    """Titles with the id standing in where there is none, and notes that count these.

    Raises:
        DataError: if there are texts, and none is of these items.
    """
    if texts.titles and texts.titles.keys().isdisjoint(item_ids):
        raise DataError(
            f"{texts.path}: none of its items is left in the interactions; ids here are such as "
            f"{next(iter(texts.titles))!r}, there {item_ids[0]!r}"
        )
    if not texts.path.exists():
        return tuple(item_ids), [f"there is no {texts.path.name}: ids stand in for titles"]
    without = [i for i in item_ids if not texts.titles.get(i)]
    groups = {
        "no text record": [i for i in without if i not in texts.titles],
        "an empty title": [i for i in without if i in texts.titles],
    }
    notes = [
        f"{len(ids)} items have {what} in {texts.path.name}; the id stands in (first: {ids[0]})"
        for what, ids in groups.items()
        if ids
    ]
    titles = [texts.titles.get(i) or i for i in item_ids]
    if long := [i for i, title in zip(item_ids, titles, strict=True) if len(title) > LONGEST]:
        notes.append(
            f"{len(long)} titles in {texts.path.name} have over {LONGEST} characters and are cut (first: {long[0]})"
        )
    return tuple(title if len(title) <= LONGEST else title[:LONGEST].rstrip() for title in titles), notes
