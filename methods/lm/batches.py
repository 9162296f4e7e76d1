"""Batches of prompts, filled up to a number of tokens or prompts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data.types import IntArray
from methods.lm.forward import Shortcut
from methods.lm.layout import Group

WASTE = 2
"""How many times more attention than its prompts need a batch may compute because it pads them to one length."""


@dataclass(frozen=True)
class Batch:
    """Some prompts of some rows.

    Args:
        groups: prompts with their common beginnings, one group per row.
        rows: row of every prompt in the result.
        columns: column of every prompt in the result.
    """

    groups: tuple[Group, ...]
    rows: IntArray
    columns: IntArray


def batches(groups: Sequence[Group], budget: int, batch_size: int | None, shortcut: Shortcut) -> Iterator[Batch]:
    """Prompts of all groups, those of similar length together, at most so many tokens or prompts at once."""
    pieces = [p for row, group in enumerate(groups) for p in _split(group, row, budget, batch_size, shortcut)]
    pieces.sort(key=lambda piece: piece.groups[0].tokens, reverse=True)
    yield from _fill(pieces, budget, batch_size, shortcut)


def distinct(
    groups: Sequence[Group], lengths: Sequence[Sequence[int]] | None
) -> tuple[list[Group], list[list[int]], list[tuple[int, list[int]]]]:
    """Groups with different beginnings, each sequence of a group once.

    Args:
        groups: prompts with their common beginnings.
        lengths: number of tokens to read of every sequence; None if that is the same for all.

    Returns:
        The groups, the lengths of their sequences, and for every group given its place: row and columns.
    """
    rows: dict[bytes, int] = {}
    found: list[dict[tuple[bytes, int], int]] = []
    kept: list[tuple[IntArray, list[IntArray]]] = []
    places = []
    for number, group in enumerate(groups):
        row = rows.setdefault(group.prefix.tobytes(), len(rows))
        if row == len(found):
            found.append({})
            kept.append((group.prefix, []))
        columns = []
        for n, suffix in enumerate(group.suffixes):
            key = (suffix.tobytes(), 0 if lengths is None else lengths[number][n])
            if key not in found[row]:
                found[row][key] = len(kept[row][1])
                kept[row][1].append(suffix)
            columns.append(found[row][key])
        places.append((row, columns))
    groups = [Group(prefix, tuple(suffixes)) for prefix, suffixes in kept]
    return groups, [[length for _, length in known] for known in found], places


def split_batch(batch: Batch, budget: int, batch_size: int | None, shortcut: Shortcut) -> Iterator[Batch]:
    """The prompts of a batch in smaller batches."""
    start, pieces = 0, []
    for group in batch.groups:
        row, columns = int(batch.rows[start]), batch.columns[start : start + len(group.suffixes)]
        for piece in _split(group, row, budget, batch_size, shortcut):
            pieces.append(replace(piece, columns=columns[piece.columns]))
        start += len(group.suffixes)
    yield from _fill(pieces, budget, batch_size, shortcut)


def _split(group: Group, row: int, budget: int, batch_size: int | None, shortcut: Shortcut) -> Iterator[Batch]:
    """A group in pieces of about the same size that keep to the limits, suffixes of similar length together.

    Behind a prefix of more than half of the budget come as many tokens as it has, lest it be computed too often.
    """
    lengths = np.array([len(suffix) for suffix in group.suffixes])
    again, once = (0, len(group.prefix)) if shortcut == "tree" else (len(group.prefix), 0)
    costs, room = lengths + again, max(1, budget - once, once)
    pieces = max(1, -(-costs.sum() // room))
    room = min(room, costs.sum() // pieces + costs.max())
    columns = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(columns):
        fitting = int(np.searchsorted(np.cumsum(costs[columns[start:]]), room, side="right"))
        take = max(1, min(fitting, batch_size or fitting))
        part = columns[start : start + take]
        yield Batch(
            (Group(group.prefix, tuple(group.suffixes[c] for c in part.tolist())),),
            np.full(len(part), row),
            part,
        )
        start += take


def tokens_of(groups: Sequence[Group], shortcut: Shortcut) -> int:
    """Number of tokens to compute."""
    again = 0 if shortcut == "tree" else sum(len(group.prefix) * (len(group.suffixes) - 1) for group in groups)
    return sum(group.tokens for group in groups) + again


def _fill(pieces: Sequence[Batch], budget: int, batch_size: int | None, shortcut: Shortcut) -> Iterator[Batch]:
    held: list[Batch] = []
    tokens = prompts = 0
    area = Area()
    for piece in pieces:
        cost, both = tokens_of(piece.groups, shortcut), area.beside(piece.groups[0])
        full = tokens + cost > budget or (batch_size and prompts + len(piece.rows) > batch_size)
        if held and (full or (shortcut == "tree" and both.padded > WASTE * both.needed)):
            yield _joined(held)
            held, tokens, prompts, both = [], 0, 0, Area().beside(piece.groups[0])
        held.append(piece)
        tokens, prompts, area = tokens + cost, prompts + len(piece.rows), both
    if held:
        yield _joined(held)


@dataclass(frozen=True)
class Area:
    """Products of queries and keys of a batch, every grid padded to its longest row.

    Args:
        sequences: number of suffixes.
        groups: number of groups.
        suffix: most tokens of a suffix.
        group: most tokens of all suffixes of a group.
        prefix: most tokens of a prefix.
        needed: products without padding.
    """

    sequences: int = 0
    groups: int = 0
    suffix: int = 0
    group: int = 0
    prefix: int = 0
    needed: int = 0

    @property
    def padded(self) -> int:
        """Products with padding."""
        return self.sequences * self.suffix**2 + self.groups * (self.group + self.prefix) * self.prefix

    def beside(self, group: Group) -> "Area":
        """That of the batch with one more group."""
        lengths, prefix = [len(suffix) for suffix in group.suffixes], len(group.prefix)
        return Area(
            self.sequences + len(lengths),
            self.groups + 1,
            max(self.suffix, *lengths),
            max(self.group, sum(lengths)),
            max(self.prefix, prefix),
            self.needed + sum(n * n for n in lengths) + (sum(lengths) + prefix) * prefix,
        )


def _joined(pieces: Sequence[Batch]) -> Batch:
    groups = tuple(group for piece in pieces for group in piece.groups)
    return Batch(groups, np.concatenate([p.rows for p in pieces]), np.concatenate([p.columns for p in pieces]))
