"""Attention over prompts that share a beginning, without padding and without copying keys and values.

All tokens of a batch stand in one sequence: first the prefixes, then the suffixes. Linear layers see no
padding; only attention knows which suffix belongs to which prefix. Installed as an attention implementation
of transformers, so that it serves every architecture that goes through its attention interface.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from methods.lm.layout import Grid, Group, Layout, sent

NAME = "promptrec_tree"
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "phi3", "gpt2")


@dataclass(frozen=True)
class Tree:
    """Where the tokens of a batch of groups stand in one flat sequence of ``n`` tokens: prefixes, then suffixes.

    Args:
        ids: token ids, shape ``[1, n]``.
        positions: position of every token within its own sequence, shape ``[1, n]``.
        prefixes: tokens of the prefixes by group.
        suffixes: tokens of the suffixes.
        ends_alone: whether nothing is read but the last token of every sequence.
    """

    ids: Tensor
    positions: Tensor
    prefixes: Grid
    suffixes: Layout
    ends_alone: bool = False

    @classmethod
    def of(cls, groups: Sequence[Group], device: torch.device | str = "cpu", ends_alone: bool = False) -> "Tree":
        """The layout of the groups."""
        suffixes = [suffix for group in groups for suffix in group.suffixes]
        ids = np.concatenate([*(group.prefix for group in groups), *suffixes])
        begun = np.repeat([len(group.prefix) for group in groups], [len(group.suffixes) for group in groups])
        positions = [np.arange(len(group.prefix)) for group in groups]
        positions += [np.arange(start, start + len(s)) for start, s in zip(begun.tolist(), suffixes, strict=True)]
        lengths = [len(group.prefix) for group in groups]
        read, places = sent(device, ids[None], np.concatenate(positions)[None])
        layout = Layout.of(groups, device, sum(lengths))
        return cls(read, places, Grid.of(lengths, 0, device), layout, ends_alone)


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
        module: the attention layer; not used.
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
    q, k, v = by_head(query * scaling, key, value)
    suffixes, sequences = tree.suffixes, tree.suffixes.sequences
    qs, ks, vs = (sequences.take(states, 1) for states in (q, k, v))
    s = qs.shape[2]
    on_own = qs @ ks.mT + torch.full((s, s), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    if not len(tree.prefixes.places):
        weights = drop(on_own.softmax(dim=-1, dtype=torch.float32).to(v.dtype), dropout)
        return sequences.flat(weights @ vs, 1).transpose(0, 1)[None], None
    qp, kp, vp = (tree.prefixes.take(states, 1) for states in (q, k, v))
    before = scaled_dot_product_attention(qp, kp, vp, is_causal=True, scale=1.0, dropout_p=dropout)
    on_prefix = _hidden(suffixes.groups.take(q, 1) @ kp.mT, tree.prefixes)
    weights = torch.cat([on_prefix, suffixes.to_groups(on_own, 1)], dim=-1)
    weights = drop(weights.softmax(dim=-1, dtype=torch.float32).to(v.dtype), dropout)
    p = kp.shape[2]
    seen = suffixes.groups.flat(weights[..., :p] @ vp, 1)
    seen = seen + sequences.flat(suffixes.to_sequences(weights[..., p:], 1) @ vs, 1)
    return torch.cat([tree.prefixes.flat(before, 1), seen], dim=1).transpose(0, 1)[None], None


def _hidden(on_prefix: Tensor, prefixes: Grid) -> Tensor:
    """Products with prefixes, shape ``[heads, groups, ..., p]``, without those with padding."""
    if prefixes.full:
        return on_prefix
    return on_prefix.masked_fill(~prefixes.mask[:, None], float("-inf"))


def ends_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float, tree: Tree) -> Tensor:
    """What the last token of every sequence sees of its prefix and its own suffix.

    Args:
        query: of the last tokens, shape ``[1, heads, sequences, size]``.
        key: of all tokens, shape ``[1, key heads, n, size]``.
        value: the same.
        scaling: factor of the products.
        tree: the layout.

    Returns:
        Shape ``[1, sequences, heads * size]``.
    """
    q, k, v = by_head(query * scaling, key, value)
    sequences, members = tree.suffixes.sequences, tree.suffixes.members
    ks, vs = (sequences.take(states, 1) for states in (k, v))
    kp, vp = (tree.prefixes.take(states, 1) for states in (k, v))
    on_own = (ks @ q[..., None])[..., 0].masked_fill(~sequences.mask, float("-inf"))
    on_prefix = members.flat(_hidden(members.take(q, 1) @ kp.mT, tree.prefixes), 1)
    weights = torch.cat([on_prefix, on_own], dim=-1).softmax(dim=-1, dtype=torch.float32).to(v.dtype)
    p = kp.shape[2]
    seen = members.flat(members.take(weights[..., :p], 1) @ vp, 1) + (weights[..., None, p:] @ vs)[..., 0, :]
    return seen.transpose(0, 1).flatten(1)[None]


def by_head(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a flat sequence, one key per query head, shape ``[heads, n, size]``."""
    q, k, v = (states[0].contiguous() for states in (query, key, value))
    repeats = len(q) // len(k)
    if repeats > 1:
        k, v = (states.repeat_interleave(repeats, dim=0) for states in (k, v))
    return q, k, v


def supports_tree(model: PreTrainedModel) -> bool:
    """Whether tree attention is known to compute what the model's own attention computes.

    That is tested for the families listed; a layer that sees a window only is not covered.
    """
    config = model.config
    kinds = getattr(config, "layer_types", None)
    whole = set(kinds) == {"full_attention"} if kinds else not getattr(config, "sliding_window", None)
    return config.model_type in FAMILIES and whole


@contextmanager
def installed(model: PreTrainedModel, name: str, function: Callable[..., tuple[Tensor, Any]]) -> Iterator[None]:
    """Let the model use an attention function; its own is back afterwards.

    No mask is made for it: it sees ``attention_mask`` as the caller gave it, None for plain causal attention.

    Args:
        model: goes through the attention interface of transformers.
        name: what the function is registered as.
        function: with the signature of the library's attention functions.
    """
    AttentionInterface.register(name, function)
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
