"""Tuning a language model on questions, with early stopping on validation lists."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from data.random import generator
from data.types import FloatArray, IntArray
from methods.base import Requests, Task
from methods.lm.forward import answer_loss, shortcut_for
from methods.lm.questions import Questions
from methods.lm.t5 import decoder_loss

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to tune.

    Args:
        rate: highest learning rate.
        steps: optimiser steps of all epochs.
        patience: epochs without a better validation value before it stops.
        warmup: share of the steps in which the rate rises; then it falls along a cosine.
    """

    rate: float
    steps: int
    patience: int = 10
    warmup: float = 0.1


@dataclass(frozen=True)
class Tuned:
    """What tuning took.

    Args:
        epochs: passes made.
        converged: whether it stopped because validation no longer got better.
        questions: questions learnt from, repeated ones counted.
        tokens: tokens computed in training.
        best: best validation AUC.
    """

    epochs: int
    converged: bool
    questions: int
    tokens: int
    best: float


def tune(
    model: PreTrainedModel,
    epochs: Iterable[Iterable[Sequence[Questions]]],
    measure: Callable[[], float],
    schedule: Schedule,
    seed: int,
    label: str = "tuning",
) -> Tuned:
    """Minimise the cross-entropy of the answers; keep the weights that were best on validation.

    Args:
        model: a decoder-only model or a T5; only parameters that require a gradient are changed.
        epochs: batches of every epoch.
        measure: quality on validation, higher is better; asked before the first and after every epoch.
        schedule: rates, steps and patience.
        seed: seed of dropout.
        label: name of the progress bar.
    """
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learnt, lr=schedule.rate, weight_decay=0.0)
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, warmup_cosine(schedule.steps, schedule.warmup))
    best, kept, since = measure(), _copy(learnt), 0
    done = asked = tokens = 0
    devices = [model.device.index or 0] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), tqdm(total=schedule.steps, desc=label, unit="step") as bar:
        torch.manual_seed(seed)
        for batches in epochs:
            for batch in batches:
                _learn(model, batch, optimiser, learnt)
                rates.step()
                bar.update()
                asked += sum(len(questions.answers) for questions in batch)
                tokens += sum(questions.group.tokens for questions in batch)
            done, since, quality = done + 1, since + 1, measure()
            bar.set_postfix(validation=f"{quality:.3f}")
            log.info("%s: epoch %d, validation %.4f", label, done, quality)
            if quality > best:
                best, kept, since = quality, _copy(learnt), 0
            if since >= schedule.patience:
                break
    with torch.no_grad():
        for parameter, value in zip(learnt, kept, strict=True):
            parameter.copy_(value)
    return Tuned(done, since >= schedule.patience, asked, tokens, best)


def _learn(
    model: PreTrainedModel,
    batch: Sequence[Questions],
    optimiser: torch.optim.Optimizer,
    learnt: Sequence[Tensor],
) -> None:
    """One step; the model is in training mode only meanwhile."""
    answers = [count for questions in batch for count in questions.answers]
    model.train()
    groups = [questions.group for questions in batch]
    if model.config.is_encoder_decoder:
        decoder_loss(model, groups, answers).backward()
    else:
        answer_loss(model, groups, answers, shortcut_for(model)).backward()
    torch.nn.utils.clip_grad_norm_(learnt, 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    model.eval()


def _copy(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


def warmup_cosine(steps: int, warmup: float) -> Callable[[int], float]:
    """Factor of the learning rate: a linear rise in the given share of the steps, then half a cosine to 0."""
    rise = max(1, round(steps * warmup))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + float(np.cos(np.pi * (step - rise) / max(1, steps - rise))))

    return factor


def valid_sample(task: Task, users: int, negatives: int, seed: int) -> tuple[Requests, IntArray]:
    """Some validation users with some of their negatives, cheap enough to ask often.

    Returns:
        Requests with the positive in column 0, and the rows of ``task.valid`` they are.
    """
    rng = generator(seed, "validation sample")
    rows = np.sort(rng.permutation(len(task.valid))[:users])
    valid, positive = task.valid.select(rows), task.valid_positive[rows]
    columns = np.argsort(np.arange(valid.candidates.shape[1])[None] != positive[:, None], axis=1, kind="stable")
    shown = np.take_along_axis(valid.candidates, columns[:, : negatives + 1], axis=1)
    return Requests(valid.users, valid.histories, shown, valid.catalogue, valid.templates), rows


def list_auc(scores: FloatArray) -> float:
    """Mean share of negatives below the positive in column 0; ties count half.

    >>> list_auc(np.array([[2.0, 1.0, 3.0]]))
    0.5
    """
    positive, negative = scores[:, :1], scores[:, 1:]
    return float(((positive > negative) + 0.5 * (positive == negative)).mean())
