"""Hidden states of T5 models, many decoder sequences to one encoder prompt.

A group's prefix is what the encoder reads; its suffixes are what the decoder reads, start token included.
Prompts go through the encoder once. In the decoder all tokens of a batch stand in one flat sequence: linear
layers see no padding, and the keys and values of a prompt are computed once for all its decoder sequences,
whose queries are laid side by side. Only public submodules of the T5 family are called, with their adapters.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, dropout, scaled_dot_product_attention
from transformers import PreTrainedModel

from data.types import IntArray
from methods.lm.forward import padded, spread
from methods.lm.layout import Group, Layout, sent

FAMILIES = ("t5", "mt5")


def supports_folding(model: PreTrainedModel) -> bool:
    """Whether the flat decoder is known to compute what the model's own decoder computes.

    The model's own clips activations in float16; the flat one does not.
    """
    return model.config.model_type in FAMILIES and model.dtype != torch.float16


def encoded(model: PreTrainedModel, prompts: Sequence[IntArray]) -> tuple[Tensor, Tensor]:
    """Encoder states of prompts and their mask, shapes ``[prompts, longest, size]`` and ``[prompts, longest]``.

    Identical prompts are computed once.
    """
    rows = {prompt.tobytes(): prompt for prompt in prompts}
    ids, mask = padded(list(rows.values()), model.device)
    states = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    if len(rows) == len(prompts):
        return states, mask
    places = {key: place for place, key in enumerate(rows)}
    index = torch.tensor([places[prompt.tobytes()] for prompt in prompts], device=states.device)
    return states[index], mask[index]


def pooled_states(model: PreTrainedModel, prompts: Sequence[IntArray]) -> Tensor:
    """Mean of the encoder states over the tokens of each prompt, in single precision, shape ``[prompts, size]``."""
    states, mask = encoded(model, prompts)
    weights = mask.float()[..., None]
    return (states.float() * weights).sum(1) / weights.sum(1)


def decoder_states(
    model: PreTrainedModel,
    groups: Sequence[Group],
    reads: Sequence[int] | None = None,
    folded: bool | None = None,
    encoding: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Last decoder states, scaled as the output layer expects them, group by group and sequence by sequence.

    Args:
        model: a T5 model.
        groups: prompts and what the decoder reads.
        reads: how many of the last tokens of each sequence to read; 1 if None.
        folded: whether to use the flat decoder; None where it is exact.
        encoding: encoder states of the prompts and their mask where they are known already.

    Returns:
        Shape ``[sum of reads, size]``.
    """
    lengths = np.array([len(suffix) for group in groups for suffix in group.suffixes])
    counts = np.ones(len(lengths), np.int64) if reads is None else np.asarray(reads, np.int64)
    states, mask = encoding or encoded(model, [group.prefix for group in groups])
    if supports_folding(model) if folded is None else folded:
        flat = _folded(model, groups, states, mask)
    else:
        flat = _plain(model, groups, states, mask)
    starts = np.cumsum(lengths) - counts
    read = flat if counts.sum() == len(flat) else flat[sent(flat.device, spread(starts, counts))[0]]
    return read * model.config.d_model**-0.5 if _scales(model.config) else read


def decoder_loss(
    model: PreTrainedModel,
    groups: Sequence[Group],
    answers: Sequence[int],
    encoding: tuple[Tensor, Tensor] | None = None,
    by_prompt: bool = False,
) -> Tensor:
    """Mean cross-entropy of the last ``answers`` tokens of every decoder sequence.

    Args:
        model: a T5 model.
        groups: prompts and decoder sequences with the answer at their end.
        answers: tokens of the answer of each sequence, fewer than the sequence has.
        encoding: encoder states of the prompts and their mask where they are known already.
        by_prompt: the mean over prompts of the mean over their answers' tokens, not that over all tokens.
    """
    sequences = [suffix for group in groups for suffix in group.suffixes]
    targets = np.concatenate([s[len(s) - n :] for s, n in zip(sequences, answers, strict=True)])
    inputs = [Group(group.prefix, tuple(suffix[:-1] for suffix in group.suffixes)) for group in groups]
    logits = model.get_output_embeddings()(decoder_states(model, inputs, answers, encoding=encoding)).float()
    gold = torch.from_numpy(targets).to(logits.device)
    if not by_prompt:
        return cross_entropy(logits, gold)
    sizes = np.array([len(group.suffixes) for group in groups])
    tokens = np.add.reduceat(answers, np.cumsum(sizes) - sizes)
    weights = torch.from_numpy(np.repeat(1 / (tokens * len(groups)), tokens)).to(logits)
    return (cross_entropy(logits, gold, reduction="none") * weights).sum()


