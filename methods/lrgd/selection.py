"""Stage 1: which demonstrations a user's prompts show."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from transformers import PreTrainedModel

from data.random import generator
from data.types import FloatArray
from methods.base import Task
from methods.lm.prompts import Encoder
from methods.lm.questions import pick
from methods.lrgd.demonstrations import (
    Demonstration,
    Neighbours,
    Order,
    PoolSize,
    Strategy,
    check_from_training,
    overlap,
    pool,
)
from methods.lrgd.effect import Shown, first_order_effects
from methods.lrgd.icl import Query, encode

Effects = Callable[[PreTrainedModel, Shown], FloatArray]


@dataclass(frozen=True)
class Selection:
    """How demonstrations are selected.

    Args:
        strategy: ``effect`` for Effect_D with a redundancy penalty, ``random``, ``recent`` for the user's own
            latest stretches, ``similar`` for those of the most similar users.
        shots: demonstrations per prompt.
        size: how many there are to choose from.
        redundancy: weight of the penalty, in standard deviations of the effects per unit of overlap.
        targets: the user's latest training items that are pseudo-targets of Effect_D.
        order: which first-order effect.
    """

    strategy: Strategy = "effect"
    shots: int = 4
    size: PoolSize = field(default_factory=PoolSize)
    redundancy: float = 0.5
    targets: int = 2
    order: Order = "removal"


class Selector:
    """Selects demonstrations for users; what a user gets depends on the training part and the seed alone."""

    def __init__(self, task: Task, model: PreTrainedModel, encoder: Encoder, selection: Selection, seed: int) -> None:
        self.task, self.model, self.encoder, self.selection, self.seed = task, model, encoder, selection, seed
        self.neighbours = Neighbours(task.train, task.catalogue.n_items)
        self._ranked: dict[int, tuple[Demonstration, ...]] = {}

    def demonstrations(self, user: int, shots: int | None = None) -> tuple[Demonstration, ...]:
        """The demonstrations of a user, the best last: next to the question.

        Args:
            user: the user.
            shots: another number of them; none all the same if the selection has none.

        Raises:
            LeakError: if one of them is not a stretch of a training history.
        """
        shots = self.selection.shots if shots is None or not self.selection.shots else shots
        if not shots:
            return ()
        if user not in self._ranked:
            self._ranked[user] = tuple(self._rank(user))
            check_from_training(self._ranked[user], self.task.train)
        return self._ranked[user][:shots][::-1]

    def _rank(self, user: int) -> list[Demonstration]:
        """All that there is to choose from, the best first."""
        if self.selection.strategy == "effect":
            found, effects = self.effects(user)
            return [found[n] for n in spread(effects, found, len(found), self.selection.redundancy)]
        found = self._pool(user)
        if self.selection.strategy == "random":
            rng = generator(self.seed, "lrgd demonstrations", self.task.catalogue.user_ids[user])
            return [found[n] for n in rng.permutation(len(found)).tolist()]
        own = self.selection.strategy == "recent"
        return [one for one in found if (one.user == user) == own]

    def _targets(self, user: int) -> int:
        """How many pseudo-targets the user has: latest training items with something before them."""
        return min(self.selection.targets, max(0, len(self.task.train[user]) - 1))

    def _pool(self, user: int) -> list[Demonstration]:
        """What every strategy chooses from: all that was known before the user's pseudo-targets.

        None of it shows a pseudo-target: it would be chosen for giving away the answer.
        """
        row = self.task.train[user]
        end = len(row) - self._targets(user)
        found = pool(self.neighbours, user, end, self.task.history_length, self.selection.size)
        return [one for one in found if one.items.isdisjoint(row[end:].tolist())]

    def effects(self, user: int, measure: Effects | None = None) -> tuple[list[Demonstration], FloatArray]:
        """The demonstrations to choose from, and the mean Effect_D of each on the user's pseudo-targets.

        Args:
            user: the user.
            measure: Effect_D of all demonstrations of a prompt; that of the selection, at first order, if None.
        """
        measure = measure or partial(first_order_effects, order=self.selection.order)
        row, length, found = self.task.train[user], self.task.history_length, self._pool(user)
        targets = self._targets(user)
        if not found or not targets:
            return found, np.zeros(len(found))
        rng = generator(self.seed, "lrgd effects", self.task.catalogue.user_ids[user])
        effects = np.zeros((targets, len(found)))
        for n, at in enumerate(range(len(row) - targets, len(row))):
            template = pick(self.task.templates["demonstrate"], rng)
            waiting = rng.permutation(len(found))
            history = tuple(row[max(0, at - length) : at].tolist())
            while len(waiting):  # once, but where they do not fit into one prompt together
                shown = tuple(found[place] for place in waiting.tolist())
                query = Query(template, self.task.catalogue, history, shown)
                prompt = encode(self.encoder, query, [self.task.catalogue.titles[row[at]]])
                kept = int(prompt.owner.max(initial=-1)) + 1
                if kept:
                    effects[n, waiting[-kept:]] = measure(self.model, prompt.shown())
                waiting = waiting[: -max(1, kept)]
        return found, effects.mean(0)


def spread(values: FloatArray, demonstrations: Sequence[Demonstration], number: int, redundancy: float) -> list[int]:
    """Greedy choice of good demonstrations that show different items, the best first.

    Every round takes the one with the largest effect, in standard deviations, minus ``redundancy`` times its
    largest overlap with those taken (maximal marginal relevance: Carbonell and Goldstein, 1998).

    Args:
        values: effect of each, shape ``[demonstrations]``.
        demonstrations: what there is to choose from.
        number: how many to take.
        redundancy: weight of the penalty.

    >>> pool = [Demonstration(0, (1, 2), 3), Demonstration(1, (1, 2), 3), Demonstration(2, (7, 8), 9)]
    >>> spread(np.array([1.0, 0.9, 0.8]), pool, 2, redundancy=3.0)
    [0, 2]
    """
    if not len(values):
        return []
    standard = (values - values.mean()) / (values.std() or 1.0)
    taken: list[int] = []
    for _ in range(min(number, len(values))):
        penalty = [max((overlap(one, demonstrations[t]) for t in taken), default=0.0) for one in demonstrations]
        worth = standard - redundancy * np.array(penalty)
        worth[taken] = -np.inf
        taken.append(int(np.argmax(worth)))
    return taken
