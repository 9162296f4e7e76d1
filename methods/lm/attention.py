"""Attention over prompts that share a beginning, without padding and without copying keys and values.

All tokens of a batch stand in one sequence: first the prefixes, then the suffixes. Linear layers see no
padding; only attention knows which suffix belongs to which prefix. Installed as an attention implementation
of transformers, so that it serves every architecture that goes through its attention interface.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from data.types import IntArray

NAME = "promptrec_tree"
FAMILIES = ("llama", "qwen2", "qwen3", "gpt2")


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


@dataclass(frozen=True)
class Tree:
    """Where the tokens of a batch of groups stand in one flat sequence of ``n`` tokens.

    Args:
        ids: token ids, shape ``[1, n]``.
        positions: position of every token within its own sequence, shape ``[1, n]``.
        prefix: flat index of the prefix tokens, 0 where padded, shape ``[groups, p]``.
        prefix_mask: True for real prefix tokens, shape ``[groups, p]``.
        suffix: flat index of the suffix tokens, 0 where padded, shape ``[groups, sequences, s]``.
        suffix_mask: True for real suffix tokens, shape ``[groups, sequences, s]``.
    """

    ids: Tensor
    positions: Tensor
    prefix: Tensor
    prefix_mask: Tensor
    suffix: Tensor
    suffix_mask: Tensor

    @classmethod
    def of(cls, groups: Sequence[Group], device: torch.device | str = "cpu") -> "Tree":
        """The flat layout of the groups: all prefixes, then all suffixes."""
        prefixes = np.array([len(group.prefix) for group in groups])
        lengths = [[len(suffix) for suffix in group.suffixes] for group in groups]
        suffixes = np.zeros((len(groups), max(map(len, lengths))), np.int64)
        for row, group_lengths in enumerate(lengths):
            suffixes[row, : len(group_lengths)] = group_lengths
        ids = np.concatenate([g.prefix for g in groups] + [suffix for g in groups for suffix in g.suffixes])
        prefix, prefix_mask = _indices(prefixes, 0)
        suffix, suffix_mask = _indices(suffixes, int(prefixes.sum()))
        positions = np.empty(len(ids), np.int64)
        positions[prefix[prefix_mask]] = np.broadcast_to(np.arange(prefix.shape[-1]), prefix.shape)[prefix_mask]
        own = prefixes[:, None, None] + np.arange(suffix.shape[-1])
        positions[suffix[suffix_mask]] = np.broadcast_to(own, suffix.shape)[suffix_mask]
        arrays = (ids[None], positions[None], prefix, prefix_mask, suffix, suffix_mask)
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))

    @property
    def ends(self) -> Tensor:
        """Flat index of the last token of every sequence, group by group."""
        counts = self.suffix_mask.sum(-1)
        last = self.suffix.gather(-1, (counts - 1).clamp(min=0)[..., None])[..., 0]
        return last[counts > 0]


def _indices(lengths: IntArray, start: int) -> tuple[IntArray, Any]:
    """Flat index (0 where padded) and mask of pieces in a row, shape ``[*lengths.shape, max]``."""
    starts = start + np.cumsum(lengths) - lengths.ravel()
    steps = np.arange(lengths.max(initial=0))
    mask = steps < lengths[..., None]
    return np.where(mask, starts.reshape(lengths.shape)[..., None] + steps, 0), mask


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    tree: Tree | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Causal attention within every sequence of a tree; the signature is that of transformers.

    Args:
        module: the attention layer, for its number of query heads per key head.
        query: shape ``[1, heads, n, size]``.
        key: shape ``[1, key heads, n, size]``.
        value: shape ``[1, key heads, n, size]``.
        attention_mask: not used; the tree says what is visible.
        scaling: factor of the products; 1 / sqrt(size) if None.
        dropout: share of attention weights set to zero.
        tree: the layout.

    Returns:
        Shape ``[1, n, heads, size]``, and no weights.
    """
    if tree is None:
        raise ValueError("tree attention needs the layout of the batch")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = by_head(query, key, value)
    out = torch.empty_like(q)
    if tree.prefix.shape[1]:
        qp, kp, vp = (states[tree.prefix].transpose(1, 2) for states in (q, k, v))
        seen = scaled_dot_product_attention(qp, kp, vp, is_causal=True, scale=scaling, dropout_p=dropout)
        out = out.index_put((tree.prefix[tree.prefix_mask],), seen.transpose(1, 2)[tree.prefix_mask])
    own = _suffix_attention(q, k, v, tree, scaling, dropout)
    return out.index_put((tree.suffix[tree.suffix_mask],), own[tree.suffix_mask])[None], None


def by_head(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a flat sequence, one key per query head, shape ``[n, heads, size]``."""
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    repeats = q.shape[1] // k.shape[1]
    if repeats > 1:
        k, v = (states.repeat_interleave(repeats, dim=1) for states in (k, v))
    return q, k, v


def _suffix_attention(q: Tensor, k: Tensor, v: Tensor, tree: Tree, scaling: float, dropout: float) -> Tensor:
    """What suffixes see of their prefix and themselves, shape ``[groups, sequences, s, heads, size]``."""
    groups, sequences, s = tree.suffix.shape
    heads, size = q.shape[1:]
    qs, ks, vs = (states[tree.suffix].permute(0, 3, 1, 2, 4) for states in (q, k, v))
    if not tree.prefix.shape[1]:
        flat = [states.flatten(1, 2) for states in (qs, ks, vs)]
        seen = scaled_dot_product_attention(flat[0], flat[1], flat[2], is_causal=True, scale=scaling, dropout_p=dropout)
        shape = (groups, heads, sequences, s, size)
        return seen.reshape(shape).permute(0, 2, 3, 1, 4)
    p = tree.prefix.shape[1]
    kp, vp = (states[tree.prefix].transpose(1, 2) for states in (k, v))
    qs = qs * scaling
    ahead = torch.full((s, s), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    on_own = torch.baddbmm(ahead, qs.flatten(0, 2), ks.flatten(0, 2).mT).view(groups, heads, sequences, s, s)
    on_prefix = qs.flatten(2, 3) @ kp.mT
    if groups > 1:
        on_prefix = on_prefix.masked_fill(~tree.prefix_mask[:, None, None], float("-inf"))
    weights = torch.cat([on_prefix.view(groups, heads, sequences, s, p), on_own], dim=-1)
    weights = drop(weights.softmax(dim=-1, dtype=torch.float32).to(v.dtype), dropout)
    seen = (weights[..., :p].flatten(2, 3) @ vp).view(groups, heads, sequences, s, size)
    return (seen + weights[..., p:] @ vs).permute(0, 2, 3, 1, 4)


def supports_tree(model: PreTrainedModel) -> bool:
    """Whether tree attention is known to compute what the model's own attention computes.

    That is tested for the families listed; a layer that sees a window only is not covered.
    """
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    return model.config.model_type in FAMILIES and kinds == {"full_attention"}


@contextmanager
def tree_implementation(model: PreTrainedModel) -> Iterator[None]:
    """Let the model use tree attention; its own implementation is back afterwards."""
    AttentionInterface.register(NAME, tree_attention)
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
