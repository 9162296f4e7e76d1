"""Item sequences of different lengths, stored flat."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from data.types import IntArray


@dataclass(frozen=True)
class Histories:
    """One item sequence per row, oldest item first; nobody can write into the arrays, which all methods share.

    Args:
        items: dense item indices of all rows, one after the other, shape ``[n]``.
        offsets: row ``r`` is ``items[offsets[r]:offsets[r + 1]]``, shape ``[rows + 1]``.
    """

    items: IntArray
    offsets: IntArray

    def __post_init__(self) -> None:
        for array in (self.items, self.offsets):
            array.setflags(write=False)

    @classmethod
    def of(cls, rows: Iterable[IntArray]) -> "Histories":
        """Histories from one array per row."""
        arrays = [np.asarray(row, dtype=np.int64) for row in rows]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in arrays])]).astype(np.int64)
        return cls(np.concatenate([*arrays, np.empty(0, np.int64)]), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> IntArray:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} histories")
        row %= len(self)
        return self.items[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[IntArray]:
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> IntArray:
        """Number of items of each row, shape ``[rows]``."""
        return np.diff(self.offsets)

    def rows(self) -> IntArray:
        """Row of every entry of ``items``, shape ``[n]``."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def select(self, rows: IntArray) -> "Histories":
        """The given rows, in the given order."""
        return Histories.of(self[int(row)] for row in rows)

    def last(self, length: int) -> "Histories":
        """The ``length`` latest items of every row."""
        return Histories.of(row[max(0, len(row) - length) :] for row in self)

    def append(self, items: IntArray) -> "Histories":
        """One more item at the end of every row; -1 appends nothing."""
        return Histories.of(np.append(row, item) if item >= 0 else row for row, item in zip(self, items, strict=True))