def _scales(config: Any) -> bool:
    """Whether the states are divided by the root of their size before the output layer: the first T5s alone do."""
    return bool(getattr(config, "scale_decoder_outputs", False))


def _plain(model: PreTrainedModel, groups: Sequence[Group], states: Tensor, mask: Tensor) -> Tensor:
    """The model's own decoder over repeated encoder states."""
    counts = torch.tensor([len(group.suffixes) for group in groups], device=states.device)
    ids, own = padded([suffix for group in groups for suffix in group.suffixes], model.device)
    output = model.get_decoder()(
        input_ids=ids,
        attention_mask=own,
        encoder_hidden_states=states.repeat_interleave(counts, dim=0),
        encoder_attention_mask=mask.repeat_interleave(counts, dim=0),
        use_cache=False,
    )
    flat: Tensor = output.last_hidden_state[own.bool()]
    return flat


def _folded(model: PreTrainedModel, groups: Sequence[Group], states: Tensor, mask: Tensor) -> Tensor:
    """Decoder states of all tokens, shape ``[n, size]``."""
    decoder: Any = model.get_decoder()
    layout = Layout.of(groups, model.device)
    ids = np.concatenate([suffix for group in groups for suffix in group.suffixes])
    hidden = decoder.dropout(decoder.embed_tokens(torch.from_numpy(ids).to(model.device)))
    visible = mask[:, None, None].bool()
    bias = None
    for block in decoder.block:
        own, cross, inner = block.layer
        if own.SelfAttention.has_relative_attention_bias:
            bias = _causal_bias(own.SelfAttention, layout.sequences.index.shape[1])
        hidden = hidden + own.dropout(_own(own.SelfAttention, own.layer_norm(hidden), layout, bias))
        asked = cross.layer_norm(hidden)
        hidden = hidden + cross.dropout(_cross(cross.EncDecAttention, asked, states, layout, visible))
        hidden = inner(hidden)
    final: Tensor = decoder.dropout(decoder.final_layer_norm(hidden))
    return final


def _causal_bias(attention: Any, length: int) -> Tensor:
    """Relative position bias where a token looks back, minus infinity ahead, shape ``[1, heads, s, s]``."""
    bias: Tensor = attention.compute_bias(length, length)
    ahead = torch.ones(length, length, dtype=torch.bool, device=bias.device).triu(1)
    return bias.masked_fill(ahead, float("-inf"))


def _own(attention: Any, hidden: Tensor, layout: Layout, bias: Tensor | None) -> Tensor:
    """Causal self-attention within every sequence; padding stands behind, where nothing looks."""
    heads = attention.n_heads
    q, k, v = (
        layout.sequences.take(project(hidden)).unflatten(-1, (heads, -1)).transpose(1, 2)
        for project in (attention.q, attention.k, attention.v)
    )
    weights = (q @ k.transpose(-1, -2) + bias).float().softmax(-1).to(v.dtype)
    weights = dropout(weights, attention.dropout, attention.training)
    output: Tensor = attention.o(layout.sequences.flat((weights @ v).transpose(1, 2)).flatten(1))
    return output


def _cross(attention: Any, hidden: Tensor, states: Tensor, layout: Layout, visible: Tensor) -> Tensor:
    """Attention of all decoder tokens of a group to the states of its prompt."""
    heads = attention.n_heads
    q = layout.groups.take(attention.q(hidden)).unflatten(-1, (heads, -1)).transpose(1, 2)
    k, v = (
        project(states).view(*states.shape[:2], heads, -1).transpose(1, 2) for project in (attention.k, attention.v)
    )
    share = attention.dropout if attention.training else 0.0
    seen = scaled_dot_product_attention(q, k, v, attn_mask=visible, dropout_p=share, scale=1.0)
    output: Tensor = attention.o(layout.groups.flat(seen.transpose(1, 2)).flatten(1))
    return output
