"""The alternating search for triggers. It knows neither a model nor a prompt: only tokens, proposals and judges."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from data.types import BoolArray, FloatArray, IntArray
from methods.paprec.prompts import surrogate

log = logging.getLogger(__name__)
PERFECT = float(surrogate(np.zeros((1, 1)))[0])
"""Surrogate metric of a list whose positive is first: nobody who has it can improve."""

Measure = Callable[[IntArray, BoolArray], FloatArray]
"""From triggers ``[users, size]`` and the users asked for to a value per user, NaN where there is none."""
Propose = Callable[[IntArray, int, bool], IntArray]
"""From triggers, a position, and whether for each user, to proposals ``[users or 1, top]``, best first."""


@dataclass(frozen=True)
class Kind:
    """Triggers that are searched in one kind of round.

    Args:
        name: ``global`` or ``user``.
        positions: which triggers.
        each: whether every user has their own, accepted by their own value, or all the same, accepted by the mean.
        search: values that accept.
        held: values on what was held out: they stop.
    """

    name: str
    positions: tuple[int, ...]
    each: bool
    search: Measure
    held: Measure


@dataclass(frozen=True)
class Step:
    """A visit of one position.

    Args:
        kind: name of the kind of round.
        round: number of the round, from 1.
        position: which trigger.
        evaluations: candidate tokens tried so far, each for all users at once.
        changed: users whose trigger changed.
        value: mean value on the search part after it.
        rate: tokens tried per second, a token tried for one user counting as one.
    """

    kind: str
    round: int
    position: int
    evaluations: int
    changed: int
    value: float
    rate: float


@dataclass(frozen=True)
class Gain:
    """What the rounds of a kind have brought.

    Args:
        search: gain of the mean value on the part they accept on.
        held: gain on the part held out.
        undone: whether the last round was taken back because of the latter.
    """

    search: float = 0.0
    held: float = 0.0
    undone: bool = False


Advance = Callable[[], object]
Watch = Callable[[Step, IntArray], None]
"""Sees every step of a search, with the triggers after it."""


@dataclass
class Search:
    """Global and user rounds in turn.

    Args:
        tokens: triggers of all users to start with, shape ``[users, size]``.
        kinds: kinds of rounds in the order they take turns.
        propose: candidates for a position.
        budget: most evaluations; one is a candidate token, or one per user, tried for all users at once.
        rng: draws the order of positions.
        watch: called after every step with the triggers.
    """

    tokens: IntArray
    kinds: tuple[Kind, ...]
    propose: Propose
    budget: int
    rng: np.random.Generator
    watch: Watch | None = None
    evaluations: int = 0
    converged: bool = False
    steps: list[Step] = field(default_factory=list)
    gains: dict[str, Gain] = field(default_factory=dict)

    def run(self) -> None:
        """Search until no kind of round brings anything, or the budget is spent.

        A round that the held-out part loses by is taken back, and there is none of its kind any more.
        """
        going, number = self.kinds if self.tokens.size else (), 0
        self.gains = {kind.name: Gain() for kind in going}
        with tqdm(total=self.budget, desc="paprec", unit="token", disable=not going) as bar:
            while going and self.evaluations < self.budget:
                number += 1
                changed = [self._round(kind, number, bar.update) for kind in going]
                going = tuple(kind for kind in going if not self.gains[kind.name].undone) if any(changed) else ()
        self.converged = self.evaluations < self.budget

    def _round(self, kind: Kind, number: int, advance: Advance) -> bool:
        """Visit every position once, in random order; whether that brought anything."""
        everybody = np.ones(len(self.tokens), np.bool_)
        before, values = self.tokens, kind.search(self.tokens, everybody)
        start = _mean(values)
        for position in self.rng.permutation(kind.positions).tolist():
            if self.evaluations >= self.budget:
                break
            values = self._visit(kind, number, position, values, advance)
        if np.array_equal(before, self.tokens):
            return False
        held = _mean(kind.held(self.tokens, everybody)) - _mean(kind.held(before, everybody))
        gain = self.gains[kind.name]
        self.gains[kind.name] = Gain(gain.search + _mean(values) - start, gain.held + held, undone=held < 0)
        log.info("%s round %d: %+.4f, held out %+.4f", kind.name, number, _mean(values) - start, held)
        if held < 0:
            self.tokens = before
        return held >= 0

    def _visit(self, kind: Kind, number: int, position: int, values: FloatArray, advance: Advance) -> FloatArray:
        """Try the candidates of one position; flip it, and nothing else, where that is a strict improvement."""
        started, tried = time.perf_counter(), 0
        kept, before = self.tokens[:, position].copy(), self.tokens[:, position]
        for candidate in self.propose(self.tokens, position, kind.each).T[: self.budget - self.evaluations]:
            flipped = self.tokens.copy()
            flipped[:, position] = candidate
            asked = values < PERFECT if kind.each else np.ones(len(values), np.bool_)
            found = kind.search(flipped, asked)
            better = found > values if kind.each else np.full(len(values), _mean(found) > _mean(values))
            kept, values = np.where(better, candidate, kept), np.where(better, found, values)
            tried += int(np.isfinite(found).sum())
            self.evaluations += 1
            advance()
        changed = int((kept != before).sum())
        self.tokens = self.tokens.copy()
        self.tokens[:, position] = kept
        rate = tried / (time.perf_counter() - started)
        step = Step(kind.name, number, position, self.evaluations, changed, _mean(values), rate)
        log.info("%s trigger %d: %d users changed, %.1f tokens tried per second", kind.name, position, changed, rate)
        self.steps.append(step)
        if self.watch:
            self.watch(step, self.tokens)
        return values


def _mean(values: FloatArray) -> float:
    """Mean over the users that have a value; 0 if none has."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else 0.0
