"""The alternating search for triggers. It knows neither a model nor a prompt: only tokens, proposals and judges."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from tqdm import tqdm

from data.types import BoolArray, FloatArray, IntArray
from methods.paprec.surrogate import PERFECT

log = logging.getLogger(__name__)

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
        tried: the same, a token tried for one user counting as one.
        seconds: since the search began.
        changed: users whose trigger changed.
        value: mean value on the search part after it.
        undone: whether its round was taken back, because the held-out part lost by it.
    """

    kind: str
    round: int
    position: int
    evaluations: int
    tried: int
    seconds: float
    changed: int
    value: float
    undone: bool = False


@dataclass(frozen=True)
class Gain:
    """What rounds of a kind have brought.

    Args:
        search: gain of the mean value on the part they accept on.
        held: gain on the part held out; not a number if nobody was.
    """

    search: float = 0.0
    held: float = 0.0

    def __add__(self, other: "Gain") -> "Gain":
        return Gain(self.search + other.search, self.held + other.held)


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
        evaluations: how many there have been.
        tried: the same, a token tried for one user counting as one.
        seconds: time the search has taken, with all that is judged beside the candidates.
        converged: whether it ended before the budget was spent.
        steps: visits of positions.
        gains: what the rounds that were kept have brought, by kind.
        undone: what the round that was not kept would have brought, by kind.
    """

    tokens: IntArray
    kinds: tuple[Kind, ...]
    propose: Propose
    budget: int
    rng: np.random.Generator
    watch: Watch | None = None
    evaluations: int = 0
    tried: int = 0
    seconds: float = 0.0
    converged: bool = False
    steps: list[Step] = field(default_factory=list)
    gains: dict[str, Gain] = field(default_factory=dict)
    undone: dict[str, Gain] = field(default_factory=dict)
    _began: float = 0.0

    def run(self) -> None:
        """Search until no kind of round brings anything, or the budget is spent.

        A round that the held-out part loses by, or is not there to judge, is taken back, and there is none of its kind
        any more.
        """
        going, number = self.kinds if self.tokens.size else (), 0
        self.gains, self._began = {kind.name: Gain() for kind in going}, time.perf_counter()
        with tqdm(total=self.budget, desc="paprec", unit="token", disable=not going) as bar:
            while going and self.evaluations < self.budget:
                number += 1
                changed = [self._round(kind, number, bar.update) for kind in going]
                going = tuple(kind for kind in going if kind.name not in self.undone) if any(changed) else ()
        self.converged, self.seconds = self.evaluations < self.budget, self._elapsed()

    def _round(self, kind: Kind, number: int, advance: Advance) -> bool:
        """Visit every position once, in random order; whether that brought anything."""
        if self.evaluations >= self.budget:
            return False
        everybody = np.ones(len(self.tokens), np.bool_)
        before, first, values = self.tokens, len(self.steps), kind.search(self.tokens, everybody)
        start = _mean(values)
        for position in self.rng.permutation(kind.positions).tolist():
            if self.evaluations >= self.budget:
                break
            values = self._visit(kind, number, position, values, advance)
        if np.array_equal(before, self.tokens):
            return False
        held = _mean(kind.held(self.tokens, everybody)) - _mean(kind.held(before, everybody))
        gain = Gain(_mean(values) - start, held)
        log.info("%s round %d: %+.4f, held out %+.4f", kind.name, number, gain.search, gain.held)
        if not held >= 0:
            self.tokens, self.undone[kind.name] = before, gain
            self.steps[first:] = [replace(step, undone=True) for step in self.steps[first:]]
            return False
        self.gains[kind.name] += gain
        return True

    def _visit(self, kind: Kind, number: int, position: int, values: FloatArray, advance: Advance) -> FloatArray:
        """Try the candidates of one position; flip it, and nothing else, where that is a strict improvement."""
        kept, before = self.tokens[:, position].copy(), self.tokens[:, position]
        for candidate in self.propose(self.tokens, position, kind.each).T[: self.budget - self.evaluations]:
            flipped = self.tokens.copy()
            flipped[:, position] = candidate
            asked = values < PERFECT if kind.each else np.ones(len(values), np.bool_)
            found = kind.search(flipped, asked)
            better = found > values if kind.each else np.full(len(values), _mean(found) > _mean(values))
            kept, values = np.where(better, candidate, kept), np.where(better, found, values)
            self.tried += int(np.isfinite(found).sum())
            self.evaluations += 1
            advance()
        changed = int((kept != before).sum())
        self.tokens = self.tokens.copy()
        self.tokens[:, position] = kept
        seconds = self._elapsed()
        step = Step(kind.name, number, position, self.evaluations, self.tried, seconds, changed, _mean(values))
        rate = self.tried / seconds
        log.info("%s trigger %d: %d users changed, %.1f tokens tried per second", kind.name, position, changed, rate)
        self.steps.append(step)
        if self.watch:
            self.watch(step, self.tokens)
        return values

    def _elapsed(self) -> float:
        return time.perf_counter() - self._began


def _mean(values: FloatArray) -> float:
    """Mean over the users that have a value; not a number if none has."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan
