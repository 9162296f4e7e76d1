"""The last layer of a decoder, for the tokens whose states are read alone.

Scores rest on the state of every sequence's last token. Of the other tokens the last layer needs keys and values, and
neither queries nor what comes after attention: most of the last layer's work.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import rotate_half

from methods.lm.attention import Tree, by_head

ALONE = ("llama", "qwen2", "qwen3")
"""Model types whose layers are made of the parts that :func:`_forward` puts together."""


@contextmanager
def ends_alone(model: PreTrainedModel) -> Iterator[None]:
    """Let a model of :data:`ALONE` give the states of the last tokens of a tree's sequences, group by group."""
    base: Any = model.base_model
    layer = base.layers[-1]
    before = vars(layer).get("forward")  # as accelerate leaves one
    layer.forward = partial(_forward, layer)
    try:
        yield
    finally:
        if before is None:
            del layer.forward
        else:
            layer.forward = before


def _forward(
    layer: Any, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], tree: Tree, **_: object
) -> Tensor:
    """What the layer computes, shape ``[1, sequences, size]``; dropout is for training and left out."""
    attention, ends = layer.self_attn, tree.ends
    normed, (cos, sin) = layer.input_layernorm(hidden_states), position_embeddings
    query = _turned(_heads(attention, "q", normed[:, ends]), cos[:, ends], sin[:, ends])
    key, value = _turned(_heads(attention, "k", normed), cos, sin), _heads(attention, "v", normed)
    states = hidden_states[:, ends] + attention.o_proj(ends_attention(query, key, value, attention.scaling, tree))
    return states + layer.mlp(layer.post_attention_layernorm(states))  # type: ignore[no-any-return]


def _heads(attention: nn.Module, part: str, states: Tensor) -> Tensor:
    """Queries, keys or values, shape ``[1, heads, n, size]``."""
    heads = getattr(attention, f"{part}_proj")(states).unflatten(-1, (-1, attention.head_dim))
    norm = getattr(attention, f"{part}_norm", None)
    return (heads if norm is None else norm(heads)).transpose(1, 2)  # type: ignore[no-any-return]


def _turned(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al., 2021)."""
    return heads * cos[:, None] + rotate_half(heads) * sin[:, None]  # type: ignore[no-any-return]


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
    q, k, v = by_head(query, key, value)
    exists, least = tree.suffix_mask[..., 0], torch.finfo(q.dtype).min
    place = (exists.flatten().cumsum(0) - 1).clamp(min=0).view(exists.shape)
    qs = (q[place] * scaling).transpose(1, 2)
    ks, vs = (states[tree.suffix].permute(0, 3, 1, 2, 4) for states in (k, v))
    kp, vp = (states[tree.prefix].transpose(1, 2) for states in (k, v))
    on_own = (ks @ qs[..., None])[..., 0].masked_fill(~tree.suffix_mask[:, None], least)
    on_prefix = (qs @ kp.mT).masked_fill(~tree.prefix_mask[:, None, None], least)
    weights = torch.cat([on_prefix, on_own], dim=-1).softmax(dim=-1, dtype=torch.float32).to(v.dtype)
    p = kp.shape[2]
    seen = weights[..., :p] @ vp + (weights[..., None, p:] @ vs)[..., 0, :]
    return seen.transpose(1, 2)[exists].flatten(1)[None]
