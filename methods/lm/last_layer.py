"""The last layer of a decoder, for the tokens whose states are read alone.

Scores rest on the state of every sequence's last token. Of the other tokens the last layer needs keys and values, and
neither queries nor what comes after attention: most of the last layer's work.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import rotate_half

from methods.lm.attention import Tree, ends_attention

ALONE = ("llama", "qwen2", "qwen3")
"""Model types whose layers are made of the parts that :func:`_forward` puts together."""


@contextmanager
def ends_alone(model: PreTrainedModel) -> Iterator[None]:
    """Let a model of :data:`ALONE` give the states of the last tokens alone of trees that are read there alone."""
    base: Any = model.base_model
    layer = base.layers[-1]
    before = vars(layer).get("forward")  # as accelerate leaves one
    layer.forward = partial(_forward, layer, layer.forward)
    try:
        yield
    finally:
        if before is None:
            del layer.forward
        else:
            layer.forward = before


def _forward(
    layer: Any,
    usual: Callable[..., Tensor],
    hidden_states: Tensor,
    *args: object,
    position_embeddings: tuple[Tensor, Tensor],
    tree: Tree,
    **kwargs: object,
) -> Tensor:
    """What the layer computes, shape ``[1, sequences, size]``; dropout is for training and left out."""
    if not tree.ends_alone:
        return usual(hidden_states, *args, position_embeddings=position_embeddings, tree=tree, **kwargs)
    attention, ends = layer.self_attn, tree.suffixes.ends
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
