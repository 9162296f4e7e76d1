"""What the embedded backbones share: what they may learn from, how they teach themselves, and the optimiser."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss
from transformers import PreTrainedModel

from data.dataset import Catalogue
from data.histories import Histories
from data.prompts.template import DOMAIN, Template
from data.types import IntArray
from methods.lm.tuning import warmup_cosine

UNREAD = "\N{REPLACEMENT CHARACTER}"
"""A word no vocabulary holds."""

LARGEST_ODDS = 5.0
"""Odds that a model teaches itself are cut off here: beyond, the question is settled anyway."""


@dataclass(frozen=True)
class Material:
    """What a backbone learns from: nothing but the training part and the seen templates.

    Args:
        catalogue: titles and domain words.
        train: training items of every user.
        templates: seen templates.
        often: mean training interactions of an item from which titles count as known by heart.
    """

    catalogue: Catalogue
    train: Histories
    templates: Sequence[Template]
    often: float = 0.0

    @cached_property
    def by_heart(self) -> bool:
        """Whether an item is chosen so often that the model can learn the probability of its title."""
        return len(self.train.items) >= self.often * len(np.unique(self.train.items))

    @cached_property
    def popularity(self) -> Tensor:
        """Log-probability of every item without a history, relative to that of a uniform draw, shape ``[items]``."""
        counts = np.bincount(self.train.items, minlength=self.catalogue.n_items) + 1.0
        return torch.from_numpy(np.log(counts / counts.mean())).float()

    def texts(self) -> Iterator[str]:
        """All text a backbone knows words of: titles trained on, seen templates, their labels and domain words."""
        yield from self.catalogue.named(np.unique(self.train.items))
        yield from (getattr(self.catalogue.domain, name) for name in sorted(DOMAIN))
        for template in self.templates:
            yield " ".join(segment.text for segment in template.fill(self.catalogue.domain, {}).segments)
            yield from template.labels


class Pace(Protocol):
    """Settings of an optimiser, as recipes have them.

    Args:
        warmup: share of the steps of a phase in which the rate rises.
        decay: weight decay.
    """

    @property
    def warmup(self) -> float: ...  # noqa: D102

    @property
    def decay(self) -> float: ...  # noqa: D102


def optimise(
    model: PreTrainedModel,
    pace: Pace,
    steps: int,
    rate: float,
    draw: Callable[[], tuple[Tensor, int]],
    on_step: Callable[[], object],
) -> int:
    """Minimise a loss that is drawn anew every step, with its tokens; returns the number of tokens seen."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=pace.decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, warmup_cosine(steps, pace.warmup))
    model.train()
    seen = 0
    for _ in range(steps):
        loss, tokens = draw()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        seen += tokens
        on_step()
    return seen


def title_likelihoods(model: PreTrainedModel, states: Tensor, sequences: Sequence[IntArray], behind: int = 0) -> Tensor:
    """Log-probability of the title in every sequence, shape ``[sequences]``.

    Args:
        model: the model.
        states: last hidden states of all tokens of the sequences, shape ``[tokens, size]``.
        sequences: token ids: one token, then the title, then what is ``behind`` it.
        behind: number of tokens behind the title.
    """
    lengths = np.array([len(sequence) for sequence in sequences])
    last = np.cumsum(lengths) - 1
    inside = torch.from_numpy(np.delete(np.arange(lengths.sum()), np.stack([last - n for n in range(behind + 1)])))
    tokens = torch.from_numpy(np.concatenate([s[1 : len(s) - behind] for s in sequences]))
    each = -cross_entropy(model.get_output_embeddings()(states[inside]), tokens, reduction="none")
    owner = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths - 1 - behind))
    return torch.zeros(len(lengths)).index_add(0, owner, each)


def own_odds(titles: Tensor, items: IntArray, material: Material, alone: Callable[[], Tensor]) -> Tensor:
    """Log-odds that an item is the next one, from the log-probability of its title after the history.

    An item that is the next one or a uniformly drawn other one, each as likely, is the next one with log-odds
    ``log p(item | history) + log(number of items)`` (Bayes). Titles known by heart are as probable as their items.
    Where titles are long and rarely seen, their probability tells more of their wording than of the history; there
    ``p(item | history) = p(item) p(title | history) / p(title)``, with ``p(item)`` counted in the training part.

    Args:
        titles: log-probability of each title after its history, shape ``[titles]``.
        items: their items.
        material: what is learnt from.
        alone: gives the log-probability of the same titles without a history.
    """
    with torch.no_grad():
        if material.by_heart:
            odds = titles.detach() + math.log(material.catalogue.n_items)
        else:
            odds = titles.detach() - alone() + material.popularity[torch.from_numpy(items)]
        return odds.clamp(-LARGEST_ODDS, LARGEST_ODDS)


def self_taught(guess: Tensor, target: Tensor, chosen: Tensor, bits: float) -> Tensor:
    """Log-odds against what the titles say, and, with weight ``bits``, against whether the item was chosen."""
    known = 0.2 * mse_loss(guess, target)
    return known + bits * binary_cross_entropy_with_logits(guess, chosen.float())


def blanked(template: Template, rng: np.random.Generator) -> Template:
    """Half of the time the template itself, else with a random share of its words unknown.

    A real language model has read every word of a prompt it never saw. This one knows the words of the seen
    templates alone, so it learns to do without some.
    """
    share = rng.random() - 0.5
    return template.map_wording(
        lambda text: re.sub(r"\w+", lambda word: UNREAD if rng.random() < share else word[0], text)
    )
