"""Attention over prompts with many short answers each, without padding.

As tree attention (:mod:`methods.lm.attention`): all prompts stand in one sequence, then all answers. But titles
differ in length so much (3 tokens on average, 16 at most) that padding them to one length costs more than all
the rest of a small model; here every prompt's answers stay packed, and a mask keeps them apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from data.types import IntArray
from methods.lm.layout import Group

MOST = 2048
"""Tokens of suffixes behind which a new block begins: attention and masks grow with the square of a block."""


@dataclass(frozen=True)
class Block:
    """Where one group stands in the sequence, or its prefix and some of many suffixes.

    Args:
        prefix: start and end of its prefix.
        suffixes: start and end of its suffixes.
        mask: 0 where a suffix token may look, else minus infinity, shape ``[suffix tokens, prefix + suffix tokens]``.
    """

    prefix: tuple[int, int]
    suffixes: tuple[int, int]
    mask: Tensor


@dataclass(frozen=True)
class Packed:
    """A batch of groups as one sequence of ``n`` tokens: all prefixes, then all suffixes.

    Args:
        ids: token ids, shape ``[1, n]``.
        positions: position of every token within its own sequence, shape ``[1, n]``.
        blocks: one per group; several where its suffixes have more than :data:`MOST` tokens.
    """

    ids: Tensor
    positions: Tensor
    blocks: tuple[Block, ...]

    @classmethod
    def of(
        cls, groups: Sequence[Group], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "Packed":
        """The layout of groups with a prefix each; suffixes may be empty."""
        ids = np.concatenate([group.prefix for group in groups] + [s for group in groups for s in group.suffixes])
        places: list[IntArray] = [np.arange(len(group.prefix)) for group in groups]
        blocks, start, end = [], 0, sum(len(group.prefix) for group in groups)
        for group in groups:
            every = np.array([len(suffix) for suffix in group.suffixes])
            for lengths in np.split(every, np.flatnonzero(np.diff(np.cumsum(every) // MOST)) + 1):
                within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
                places.append(len(group.prefix) + within)
                bounds = (start, start + len(group.prefix)), (end, end + len(within))
                blocks.append(Block(*bounds, _mask(len(group.prefix), lengths, within).to(device, dtype)))
                end = bounds[1][1]
            start = bounds[0][1]
        rows = [torch.from_numpy(array)[None].to(device) for array in (ids, np.concatenate(places))]
        return cls(rows[0], rows[1], tuple(blocks))


def _mask(prefix: int, lengths: IntArray, within: IntArray) -> Tensor:
    """What suffix tokens see: the prefix, and what comes before them in their own suffix."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    own = (owner[:, None] == owner[None]) & (within[:, None] >= within[None])
    seen = np.concatenate([np.ones((len(owner), prefix), np.bool_), own], axis=1)
    return torch.zeros(seen.shape).masked_fill(torch.from_numpy(~seen), float("-inf"))


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, packed: Packed, scaling: float | None = None, **_: Any
) -> Tensor:
    """Causal attention within every sequence of a packed batch.

    Args:
        query: shape ``[1, heads, n, size]``.
        key: shape ``[1, key heads, n, size]``.
        value: shape ``[1, key heads, n, size]``.
        packed: the layout.
        scaling: factor of the products; 1 / sqrt(size) if None.

    Returns:
        Shape ``[1, n, heads, size]``.
    """
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = (states.repeat_interleave(repeats, dim=1) for states in (key, value))
    output = torch.empty_like(query)
    for block in packed.blocks:
        (a, b), (c, d) = block.prefix, block.suffixes
        output[:, :, a:b] = scaled_dot_product_attention(
            query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], is_causal=True, scale=scaling
        )
        if d > c:
            seen_key, seen_value = (torch.cat([s[:, :, a:b], s[:, :, c:d]], dim=2) for s in (key, value))
            output[:, :, c:d] = scaled_dot_product_attention(
                query[:, :, c:d], seen_key, seen_value, attn_mask=block.mask, scale=scaling
            )
    return output.transpose(1, 2)
