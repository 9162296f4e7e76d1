"""Tuning a language model on questions, with early stopping on validation lists."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from data.random import generator
from data.types import FloatArray
from methods.base import Requests, Task
from methods.lm.forward import answer_loss, shortcut_for
from methods.lm.memory import has_room_for
from methods.lm.questions import Questions
from methods.lm.t5 import decoder_loss

log = logging.getLogger(__name__)
Batch = TypeVar("Batch", bound=Any)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to tune.

    Args:
        rate: highest learning rate.
        steps: optimiser steps of all epochs.
        patience: epochs without a better validation value before it stops.
        warmup: share of the steps in which the rate rises; then it falls along a cosine.
        least: epochs before the first weights that may be kept; with 0 those it began with may be.
    """

    rate: float
    steps: int
    patience: int = 10
    warmup: float = 0.1
    least: int = 0


@dataclass(frozen=True)
class Part:
    """A module that learns.

    Args:
        module: in training mode during a step, and only then.
        parameters: those of its parameters that learn.
        rate: their highest learning rate; that of the schedule if None.
    """

    module: nn.Module
    parameters: Sequence[nn.Parameter]
    rate: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How tuning went.

    Args:
        epochs: epochs made.
        converged: whether validation ended them; None where there were none.
        best: best validation value; not a number if none was asked.
        kept: the epoch whose weights were kept, 0 for those it began with.
    """

    epochs: int
    converged: bool | None
    best: float
    kept: int

    def __str__(self) -> str:
        return f"validation AUC {self.best:.3f} {f'after epoch {self.kept}' if self.kept else 'before tuning'}"


@dataclass(frozen=True)
class Tuned(Outcome):
    """What tuning took.

    Args:
        questions: questions learnt from, repeated ones counted.
        tokens: tokens computed in training.
    """

    questions: int
    tokens: int


def tune(
    model: PreTrainedModel,
    epochs: Iterable[Iterable[Sequence[Questions]]],
    measure: Callable[[], float],
    schedule: Schedule,
    seed: int,
    label: str = "tuning",
    learns: nn.Module | None = None,
    by_prompt: bool = False,
) -> Tuned:
    """Minimise the cross-entropy of the answers; keep the weights that were best on validation.

    A batch that does not fit into memory is learnt from in pieces: the gradients are the same but for dropout.

    Args:
        model: a decoder-only model or a T5; only parameters that require a gradient are changed.
        epochs: batches of every epoch.
        measure: quality on validation, higher is better; asked before the first and after every epoch.
        schedule: rates, steps and patience.
        seed: seed of dropout.
        label: name of the progress bar.
        learns: the part of the model that is in training mode; None for all of it.
        by_prompt: whether every prompt of a T5 counts the same, however many tokens its answers have.
    """
    asked = tokens = 0

    def counted(batches: Iterable[Sequence[Questions]]) -> Iterator[Sequence[Questions]]:
        nonlocal asked, tokens
        for batch in batches:
            asked, tokens = asked + sum(len(q.answers) for q in batch), tokens + sum(q.group.tokens for q in batch)
            yield batch

    def loss(batch: Sequence[Questions]) -> Tensor:
        groups, answers = [q.group for q in batch], [count for q in batch for count in q.answers]
        if model.config.is_encoder_decoder:
            return decoder_loss(model, groups, answers, by_prompt=by_prompt)
        return answer_loss(model, groups, answers, shortcut_for(model))

    part = Part(learns or model, [parameter for parameter in model.parameters() if parameter.requires_grad])
    worded = (counted(batches) for batches in epochs)
    weigh: Callable[[Questions], float] = (lambda _: 1) if by_prompt else (lambda q: sum(q.answers))
    outcome = optimise([part], worded, loss, schedule, seed, label, measure, weigh)
    return Tuned(**vars(outcome), questions=asked, tokens=tokens)


def optimise(
    parts: Sequence[Part],
    epochs: Iterable[Iterable[Batch]],
    loss: Callable[[Batch], Tensor],
    schedule: Schedule,
    seed: int,
    label: str,
    measure: Callable[[], float] | None = None,
    weigh: Callable[[Any], float] | None = None,
) -> Outcome:
    """Minimise any loss with AdamW without weight decay, gradients clipped to norm 1.

    Args:
        parts: what learns.
        epochs: batches of every epoch.
        loss: of a batch.
        schedule: rates, steps and patience.
        seed: seed of dropout.
        label: name of the progress bar.
        measure: quality on validation, asked before the first and after every epoch; the weights that were best
            are kept. None to keep the last ones.
        weigh: weight of a member of a batch, where batches are sequences and the loss is a weighted mean over them;
            then a batch that does not fit into memory is computed in pieces.
    """
    learnt = [parameter for part in parts for parameter in part.parameters]
    groups = [{"params": list(part.parameters), "lr": part.rate or schedule.rate} for part in parts]
    optimiser = torch.optim.AdamW(groups, lr=schedule.rate, weight_decay=0.0)
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, warmup_cosine(schedule.steps, schedule.warmup))
    best, weights = (measure(), _copy(learnt)) if measure else (float("nan"), [])
    done = since = kept = 0
    if measure:
        log.info("%s: before, validation %.4f", label, best)
    if schedule.least:
        best = -math.inf
    backward = _Backward(loss, weigh, optimiser)
    devices = [device.index or 0 for device in {p.device for p in learnt} if device.type == "cuda"]
    with torch.random.fork_rng(devices=devices), tqdm(total=schedule.steps, desc=label, unit="step") as bar:
        torch.manual_seed(seed)
        for batches in epochs:
            for batch in batches:
                with _learning(parts):
                    backward(batch)
                torch.nn.utils.clip_grad_norm_(learnt, 1.0)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                rates.step()
                bar.update()
            done += 1
            if measure is None:
                continue
            quality, since = measure(), since + 1
            bar.set_postfix(validation=f"{quality:.3f}")
            log.info("%s: epoch %d, validation %.4f", label, done, quality)
            if quality > best and done >= schedule.least:
                best, weights, kept, since = quality, _copy(learnt), done, 0
            if since >= schedule.patience and done >= schedule.least:
                break
    with torch.no_grad():
        for parameter, value in zip(learnt, weights, strict=False):
            parameter.copy_(value)
    return Outcome(done, since >= schedule.patience if done else None, best, kept if measure else done)


@dataclass
class _Backward(Generic[Batch]):
    """The backward pass of a batch: of all its members at a time, or of fewer where memory has been too short."""

    loss: Callable[[Batch], Tensor]
    weigh: Callable[[Any], float] | None
    optimiser: torch.optim.Optimizer
    most: int | None = None

    def __call__(self, batch: Batch) -> None:
        while not has_room_for(partial(self._pieces, batch), self.weigh is None or self.most == 1 or len(batch) == 1):
            self.optimiser.zero_grad(set_to_none=True)  # what pieces before have left
            self.most = -(-min(self.most or len(batch), len(batch)) // 2)
            log.warning("out of memory with a batch of %d: going on in pieces of %d", len(batch), self.most)

    def _pieces(self, batch: Batch) -> None:
        if self.weigh is None or self.most is None:
            self.loss(batch).backward()
            return
        weights = [self.weigh(member) for member in batch]
        for start in range(0, len(batch), self.most):
            end = start + self.most
            (self.loss(batch[start:end]) * (sum(weights[start:end]) / sum(weights))).backward()


@contextmanager
def _learning(parts: Sequence[Part]) -> Iterator[None]:
    """Training mode for what learns; what is frozen stays in evaluation mode, without dropout."""
    for part in parts:
        part.module.train()
    yield
    for part in parts:
        part.module.eval()


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


def valid_sample(task: Task, users: int, negatives: int, seed: int) -> Requests:
    """Some validation users with some of their negatives, cheap enough to ask often; the positive is in column 0."""
    rng = generator(seed, "validation sample")
    rows = np.sort(rng.permutation(len(task.valid))[:users])
    valid, positive = task.valid.select(rows), task.valid_positive[rows]
    turn = rng.random(valid.candidates.shape)
    np.put_along_axis(turn, positive[:, None], -1, axis=1)
    columns = np.argsort(turn, axis=1)[:, : negatives + 1]
    shown = np.take_along_axis(valid.candidates, columns, axis=1)
    return replace(valid, candidates=shown)


def list_auc(scores: FloatArray) -> float:
    """Mean share of negatives below the positive in column 0; ties count half.

    >>> list_auc(np.array([[2.0, 1.0, 3.0]]))
    0.5
    """
    positive, negative = scores[:, :1], scores[:, 1:]
    return float(((positive > negative) + 0.5 * (positive == negative)).mean())
