"""First-order candidates for triggers: which tokens the gradient says would lower the loss most.

Source: HotFlip (Ebrahimi et al., 2018) and AutoPrompt (Shin et al., 2020), as PAP-REC uses them.
"""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from data.types import IntArray
from methods.lm.forward import padded
from methods.lm.memory import has_room_for
from methods.lm.t5 import decoder_loss
from methods.paprec.prompts import Placed

log = logging.getLogger(__name__)
ROWS = 64
"""Examples per backward pass, where nobody says how many."""

USERS = 1024
"""Users whose candidates are ranked at once."""


def trigger_gradients(model: PreTrainedModel, examples: Placed, tokens: IntArray) -> Tensor:
    """Gradient of each example's loss at the encoder input embeddings of its triggers, shape ``[rows, size, width]``.

    The loss of an example is the mean over the tokens of its one answer.

    Args:
        model: a T5 model in evaluation mode.
        examples: prompts with their answers.
        tokens: triggers of all users, shape ``[users, size]``.
    """
    groups = examples.shown(tokens)
    ids, mask = padded([group.prefix for group in groups], model.device)
    inputs = model.get_input_embeddings()(ids).detach().requires_grad_()
    encoder: Any = model.get_encoder()
    states = encoder(inputs_embeds=inputs, attention_mask=mask).last_hidden_state
    answers = [sum(counts) for counts in examples.answers]
    # The loss is the mean over the tokens of all examples; each gets the factor that makes it that of its own.
    (gradient,) = torch.autograd.grad(decoder_loss(model, groups, answers, (states, mask)), inputs)
    places = [gradient[row, examples.places(row, tokens.shape[1])] for row in range(len(examples))]
    factors = sum(answers) / torch.tensor(answers, device=gradient.device)
    return torch.stack(places).float() * factors[:, None, None]


def first_order(gradients: Tensor, embeddings: Tensor) -> Tensor:
    """Estimated fall of the loss when a token takes the place, up to a constant, shape ``[rows, tokens]``.

    ``loss(e') - loss(e) = <gradient, e' - e>`` to first order, of which ``<gradient, e>`` is the same for all tokens.

    Args:
        gradients: at the input embedding of one position, shape ``[rows, width]``.
        embeddings: of the tokens, shape ``[tokens, width]``.
    """
    estimated: Tensor = -gradients @ embeddings.T
    return estimated


@dataclass
class Proposer:
    """Proposes tokens for a position, for all users together or for each.

    Args:
        model: a T5 model in evaluation mode.
        vocabulary: ids of the tokens to choose from.
        examples: training examples of users.
        sample: some of their rows, for proposals for all users together.
        top: tokens proposed.
        rows: examples per backward pass.
    """

    model: PreTrainedModel
    vocabulary: IntArray
    examples: Placed
    sample: IntArray
    top: int = 5
    rows: int = ROWS
    _at: IntArray | None = None
    _known: Tensor | None = None

    def __call__(self, tokens: IntArray, position: int, each: bool) -> IntArray:
        """The best tokens by first order other than the present one, best first, shape ``[users or 1, top]``.

        Args:
            tokens: triggers of all users, shape ``[users, size]``.
            position: which trigger.
            each: whether to propose for each user from their own mean gradient, or for all from that of the sample.
        """
        means = self._means(tokens, position, each)
        vocabulary = torch.from_numpy(self.vocabulary).to(means.device)
        layer: Any = self.model.get_input_embeddings()
        embeddings = layer.weight.detach()[vocabulary].float()
        present = torch.from_numpy(tokens[: len(means), position]).to(means.device)
        best = []
        for some, now in zip(means.split(USERS), present.split(USERS), strict=True):
            scores = first_order(some, embeddings).masked_fill(vocabulary == now[:, None], float("-inf"))
            best.append(vocabulary[scores.topk(min(self.top, len(vocabulary) - 1)).indices])
        proposed: IntArray = torch.cat(best).cpu().numpy()
        return proposed

    def _means(self, tokens: IntArray, position: int, each: bool) -> Tensor:
        """Mean gradients, shape ``[users or 1, width]``; users without an example get the mean of all."""
        rows = np.arange(len(self.examples)) if each else self.sample
        gradients = self._gradients(rows, tokens)[torch.from_numpy(rows), position]
        common = gradients.sum(0, keepdim=True) / max(1, len(rows))
        if not each:
            return common
        owners = torch.from_numpy(self.examples.users).to(gradients.device)
        counts = torch.bincount(owners, minlength=len(tokens))[:, None]
        sums = gradients.new_zeros(len(tokens), gradients.shape[1]).index_add_(0, owners, gradients)
        return torch.where(counts > 0, sums / counts.clamp(min=1), common)

    def _gradients(self, rows: IntArray, tokens: IntArray) -> Tensor:
        """Gradients of all examples, shape ``[examples, size, width]``.

        Those of some rows are taken again where a trigger has changed; the others may be out of date.
        """
        if self._at is None or self._known is None:
            shape = len(self.examples), tokens.shape[1]
            self._at, self._known = np.full(shape, -1), torch.zeros(*shape, self.model.config.d_model)
            self._known = self._known.to(self.model.device)
        now = tokens[self.examples.users]
        stale = rows[(self._at[rows] != now[rows]).any(axis=1)]
        stale = stale[np.argsort([len(self.examples.groups[row].prefix) for row in stale.tolist()], kind="stable")]
        start = 0
        while start < len(stale):
            some = stale[start : start + self.rows]
            if not has_room_for(partial(self._take, some, tokens), least=len(some) == 1):
                self.rows = len(some) // 2
                log.warning("out of memory with %d examples: going on with %d at a time", len(some), self.rows)
                continue
            start += len(some)
        self._at[stale] = now[stale]
        return self._known

    def _take(self, rows: IntArray, tokens: IntArray) -> None:
        """Take the gradients of some examples."""
        assert self._known is not None
        self._known[torch.from_numpy(rows)] = trigger_gradients(self.model, self.examples.select(rows), tokens)
