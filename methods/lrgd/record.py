"""What every attention layer of a model computes with: queries, keys and values after position encoding."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from methods.lm.attention import installed

NAME = "promptrec_record"


@dataclass(frozen=True)
class Trace:
    """One attention layer during one forward pass; keys and values are repeated for every query head.

    Args:
        layer: which layer.
        query: shape ``[batch, heads, n, size]``.
        key: shape ``[batch, heads, n, size]``.
        value: shape ``[batch, heads, n, size]``.
        output: what the model's attention gave, shape ``[batch, n, heads, size]``.
        visible: which key a query may see, shape ``[batch or 1, n, n]``.
        scaling: factor of the products of queries and keys.
        repeats: query heads per key head.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    visible: Tensor
    scaling: float
    repeats: int


def record(model: PreTrainedModel, ids: Tensor, visible: Tensor | None = None) -> tuple[list[Trace], Tensor]:
    """A forward pass of a decoder, with every layer's attention written down.

    Args:
        model: a decoder-only model that goes through the attention interface of transformers.
        ids: token ids without padding, shape ``[batch, n]``.
        visible: which key a query may see, shape ``[batch or 1, n, n]``; all up to itself if None.

    Returns:
        One trace per layer, parts of the graph of the forward pass, and the last hidden states.

    Raises:
        ValueError: if a layer did not go through the attention interface.
    """
    traces: list[Trace] = []
    mask = None if visible is None else visible[:, None].expand(len(ids), -1, -1, -1)
    with installed(model, NAME, recording_attention):
        states = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False, traces=traces).last_hidden_state
    if len(traces) != model.config.num_hidden_layers:
        raise ValueError(
            f"{model.config.model_type}: {len(traces)} of {model.config.num_hidden_layers} layers use the attention "
            "interface of transformers; the dual model needs all"
        )
    return traces, states


def recording_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    traces: list[Trace] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The library's own scaled dot product attention, written down.

    Raises:
        ValueError: without a list to write into, or with cached keys, which have no queries.
    """
    if traces is None or query.shape[2] != key.shape[2]:
        raise ValueError("recording needs a list for the traces, and queries for all keys: use no cache")
    output, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **options)
    repeats = query.shape[1] // key.shape[1]
    scaling = options.get("scaling")
    traces.append(
        Trace(
            layer=int(module.layer_idx),  # type: ignore[arg-type]
            query=query,
            key=key.repeat_interleave(repeats, dim=1),
            value=value.repeat_interleave(repeats, dim=1),
            output=output,
            visible=causal(query.shape[2], query.device) if attention_mask is None else attention_mask[:, 0],
            scaling=query.shape[-1] ** -0.5 if scaling is None else float(scaling),
            repeats=repeats,
        )
    )
    return output, None


def causal(length: int, device: torch.device | str = "cpu") -> Tensor:
    """Every token sees itself and those before it, shape ``[1, n, n]``."""
    return torch.ones(1, length, length, dtype=torch.bool, device=device).tril()
