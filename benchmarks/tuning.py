"""One small search for every method: the same number of fits, judged on the validation part alone.

In the run folder:

tuning/<dataset>/<method>/seed-<s>.json   every trial with what came of it; a stopped search goes on from here
tuned/<dataset>.toml                      the best settings of every method, see :mod:`benchmarks.tuned_settings`
"""

import json
import logging
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from benchmarks import metrics
from benchmarks.cells import Cell, Outcome, Progress
from benchmarks.contract import for_roles, score
from benchmarks.protocol import Problem
from benchmarks.store import SCHEMA, CellId, disk_errors, to_json, write_atomically
from data.errors import InputError
from data.fingerprint import fingerprint
from data.random import generator
from methods import hooks
from methods.base import Method, NotRunnable, Space
from methods.registry import create

CUTOFF = 10


class TuningError(InputError):
    """A search cannot be made, or a file of tuned settings cannot be used."""


@dataclass(frozen=True)
class Trial:
    """One fit of a search.

    Args:
        settings: the settings of the search space.
        outcome: ``finished``, ``failed``, or ``not run`` (something it needs is missing).
        reason: why there is no value.
        value: mean ndcg@10 of the validation lists.
        seconds: time it took.
    """

    settings: Mapping[str, Any]
    outcome: str
    reason: str = ""
    value: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Search:
    """The trials of one method on one data set. Trial 0 is the method's defaults.

    Args:
        cell: method, data, seed, and settings that are not searched.
        space: settings to choose from.
        trials: how many; a space with fewer combinations is tried out.
    """

    cell: Cell
    space: Space
    trials: int

    @property
    def id(self) -> CellId:
        """What is searched for: data set, method and seed."""
        return self.cell.id

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.cell.run

    @property
    def path(self) -> Path:
        """Where the trials are kept."""
        return self.run / "tuning" / self.id.folder.with_suffix(".json")

    @property
    def fixed(self) -> dict[str, Any]:
        """What the suite or --set gave to all trials, but for what changes none of them."""
        return self.cell.lasting

    @property
    def key(self) -> str:
        """Content key: trials are used again only if nothing that could change them has changed."""
        cell, problem = self.cell, self.cell.problem
        lists = (problem.valid.fingerprint, problem.protocol.history_length)
        wording = {role: value for role, value in cell.fingerprints.items() if role != "data"}
        settings = to_json([self.fixed, self.space])
        return fingerprint(
            SCHEMA, cell.id.method, cell.id.seed, settings, data_key(problem), *lists, wording, cell.machine
        )

    def kept(self) -> list[Trial]:
        """Trials made earlier, in order.

        Raises:
            TuningError: if the file with them cannot be read.
        """
        if not self.path.exists():
            return []
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            trials = [Trial(**trial) for trial in stored["trials"]] if stored["key"] == self.key else []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TuningError(f"{self.path}: no file of trials: {error}; delete it to search anew") from error
        return [] if _missing(trials) else trials

    @property
    def others(self) -> bool:
        """Whether its file holds trials that other settings or data than its own gave."""
        if not self.path.exists():
            return False
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            return stored["key"] != self.key and any(trial.get("value") is not None for trial in stored["trials"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False  # :meth:`kept` says what is wrong with it

    def waiting(self) -> int:
        """Fits that are left to be made."""
        return max(0, min(self.trials, prod(map(len, self.space.values()))) - len(self.kept()))

    def execute(self, progress: Progress) -> Outcome:
        """Make the trials that are left, keeping each as soon as it ends; none if the defaults cannot run here.

        Raises:
            StoreError: if the run folder cannot be written.
            TuningError: if the defaults are not in the search space, or earlier trials cannot be read.
        """
        trials = self.kept()
        for number in range(len(trials), len(trials) + self.waiting()):
            progress(number / self.trials, f"trial {number} of {self.trials}")
            key = self.id.seed, "tuning", self.id.method
            trials.append(self._try(propose(self.space, trials, *key) if number else self.defaults()))
            with disk_errors(self.path):
                write_atomically(self.path, to_json({"key": self.key, "trials": [asdict(trial) for trial in trials]}))
            if _missing(trials):
                break
        unfinished = [trial for trial in trials if trial.outcome != "finished"]
        if len(unfinished) == len(trials):
            return Outcome(unfinished[0].outcome, unfinished[0].reason)
        reasons = f"{len(unfinished)} of {len(trials)} trials: {unfinished[0].reason}" if unfinished else ""
        return Outcome("finished", reasons)

    def defaults(self) -> dict[str, Any]:
        """The method's own settings.

        Raises:
            TuningError: if one of them is not in the search space.
        """
        method = create(self.id.method, self.cell.settings)
        own = {name: getattr(method, name) for name in self.space}
        for name, value in own.items():
            if value not in self.space[name]:
                raise TuningError(f"{self.id.method}: the default {value!r} of {name} is not in its search space")
        return own

    def _try(self, settings: Mapping[str, Any]) -> Trial:
        started = time.perf_counter()
        try:
            value = self._measure(settings)
        except NotRunnable as reason:
            return Trial(settings, "not run", str(reason))
        except (Exception, SystemExit) as error:  # as in a run, it is the outcome of this trial
            logging.getLogger(__name__).error("%s: trial failed\n%s", self.id, traceback.format_exc())
            return Trial(settings, "failed", f"{type(error).__name__}: {error}", None, time.perf_counter() - started)
        return Trial(settings, "finished", "", value, time.perf_counter() - started)

    def _measure(self, settings: Mapping[str, Any]) -> float:
        """Mean ndcg@10 of the validation lists after a fit with these settings.

        All trials of all methods have one seed, which is no run's: trials differ by their settings alone, and what
        methods share, such as a trained P5, is made once.
        """
        cell, lists = self.cell, self.cell.problem.valid
        method = create(cell.id.method, {**cell.settings, **settings})
        task = cell.problem.task(cell.compute)
        method.fit(task, int(generator(self.id.seed, "tuning fit").integers(2**31)))
        rank = metrics.rank_of_positive(score(method, for_roles(task.valid, method)), lists.positive, lists.mask)
        return float(metrics.ndcg(rank, CUTOFF).mean())


def _missing(trials: Sequence[Trial]) -> bool:
    """Whether the method itself, not only some of its settings, lacks something here: worth another try elsewhere."""
    return bool(trials) and trials[0].outcome == "not run"


def refuse_to_replace(found: Iterable[Search]) -> None:
    """See that no trials of other settings would be lost.

    Raises:
        TuningError: naming the first file that has some.
    """
    for search in found:
        if search.others:
            raise TuningError(
                f"{search.path}: has trials of {search.id.method} with other settings, data, device or code: name "
                "another --output-dir, or delete it to search anew"
            )


def searches(cells: Iterable[Cell], trials: int) -> list[Search]:
    """One search per data set and method that declares a ``space``; what the suite or --set fixes is not searched.

    Raises:
        TuningError: if there is nothing to search, or a space holds None where it would be lost.
    """
    found: dict[tuple[str, str], Search] = {}
    others = {}
    for cell in cells:
        method = create(cell.id.method, cell.settings)
        if (row := hooks.tuned_as(cell.id.method, method)) != cell.id.method:
            others[cell.id.method] = row
            continue
        free = {name: choices for name, choices in hooks.space(method).items() if name not in cell.settings}
        _check_none(cell.id.method, method, free)
        if free:
            found.setdefault((cell.id.dataset, cell.id.method), Search(cell, free, trials))
    if not found:
        hints = [f"; {name} runs with what --tune finds for {row}" for name, row in others.items()]
        raise TuningError(f"none of these methods has settings to search{''.join(hints)}")
    return list(found.values())


def _check_none(name: str, method: Method, space: Space) -> None:
    """See that None is a default wherever a space holds it: files of tuned settings cannot, and leave it out."""
    for setting, choices in space.items():
        if None in choices and getattr(method, setting, None) is not None:
            raise TuningError(
                f"{name}: the search space of {setting} holds None, which no file of tuned settings can, beside the "
                f"default {getattr(method, setting)!r}: make None the default, or let another value stand for it"
            )


def propose(space: Space, trials: Sequence[Trial], *key: object) -> dict[str, Any]:
    """Settings to try next: drawn at random by Optuna from those that were not tried before.

    They depend on the arguments alone, so that a search that was stopped goes on as if it had not been. With so few
    trials a sampler that models what came of them has nothing to model.

    Args:
        space: settings to choose from; not all combinations may have been tried.
        trials: what was tried, in order.
        key: seed of the draw, together with the number of trials.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    choices: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.CategoricalDistribution(values) for name, values in space.items()
    }
    seed = int(generator(*key, len(trials)).integers(2**32))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    tried = [dict(trial.settings) for trial in trials]
    while (settings := study.ask(choices).params) in tried:
        pass
    return settings


def data_key(problem: Problem) -> str:
    """Fingerprint of what must be the same for tuned settings to be used: other users may be judged, no other data."""
    return fingerprint(problem.dataset.fingerprint, problem.split.fingerprint)
