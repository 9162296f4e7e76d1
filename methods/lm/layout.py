"""Token sequences with common beginnings, and where their tokens stand in one flat sequence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.types import IntArray

HARDLY = 16
"""A common beginning that saves fewer than one token in so many costs more in attention than it saves."""


@dataclass(frozen=True)
class Group:
    """Token sequences with a common beginning.

    Args:
        prefix: token ids all sequences start with, shape ``[p]``; may be empty.
        suffixes: token ids of each sequence after the prefix, at least one token each.
    """

    prefix: IntArray
    suffixes: tuple[IntArray, ...]

    @property
    def tokens(self) -> int:
        """Number of tokens to compute."""
        return len(self.prefix) + sum(map(len, self.suffixes))

    def worth_sharing(self) -> "Group":
        """The same sequences, without a common beginning if it saves fewer than one token in :data:`HARDLY`."""
        saved = len(self.prefix) * (len(self.suffixes) - 1)
        if not len(self.prefix) or HARDLY * saved >= self.tokens + saved:
            return self
        return Group(self.prefix[:0], tuple(np.concatenate([self.prefix, suffix]) for suffix in self.suffixes))


def sent(device: torch.device | str, *arrays: IntArray) -> list[Tensor]:
    """Arrays of integers on a device, in one copy that the host does not wait for."""
    flat = torch.from_numpy(np.concatenate([array.ravel() for array in arrays]))
    if torch.device(device).type == "cuda":
        flat = flat.pin_memory()
    parts = flat.to(device, non_blocking=True).split([array.size for array in arrays])
    return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]


@dataclass(frozen=True)
class Grid:
    """Pieces of a flat sequence as the rows of a padded grid.

    Args:
        index: flat index by row, ``start`` where padded, shape ``[rows, longest]``.
        mask: True where not padded, shape ``[rows, longest]``.
        places: of everything in the pieces, its place in the flattened grid.
    """

    index: Tensor
    mask: Tensor
    places: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], start: int = 0, device: torch.device | str = "cpu") -> "Grid":
        """The grid of pieces of these lengths, one behind the other from ``start`` on."""
        sizes = np.asarray(lengths, np.int64)
        steps = np.arange(sizes.max(initial=0))
        mask = steps < sizes[:, None]
        index = start + np.where(mask, (np.cumsum(sizes) - sizes)[:, None] + steps, 0)
        places, shown, own = sent(device, index, mask.astype(np.int64), np.flatnonzero(mask))
        return cls(places, shown.bool(), own)

    @property
    def full(self) -> bool:
        """Whether nothing is padded."""
        return len(self.places) == self.index.numel()

    def take(self, states: Tensor, dim: int = 0) -> Tensor:
        """The rows of flat states: dimension ``dim`` becomes two, rows and longest."""
        rows: Tensor = states.index_select(dim, self.index.flatten()).unflatten(dim, self.index.shape)
        return rows

    def flat(self, rows: Tensor, dim: int = 0) -> Tensor:
        """Flat states of rows in dimensions ``dim`` and ``dim + 1``, without padding."""
        return rows.flatten(dim, dim + 1).index_select(dim, self.places)


@dataclass(frozen=True)
class Layout:
    """Where the tokens of suffixes stand in one flat sequence: group after group, sequence after sequence.

    Args:
        sequences: tokens by sequence.
        groups: tokens by group.
        members: sequences by group.
        start: flat index of the first token.
    """

    sequences: Grid
    groups: Grid
    members: Grid
    start: int = 0

    @classmethod
    def of(cls, groups: Sequence[Group], device: torch.device | str = "cpu", start: int = 0) -> "Layout":
        """The layout of the suffixes of groups."""
        by_sequence = [len(suffix) for group in groups for suffix in group.suffixes]
        by_group = [sum(map(len, group.suffixes)) for group in groups]
        return cls(
            Grid.of(by_sequence, start, device),
            Grid.of(by_group, start, device),
            Grid.of([len(group.suffixes) for group in groups], 0, device),
            start,
        )

    def to_groups(self, rows: Tensor, dim: int) -> Tensor:
        """What stands in a grid by sequence, in dimensions ``dim`` and ``dim + 1``, as a grid by group."""
        return _moved(rows, dim, self.sequences, self.groups, self.start)

    def to_sequences(self, rows: Tensor, dim: int) -> Tensor:
        """The same the other way round."""
        return _moved(rows, dim, self.groups, self.sequences, self.start)

    @property
    def ends(self) -> Tensor:
        """Flat index of the last token of every sequence."""
        counts = self.sequences.mask.sum(-1)
        return self.sequences.index.gather(-1, (counts - 1)[:, None])[:, 0]


def _moved(rows: Tensor, dim: int, before: Grid, after: Grid, start: int) -> Tensor:
    index = before.places[after.index.flatten() - start]
    moved: Tensor = rows.flatten(dim, dim + 1).index_select(dim, index).unflatten(dim, after.index.shape)
    return moved
