"""Flat sequences, the grids cut from them, and the batches they come in."""

import numpy as np
import pytest
import torch

from methods.lm.batches import batches
from methods.lm.layout import Grid, Group, Layout


def group(prefix: int, *suffixes: int) -> Group:
    return Group(np.arange(prefix), tuple(np.arange(100, 100 + n) for n in suffixes))


def test_a_grid_takes_rows_and_gives_them_back():
    grid, states = Grid.of([2, 3, 1], start=4), torch.arange(20.0).view(10, 2)
    rows = grid.take(states)
    assert rows.shape == (3, 3, 2) and grid.mask.sum(1).tolist() == [2, 3, 1] and not grid.full
    assert torch.equal(rows[0, :2], states[4:6]) and torch.equal(rows[1], states[6:9])
    assert torch.equal(grid.flat(rows), states[4:])
    assert torch.equal(grid.take(states.T, 1), rows.permute(2, 0, 1))
    assert Grid.of([3, 3]).full and Grid.of([0, 0]).index.shape == (2, 0)


def test_sequences_and_groups_are_two_views_of_the_same_tokens():
    layout = Layout.of([group(2, 3, 1), group(0, 2), group(5, 1, 1, 4)], start=7)
    states = torch.arange(19.0)[None, :, None]
    by_sequence, by_group = (grid.take(states, 1) for grid in (layout.sequences, layout.groups))
    assert by_sequence.shape == (1, 6, 4, 1) and by_group.shape == (1, 3, 6, 1)
    for moved, expected, grid in (
        (layout.to_groups(by_sequence, 1), by_group, layout.groups),
        (layout.to_sequences(by_group, 1), by_sequence, layout.sequences),
    ):
        assert torch.equal(moved[0, grid.mask], expected[0, grid.mask])
    assert layout.ends.tolist() == [9, 10, 12, 13, 14, 18]
    assert layout.members.index[layout.members.mask].tolist() == list(range(6))


@pytest.mark.parametrize(("made", "shared"), [(group(2, *[60] * 30), 0), (group(60, 20, 20), 60), (group(60, 9), 0)])
def test_beginnings_that_save_next_to_nothing_are_not_shared(made, shared):
    worth = made.worth_sharing()
    assert len(worth.prefix) == shared
    for before, after in zip(made.suffixes, worth.suffixes, strict=True):
        assert [*worth.prefix, *after] == [*made.prefix, *before]


@pytest.mark.parametrize("shortcut", ["tree", "none"])
def test_a_group_is_cut_into_pieces_of_about_the_same_size(shortcut):
    whole, budget = group(20, *[10] * 100), 400
    pieces = list(batches([whole], budget, None, shortcut))
    sizes = [len(piece.rows) for piece in pieces]
    assert max(sizes) < 1.5 * min(sizes)
    assert sorted(column for piece in pieces for column in piece.columns.tolist()) == list(range(100))
    for piece in pieces:
        (part,) = piece.groups
        assert part.tokens + (20 * (len(part.suffixes) - 1) if shortcut == "none" else 0) <= budget


@pytest.mark.parametrize("budget", [1536, 700])
def test_a_long_beginning_is_not_computed_for_every_sequence(budget):
    whole = group(1400, *[10] * 100)
    pieces = list(batches([whole], budget, None, "tree"))
    assert sum(piece.groups[0].tokens for piece in pieces) <= 2 * whole.tokens
    assert max(piece.groups[0].tokens for piece in pieces) <= 2 * 1400
