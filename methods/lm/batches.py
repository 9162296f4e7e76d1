"""Batches of prompts, filled up to a number of tokens or prompts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data.types import IntArray
from methods.lm.forward import Shortcut
from methods.lm.layout import Group


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
    distinct = [Group(prefix, tuple(suffixes)) for prefix, suffixes in kept]
    return distinct, [[length for _, length in known] for known in found], places


def split_batch(batch: Batch, budget: int, batch_size: int, shortcut: Shortcut) -> Iterator[Batch]:
    """The prompts of a batch in smaller batches."""
    start, pieces = 0, []
    for group in batch.groups:
        row, columns = int(batch.rows[start]), batch.columns[start : start + len(group.suffixes)]
        for piece in _split(group, row, budget, batch_size, shortcut):
            pieces.append(replace(piece, columns=columns[piece.columns]))
        start += len(group.suffixes)
    yield from _fill(pieces, budget, batch_size, shortcut)


def _split(group: Group, row: int, budget: int, batch_size: int | None, shortcut: Shortcut) -> Iterator[Batch]:
    """A group in pieces of about the same size that keep to the limits, suffixes of similar length together."""
    lengths = np.array([len(suffix) for suffix in group.suffixes])
    costs = lengths + (0 if shortcut == "tree" else len(group.prefix))
    room = max(1, budget - len(group.prefix) * (shortcut == "tree"))
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


def _fill(pieces: Sequence[Batch], budget: int, batch_size: int | None, shortcut: Shortcut) -> Iterator[Batch]:
    held: list[Batch] = []
    tokens = prompts = 0
    for piece in pieces:
        (group,) = piece.groups
        cost = group.tokens + (0 if shortcut == "tree" else len(group.prefix) * (len(group.suffixes) - 1))
        if held and (tokens + cost > budget or (batch_size and prompts + len(piece.rows) > batch_size)):
            yield _joined(held)
            held, tokens, prompts = [], 0, 0
        held.append(piece)
        tokens, prompts = tokens + cost, prompts + len(piece.rows)
    if held:
        yield _joined(held)


def _joined(pieces: Sequence[Batch]) -> Batch:
    groups = tuple(group for piece in pieces for group in piece.groups)
    return Batch(groups, np.concatenate([p.rows for p in pieces]), np.concatenate([p.columns for p in pieces]))
