"""What the output layer of a language model says of hidden states, for no more tokens than are asked about."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

ROWS = 4096
"""States whose logits of the whole vocabulary are held at a time."""


def head(model: PreTrainedModel, states: Tensor, tokens: Tensor) -> Tensor:
    """Logits of some tokens, shape ``[states, tokens]``: only their rows of the output layer are used."""
    layer = model.get_output_embeddings()
    weight = layer.weight[tokens.to(layer.weight.device)]
    bias = None if layer.bias is None else layer.bias[tokens.to(layer.weight.device)]
    return torch.nn.functional.linear(states.float(), weight.float(), None if bias is None else bias.float())


def word_odds(model: PreTrainedModel, states: Tensor, words: Sequence[int]) -> Tensor:
    """Log-odds of the first against the second word after each state, shape ``[states]``."""
    logits = head(model, states, torch.tensor(words))
    return logits[:, 0] - logits[:, 1]


def log_probabilities(model: PreTrainedModel, states: Tensor, targets: Tensor, rows: int = ROWS) -> Tensor:
    """Log-probability of one token after each state, shape ``[states]``; ``rows`` states at a time."""
    layer = model.get_output_embeddings()

    def read(states: Tensor, targets: Tensor) -> Tensor:
        logits = layer(states).float()
        if states.dtype != torch.float32:  # rounded, candidates would tie
            logits[torch.arange(len(targets)), targets] = target_logits(model, states, targets)
        return -torch.nn.functional.cross_entropy(logits, targets, reduction="none")

    parts = zip(states.split(rows), targets.to(states.device).split(rows), strict=True)
    return torch.cat([read(*part) for part in parts])


def target_logits(model: PreTrainedModel, states: Tensor, targets: Tensor) -> Tensor:
    """Logit of one token after each state in single precision, whatever the model's; shape ``[states]``."""
    layer = model.get_output_embeddings()
    weight, bias = layer.weight[targets].float(), 0 if layer.bias is None else layer.bias[targets].float()
    logits: Tensor = (states.float() * weight).sum(-1) + bias
    return logits
