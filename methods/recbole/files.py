"""The task as RecBole atomic files: one folder per training, with the suite's own split."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from data.dataset import CATEGORY_FIELDS, SPACED_FIELDS, Catalogue
from data.types import IntArray
from methods.base import Task, valid_targets

Rows = Literal["pairs", "next item", "cloze"]
"""What a model reads: user-item pairs; histories with the next item; histories that end with it."""

NAME = "interactions"
"""Name of the data set for RecBole; it overrides the folder of the names it knows, such as ml-100k."""

ATTRIBUTE = "attributes"
MAX_ATTRIBUTES = 64


@dataclass(frozen=True)
class Written:
    """What was written.

    Args:
        rows: training rows.
        length: items of the longest list, at least 1.
    """

    rows: int
    length: int


def write(task: Task, folder: Path, rows: Rows, attributes: Sequence[str] | None = None) -> Written:
    """Write users, items, training and validation rows; ids are dense indices.

    All users and items are listed, so that those without a training row have an embedding, too.

    Args:
        task: what to train on.
        folder: parent of the folder to write.
        rows: kind of the training rows.
        attributes: attributes of every item, as many tokens separated by spaces; None to write none.
    """
    folder = folder / NAME
    folder.mkdir()
    _table(folder / f"{NAME}.user", ["user_id:token"], ([user] for user in range(task.catalogue.n_users)))
    items: list[list[object]] = [[item] for item in range(task.catalogue.n_items)]
    header = ["item_id:token"]
    if attributes is not None:
        header.append(f"{ATTRIBUTE}:token_seq")
        items = [[*row, words or " "] for row, words in zip(items, attributes, strict=True)]
    _table(folder / f"{NAME}.item", header, items)
    if rows == "pairs":
        return _pairs(task, folder)
    return _sequences(task, folder, rows)


def _pairs(task: Task, folder: Path) -> Written:
    header = ["user_id:token", "item_id:token"]
    train = zip(task.train.rows().tolist(), task.train.items.tolist(), strict=True)
    valid = zip(task.valid.users.tolist(), valid_targets(task).tolist(), strict=True)
    _table(folder / f"{NAME}.train.inter", header, train)
    _table(folder / f"{NAME}.valid.inter", header, valid)
    return Written(len(task.train.items), 1)


def _sequences(task: Task, folder: Path, rows: Rows) -> Written:
    header = ["user_id:token", "item_id_list:token_seq", "item_id:token"]
    cloze = rows == "cloze"
    train = [
        (user, np.append(history, target) if cloze else history, target)
        for user, history, target in prefixes(task.train, task.history_length)
    ]
    valid = [
        (user, double_first(history) if cloze else history, target)
        for user, history, target in zip(
            task.valid.users.tolist(), task.valid.histories, valid_targets(task).tolist(), strict=True
        )
    ]
    for name, part in (("train", train), ("valid", valid)):
        lines = ((user, " ".join(map(str, history.tolist())), target) for user, history, target in part)
        _table(folder / f"{NAME}.{name}.inter", header, lines)
    return Written(len(train), max((len(history) for _, history, _ in [*train, *valid]), default=1))


def prefixes(train: Iterable[IntArray], length: int) -> Iterator[tuple[int, IntArray, int]]:
    """Every training item after a user's first, as (user, up to ``length`` items before it, item).

    >>> [(u, h.tolist(), i) for u, h, i in prefixes([np.array([7, 8, 9])], 1)]
    [(0, [7], 8), (0, [8], 9)]
    """
    for user, items in enumerate(train):
        for end in range(1, len(items)):
            yield user, items[max(0, end - length) : end], int(items[end])


def double_first(history: IntArray) -> IntArray:
    """The history with its first item twice.

    RecBole's BERT4Rec drops the first item of whatever it is asked to continue, to make room for the
    mask; so it loses the copy and sees as many items as the other models.
    """
    return np.insert(history, 0, history[:1])


def attributes(catalogue: Catalogue) -> list[str] | None:
    """Attribute tokens of every item, from the words of its genres or categories; None if it has none.

    They are separated by the first of ``> | ; ,`` that the field has, else, in RecBole's own fields, by blanks.
    An attribute shared by all items says nothing and is left out; the most frequent ``MAX_ATTRIBUTES``
    are kept, since pretraining costs time and memory in proportion to them.
    """
    name = next((name for name in CATEGORY_FIELDS if any(catalogue.fields.get(name, ()))), "")
    texts = catalogue.fields.get(name, ())
    unmarked = None if name in SPACED_FIELDS else "\n"  # blanks, or nothing: texts are of one line
    separator = next((mark for mark in ">|;," if any(mark in text for text in texts)), unmarked)
    words = [{word.strip() for word in text.split(separator)} - {""} for text in texts]
    counts = Counter(word for item in words for word in item)
    telling = [word for word in sorted(counts, key=lambda w: (-counts[w], w)) if counts[word] < len(words)]
    index = {word: str(number) for number, word in enumerate(telling[:MAX_ATTRIBUTES])}
    if not index:
        return None
    return [" ".join(sorted(index[word] for word in item if word in index)) for item in words]


def _table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in (header, *rows):
            file.write("\t".join(map(str, row)) + "\n")
