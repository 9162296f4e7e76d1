"""Yes/no questions about training histories, many per history."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data.dataset import Catalogue
from data.histories import Histories
from data.prompts.template import Template
from data.types import BoolArray, IntArray
from methods.lm.layout import Group
from methods.lm.prompts import Encoder, common_prefix


@dataclass(frozen=True)
class Window:
    """A stretch of one user's training history and items to ask about after it.

    Args:
        history: items shown, oldest first.
        items: items asked about.
        chosen: whether the user chose the item afterwards, shape as ``items``.
        user: whose history it is; -1 where that does not matter.
    """

    history: IntArray
    items: IntArray
    chosen: BoolArray
    user: int = -1


@dataclass(frozen=True)
class Sampling:
    """How windows are drawn.

    Args:
        shortest: least number of items shown, where that many came before.
        longest: most items shown.
        positives: items asked about that come next, one after the other.
        negatives: items asked about that the user did not choose in training.
        popular: share of the negatives drawn as often as they are chosen, so that being popular is not
            enough to be a good answer; the others are drawn uniformly, as in candidate lists.
    """

    shortest: int = 3
    longest: int = 10
    positives: int = 1
    negatives: int = 1
    popular: float = 0.0


def windows(train: Histories, sampling: Sampling, rng: np.random.Generator) -> Iterator[Window]:
    """Windows before random interactions of the training part, without end.

    Negatives are drawn from the items somebody chose in training: an item that is only tested on is
    never shown, not even as a negative.

    Raises:
        ValueError: if no user has two items.
    """
    pools = (train.items, np.unique(train.items))
    lengths = train.lengths
    users = np.repeat(np.arange(len(train)), np.maximum(lengths - 1, 0))
    if not len(users):
        raise ValueError("no user has two training items: there is nothing to ask about")
    while True:
        for user in users[rng.permutation(len(users))].tolist():
            yield _window(user, train[user], pools, sampling, rng)


def _window(
    user: int, items: IntArray, pools: tuple[IntArray, IntArray], sampling: Sampling, rng: np.random.Generator
) -> Window:
    """One window of one history, with what comes next and negatives from the two pools."""
    cut = int(rng.integers(1, len(items)))
    length = int(rng.integers(sampling.shortest, sampling.longest + 1))
    positives = items[cut : cut + sampling.positives]
    popular = round(sampling.popular * sampling.negatives)
    counts = (popular, sampling.negatives - popular)
    negatives = [_draw(pool, items, count, rng) for pool, count in zip(pools, counts, strict=True)]
    asked = np.concatenate([positives, *negatives])
    return Window(items[max(0, cut - length) : cut], asked, np.arange(len(asked)) < len(positives), user)


def _draw(pool: IntArray, chosen: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    drawn = pool[rng.integers(len(pool), size=2 * count + 8)]
    return drawn[~np.isin(drawn, chosen)][:count]


@dataclass(frozen=True)
class Questions:
    """The prompts of a window with the right answers behind them.

    Args:
        group: prompts and answers.
        answers: number of tokens of the answer of each prompt.
    """

    group: Group
    answers: tuple[int, ...]


def ask(encoder: Encoder, catalogue: Catalogue, template: Template, shown: Window) -> Questions:
    """One question per item of the window; the oldest history items are dropped if it is too long.

    Raises:
        PromptError: if a question does not fit into the model's window even without a history.
    """
    titles = catalogue.named(shown.items)
    words = [encoder.word(label) for label in template.labels]
    history = catalogue.named(shown.history)
    sequences = encoder.fitting(template, catalogue.domain, history, titles, room=max(map(len, words)))
    answers = [words[not chosen] for chosen in shown.chosen.tolist()]
    sequences = [[*sequence, *answer] for sequence, answer in zip(sequences, answers, strict=True)]
    keep = 1 + max(map(len, answers))
    return Questions(common_prefix(sequences, keep), tuple(map(len, answers)))


def pick(templates: Sequence[Template], rng: np.random.Generator) -> Template:
    """One of the templates, all equally likely."""
    return templates[int(rng.integers(len(templates)))]
