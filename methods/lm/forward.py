"""Last hidden states of groups of prompts, with the shortcuts a model admits."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from methods.lm.attention import NAME, Tree, installed, supports_tree, tree_attention
from methods.lm.last_layer import ALONE, ends_alone
from methods.lm.layout import Group, sent

Shortcut = Literal["tree", "repeat", "none"]
"""How a common prefix is used: attention over a tree of tokens, a repeated key/value cache, or not at all."""


@contextmanager
def trees(model: PreTrainedModel) -> Iterator[None]:
    """Let a model read trees; within it, :func:`hidden_states` can be called by several threads."""
    if model.config._attn_implementation == NAME:
        yield
        return
    last = ends_alone(model) if model.config.model_type in ALONE else nullcontext()
    with installed(model, NAME, tree_attention), last:
        yield


def shortcut_for(model: PreTrainedModel) -> Shortcut:
    """The fastest shortcut that is exact for the model."""
    return "tree" if supports_tree(model) else "none"


def hidden_states(
    model: PreTrainedModel, groups: Sequence[Group], shortcut: Shortcut, reads: Sequence[int] | None = None
) -> Tensor:
    """Last hidden states, one after the other in the order of groups, sequences and positions.

    Args:
        model: a decoder-only model.
        groups: what to compute.
        shortcut: how common prefixes are used.
        reads: how many of the last tokens of each sequence to read, not more than its suffix has; 1 if None.

    Returns:
        Shape ``[sum of reads, size]``.
    """
    lengths = [len(suffix) for group in groups for suffix in group.suffixes]
    counts = np.ones(len(lengths), np.int64) if reads is None else np.asarray(reads, np.int64)
    if shortcut == "tree":
        return _tree(model, groups, counts)
    if shortcut == "repeat":
        return torch.cat(
            [_repeated(model, group, c) for group, c in zip(groups, _by_group(groups, counts), strict=True)]
        )
    sequences = [np.concatenate([group.prefix, suffix]) for group in groups for suffix in group.suffixes]
    ids, mask = padded(sequences, model.device)
    states = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    read: Tensor = states[_last(np.array([len(sequence) for sequence in sequences]), counts)]
    return read


def answer_loss(model: PreTrainedModel, groups: Sequence[Group], answers: Sequence[int], shortcut: Shortcut) -> Tensor:
    """Mean cross-entropy of the last ``answers`` tokens of every sequence.

    Args:
        model: a decoder-only model.
        groups: sequences with the answer behind them.
        answers: tokens of the answer of each sequence, fewer than its suffix has.
        shortcut: how common prefixes are used.
    """
    sequences = [suffix for group in groups for suffix in group.suffixes]
    targets = np.concatenate([s[len(s) - n :] for s, n in zip(sequences, answers, strict=True)])
    inputs = [Group(group.prefix, tuple(suffix[:-1] for suffix in group.suffixes)) for group in groups]
    logits = model.get_output_embeddings()(hidden_states(model, inputs, shortcut, answers))
    return torch.nn.functional.cross_entropy(logits.float(), torch.from_numpy(targets).to(logits.device))


def padded(sequences: Sequence[np.ndarray], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids padded at the right with 0, and their mask, shape ``[sequences, longest]``."""
    ids = np.zeros((len(sequences), max(map(len, sequences))), np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    there, shown = sent(device, ids, mask)
    return there, shown


def _tree(model: PreTrainedModel, groups: Sequence[Group], counts: np.ndarray) -> Tensor:
    # Models learn as transformers has them.
    alone = bool((counts == 1).all()) and not torch.is_grad_enabled() and model.config.model_type in ALONE
    shared = [group.worth_sharing() for group in groups]
    tree = Tree.of(shared, model.device, alone)
    with trees(model):
        output = model.base_model(input_ids=tree.ids, position_ids=tree.positions, use_cache=False, tree=tree)
    states: Tensor = output.last_hidden_state[0]
    if alone:
        return states
    lengths = [len(suffix) for group in shared for suffix in group.suffixes]
    starts = sum(len(group.prefix) for group in shared) + np.cumsum(lengths) - counts
    return states[sent(model.device, spread(starts, counts))[0]]


def _repeated(model: PreTrainedModel, group: Group, counts: np.ndarray) -> Tensor:
    ids, mask = padded(group.suffixes, model.device)
    lengths = np.array([len(suffix) for suffix in group.suffixes])
    past = None
    if len(group.prefix):
        prefix = torch.from_numpy(group.prefix[None]).to(model.device)
        past = DynamicCache(config=model.config)
        remembered(model.base_model, past, input_ids=prefix)
        past.batch_repeat_interleave(len(ids))
        mask = torch.cat([mask.new_ones(len(ids), len(group.prefix)), mask], dim=1)
    positions = torch.arange(len(group.prefix), mask.shape[1], device=model.device)[None]
    states = remembered(model.base_model, past, input_ids=ids, attention_mask=mask, position_ids=positions)
    read: Tensor = states[_last(lengths, counts)]
    return read


def remembered(base: nn.Module, past: DynamicCache | None, **inputs: Tensor) -> Tensor:
    """Last hidden states behind what is in a key/value cache, to which the inputs are added."""
    known = inspect.signature(base.forward).parameters
    name = "cache" if "cache" in known else "past_key_values"  # which transformers 5.40 no longer knows
    states: Tensor = base(**inputs, **{name: past}, use_cache=past is not None).last_hidden_state
    return states


def _by_group(groups: Sequence[Group], counts: np.ndarray) -> list[np.ndarray]:
    return np.split(counts, np.cumsum([len(group.suffixes) for group in groups])[:-1])


def spread(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``starts[i], starts[i] + 1, ...`` for ``counts[i]`` numbers each."""
    return np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())


def _last(lengths: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the last ``counts`` of the first ``lengths`` positions of each row."""
    return np.repeat(np.arange(len(lengths)), counts), spread(lengths - counts, counts)
