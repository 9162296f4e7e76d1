"""Effect_D: how much a demonstration raises the log-probability of the right answer (our definition).

Exact: log p(answer) with the demonstration minus log p(answer) without its tokens in attention; positions
stay as they are. First order: one backward pass for all demonstrations,

    Effect_D = - sum over layers, heads and queries of <dl/dh, Delta h_D>,   l = -log p(answer),

with ``Delta h_D = Delta W_D phi(q) = lambda_D attention(D)`` where Z is held constant (``update``), or with
``Delta h_D = h - attention(without D) = lambda_D / (1 - lambda_D) (attention(D) - h)`` where Z is that of the
tokens which remain (``removal``; the same step seen from the model without the demonstration).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from data.types import FloatArray, IntArray
from methods.lm.logits import log_probabilities
from methods.lrgd.demonstrations import Order
from methods.lrgd.record import Trace, causal, record


@dataclass(frozen=True)
class Shown:
    """A prompt with demonstrations and the right answer behind it.

    Args:
        ids: token ids, shape ``[n]``.
        owner: number of the demonstration a token belongs to, -1 for other tokens, shape ``[n]``.
        answer: number of tokens of the answer, at the end of ``ids``.
    """

    ids: IntArray
    owner: IntArray
    answer: int

    @property
    def demonstrations(self) -> int:
        """Number of demonstrations."""
        return int(self.owner.max(initial=-1)) + 1


def answer_log_probability(model: PreTrainedModel, states: Tensor, shown: Shown) -> Tensor:
    """Log-probability of the answer in every row of last hidden states ``[batch, n, size]``, shape ``[batch]``."""
    before = states[:, -shown.answer - 1 : -1]
    targets = torch.from_numpy(shown.ids[-shown.answer :]).repeat(len(states))
    return log_probabilities(model, before.flatten(0, 1), targets).view(len(states), -1).sum(-1)


def exact_effects(model: PreTrainedModel, shown: Shown, batch: int = 16) -> FloatArray:
    """Exact Effect_D of every demonstration, shape ``[demonstrations]``.

    Args:
        model: a decoder-only model.
        shown: the prompt.
        batch: variants of the prompt per forward pass.
    """
    hidden = [-2, *range(shown.demonstrations)]
    with torch.no_grad():
        parts = [
            _without(model, shown, torch.tensor(hidden[start : start + batch]))
            for start in range(0, len(hidden), batch)
        ]
    logp = torch.cat(parts).double().cpu().numpy()
    result: FloatArray = logp[0] - logp[1:]
    return result


def _without(model: PreTrainedModel, shown: Shown, hidden: Tensor) -> Tensor:
    """Log-probability of the answer where each of some demonstrations is seen by nobody but itself."""
    owner = torch.from_numpy(shown.owner)
    own = owner[:, None] == owner[None]
    seen = (owner[None, None] != hidden[:, None, None]) | own[None]
    visible = (causal(len(owner)) & seen).to(model.device)
    ids = torch.from_numpy(shown.ids).to(model.device).expand(len(hidden), -1)
    _, states = record(model, ids, visible)
    return answer_log_probability(model, states, shown)


def first_order_effects(model: PreTrainedModel, shown: Shown, order: Order = "removal") -> FloatArray:
    """First-order Effect_D of every demonstration from one backward pass, shape ``[demonstrations]``.

    Args:
        model: a decoder-only model.
        shown: the prompt.
        order: which change of a head's output stands for a demonstration, see the module.
    """
    with torch.enable_grad():
        traces, states = record(model, torch.from_numpy(shown.ids)[None].to(model.device))
        loss = -answer_log_probability(model, states, shown).sum()
        slopes = torch.autograd.grad(loss, [trace.output for trace in traces])
    members = membership(shown).to(model.device)
    with torch.no_grad():
        total = sum(_layer_effects(t, slope, members, order) for t, slope in zip(traces, slopes, strict=True))
    result: FloatArray = total.double().cpu().numpy()  # type: ignore[union-attr]
    return result


def membership(shown: Shown) -> Tensor:
    """Whether a token belongs to a demonstration, shape ``[demonstrations, n]``."""
    return torch.from_numpy(shown.owner == np.arange(shown.demonstrations)[:, None])


def _layer_effects(trace: Trace, slope: Tensor, members: Tensor, order: Order) -> Tensor:
    """-<dl/dh, Delta h_D> of one layer, summed over heads and queries outside D, shape ``[demonstrations]``."""
    products = (trace.query @ trace.key.transpose(-1, -2) * trace.scaling).float()
    weights = products.masked_fill(~trace.visible[:, None], float("-inf")).softmax(-1)[0]
    slopes = slope[0].transpose(0, 1).float()  # [heads, n, size]
    towards = weights * (slopes @ trace.value[0].float().transpose(-1, -2))  # <dl/dh, p_j v_j>
    chosen = members.float().T
    step, outside = (towards @ chosen), ~members.T[None]
    if order == "removal":
        share = (weights @ chosen).clamp(max=1 - 1e-6)
        output = trace.output[0].transpose(0, 1).float()
        along = (slopes * output).sum(-1, keepdim=True)
        step = (step - share * along) / (1 - share)
    return -(step * outside).sum((0, 1))
