"""What is learnt from, and the loop of both stages."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from tqdm import tqdm

from data.prompts.template import Template
from data.random import generator
from methods.base import Task
from methods.ganprompt.prompts import Attributes
from methods.lm.questions import Sampling, Window, pick, windows
from methods.lm.tuning import warmup_cosine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """A stretch of a training history with items to ask about, and how the question is worded."""

    template: Template
    shown: Window


@dataclass(frozen=True)
class Lessons:
    """Batches of examples, drawn anew for every epoch.

    Args:
        task: training histories and seen templates.
        sampling: how windows are drawn.
        attributes: what prompts are diversified with; None to leave them as they are. The windows and templates
            are the same with and without.
        windows: examples per epoch.
        batch: examples per step.
        seed: of all draws, with ``purpose``.
        purpose: keeps the draws of the two stages apart.
    """

    task: Task
    sampling: Sampling
    attributes: Attributes | None
    windows: int
    batch: int
    seed: int
    purpose: str

    def epoch(self, number: int) -> Iterator[list[Example]]:
        """The batches of one epoch."""
        examples = islice(self._examples(number), self.windows)
        while batch := list(islice(examples, self.batch)):
            yield batch

    def _examples(self, number: int) -> Iterator[Example]:
        rng = generator(self.seed, self.purpose, number)
        own = generator(self.seed, self.purpose, "attributes", number)
        for shown in windows(self.task.train, self.sampling, rng):
            template = pick(self.task.templates["recommend"], rng)
            yield Example(self.attributes.diversify(template, own) if self.attributes else template, shown)


@dataclass(frozen=True)
class Part:
    """A module that learns.

    Args:
        module: in training mode during a step.
        parameters: those of its parameters that learn.
        rate: their highest learning rate.
    """

    module: nn.Module
    parameters: tuple[nn.Parameter, ...]
    rate: float


@dataclass(frozen=True)
class Outcome:
    """Epochs made, whether validation ended them, and the best validation value (not a number if none was asked)."""

    epochs: int
    converged: bool
    best: float


def optimise(
    parts: Sequence[Part],
    epochs: Iterable[Iterable[list[Example]]],
    loss: Callable[[list[Example]], Tensor],
    steps: int,
    seed: int,
    label: str,
    measure: Callable[[], float] | None = None,
    patience: int = 1,
) -> Outcome:
    """Minimise a loss with AdamW (without decay, that is Adam), warm-up, cosine and clipping.

    Args:
        parts: what learns.
        epochs: batches of every epoch.
        loss: of a batch.
        steps: optimiser steps of all epochs, for the schedule.
        seed: seed of dropout.
        label: name of the progress bar.
        measure: quality on validation, asked before the first and after every epoch; the weights that were best
            are kept. None to keep the last ones.
        patience: epochs without a better value before it stops.
    """
    learnt = [parameter for part in parts for parameter in part.parameters]
    groups = [{"params": list(part.parameters), "lr": part.rate} for part in parts]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, warmup_cosine(steps, warmup=0.1))
    best, kept = float("nan"), []
    if measure:
        best, kept = measure(), _copy(learnt)
        log.info("%s: validation AUC %.4f before", label, best)
    done = since = 0
    devices = [d.index or 0 for d in {p.device for p in learnt} if d.type == "cuda"]
    with torch.random.fork_rng(devices=devices), tqdm(total=steps, desc=label, unit="step", leave=False) as bar:
        torch.manual_seed(seed)
        for batches in epochs:
            for batch in batches:
                with _learning(parts):
                    loss(batch).backward()
                torch.nn.utils.clip_grad_norm_(learnt, 1.0)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                schedule.step()
                bar.update()
            done += 1
            if measure is None:
                continue
            quality, since = measure(), since + 1
            log.info("%s: epoch %d, validation AUC %.4f", label, done, quality)
            if quality > best:
                best, kept, since = quality, _copy(learnt), 0
            if since >= patience:
                break
    if kept:
        with torch.no_grad():
            for parameter, value in zip(learnt, kept, strict=True):
                parameter.copy_(value)
    return Outcome(done, since >= patience, best)


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
