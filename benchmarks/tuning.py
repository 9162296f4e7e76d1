"""One small search for every method: the same number of fits, judged on the validation part alone.

In the run folder:

tuning/<dataset>/<method>/seed-<s>.json   every trial with what came of it; a stopped search goes on from here
tuned/<dataset>.toml                      the best settings of every method

``benchmarks/tuned`` holds the settings that come with the project. A run takes the settings of a file whose data
are its own, below those of the suite and of ``--set``.
"""

import json
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from math import prod
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks import metrics
from benchmarks.cells import Cell, Outcome, Progress, for_roles, score
from benchmarks.protocol import Problem
from benchmarks.store import SCHEMA, CellId, component, disk_errors, to_json, write_atomically
from data.fingerprint import fingerprint
from data.random import generator
from methods.base import Compute, MethodInfo, NotRunnable, Space
from methods.registry import create

CUTOFF = 10
HEADER = "# Written by --tune: the best of each method's trials by mean ndcg@10 of the validation lists.\n"


class TuningError(ValueError):
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
    def key(self) -> str:
        """Content key: trials are used again only if nothing that could change them has changed."""
        cell, problem = self.cell, self.cell.problem
        lists = (problem.valid.fingerprint, problem.protocol.history_length)
        wording = {role: value for role, value in cell.fingerprints.items() if role != "data"}
        settings = to_json([dict(cell.settings), self.space])
        return fingerprint(
            SCHEMA, cell.id.method, cell.id.seed, settings, data_key(problem), *lists, wording, cell.machine
        )

    def kept(self) -> list[Trial]:
        """Trials made earlier, in order."""
        if not self.path.exists():
            return []
        stored = json.loads(self.path.read_text(encoding="utf-8"))
        trials = [Trial(**trial) for trial in stored["trials"]]
        return trials if stored["key"] == self.key and not _missing(trials) else []

    def waiting(self) -> int:
        """Fits that are left to be made."""
        return max(0, min(self.trials, prod(map(len, self.space.values()))) - len(self.kept()))

    def execute(self, progress: Progress) -> Outcome:
        """Make the trials that are left, keeping each as soon as it ends; none if the defaults cannot run here.

        Raises:
            StoreError: if the run folder cannot be written.
            TuningError: if the defaults are not in the search space.
        """
        trials = self.kept()
        for number in range(len(trials), len(trials) + self.waiting()):
            progress(number / self.trials, f"trial {number} of {self.trials}")
            trials.append(self._try(propose(self.space, trials, *self._seed) if number else self.defaults()))
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

    @property
    def _seed(self) -> tuple[object, ...]:
        return self.id.seed, "tuning", self.id.method

    def _try(self, settings: Mapping[str, Any]) -> Trial:
        started = time.perf_counter()
        try:
            value = self._measure(settings)
        except NotRunnable as reason:
            return Trial(settings, "not run", str(reason))
        except Exception as error:  # as in a run, it is the outcome of this trial
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


def searches(cells: Iterable[Cell], trials: int) -> list[Search]:
    """One search per data set and method that declares a ``space``; what the suite or --set fixes is not searched."""
    found: dict[tuple[str, str], Search] = {}
    for cell in cells:
        space = getattr(create(cell.id.method, cell.settings), "space", {})
        free = {name: choices for name, choices in space.items() if name not in cell.settings}
        if free:
            found.setdefault((cell.id.dataset, cell.id.method), Search(cell, free, trials))
    return list(found.values())


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


class Best(BaseModel):
    """The settings found for one method.

    Args:
        seed: seed of the search.
        lists: validation lists judged on.
        trials: fits made, failed ones too.
        failed: how many of them failed.
        default: mean ndcg@10 on validation with the method's defaults (trial 0); None if that trial failed.
        best: the same of the best trial.
        backbone: language model the method was tuned with, as named on the command line.
        settings: of the best trial.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    lists: int
    trials: int
    failed: int = 0
    default: float | None = None
    best: float
    backbone: str = ""
    settings: dict[str, Any] = {}

    def holds_for(self, info: MethodInfo, compute: Compute) -> bool:
        """Whether the method would run with the language model it was tuned with; others need no such thing."""
        return self.backbone == _backbone(info, compute)


class Tuned(BaseModel):
    """The settings found for one data set.

    Args:
        dataset: its name.
        data: fingerprint of its interactions and split; the settings are used with no others.
        methods: by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    data: str
    methods: dict[str, Best] = {}

    def toml(self) -> str:
        """The file's text; settings of None, a method's own choice, are left out."""
        facts = self.model_dump(exclude={"methods"})
        lines = [HEADER, *(f"{key} = {json.dumps(value)}" for key, value in facts.items())]
        for name, found in sorted(self.methods.items()):
            facts = found.model_dump(exclude={"settings"}, exclude_defaults=True)
            settings = {f"settings.{key}": value for key, value in found.settings.items() if value is not None}
            lines += ["", f"[methods.{json.dumps(name)}]"]
            lines += [f"{key} = {json.dumps(value)}" for key, value in {**facts, **settings}.items()]
        return "\n".join(lines) + "\n"


def _backbone(info: MethodInfo, compute: Compute) -> str:
    """The language model a method's settings hold for; empty for the embedded one and for methods without."""
    named = "@".join(filter(None, (compute.backbone, compute.revision)))
    return named if "language model" in info.needs else ""


def data_key(problem: Problem) -> str:
    """Fingerprint of what must be the same for tuned settings to be used: other users may be judged, no other data."""
    return fingerprint(problem.dataset.fingerprint, problem.split.fingerprint)


def write(done: Sequence[Search], folder: Path) -> list[Path]:
    """Write the best settings of the searches, beside those the folder has of other methods; returns the paths."""
    paths = []
    for dataset in dict.fromkeys(search.id.dataset for search in done):
        own = [search for search in done if search.id.dataset == dataset]
        problem = own[0].cell.problem
        found = {search.id.method: best for search in own if (best := _best(search))}
        tuned = Tuned(dataset=dataset, data=data_key(problem), methods={**read(problem, (folder,)), **found})
        paths.append(_path(folder, dataset))
        with disk_errors(folder):
            write_atomically(paths[-1], tuned.toml())
    return paths


def _best(search: Search) -> Best | None:
    """The best of the first ``search.trials`` trials, the earliest of equals; None if there is none with a value."""
    trials = search.kept()[: search.trials]
    values = [(trial.value, -number) for number, trial in enumerate(trials) if trial.value is not None]
    if not values:
        return None
    value, number = max(values)
    info = create(search.id.method, search.cell.settings).info
    return Best(
        seed=search.id.seed,
        lists=len(search.cell.problem.valid),
        trials=len(trials),
        failed=len(trials) - len(values),
        default=trials[0].value,
        best=value,
        backbone=_backbone(info, search.cell.compute),
        settings=dict(trials[-number].settings),
    )


def folders(given: str | None, run: Path) -> tuple[Path, ...]:
    """Where tuned settings are looked for, the first place first: by default the run folder, then the project."""
    if given is not None:
        return () if given == "none" else (Path(given),)
    return run / "tuned", Path(str(resources.files("benchmarks"))) / "tuned"


def read(problem: Problem, places: Sequence[Path]) -> dict[str, Best]:
    """What was found for exactly these data, by method; of two places that have a method the first counts.

    Raises:
        TuningError: for a file that cannot be read; the message names it.
    """
    paths = [path for place in places if (path := _path(place, problem.dataset.name)).exists()]
    files = [tuned for path in reversed(paths) if (tuned := _load(path)).data == data_key(problem)]
    return {name: best for tuned in files for name, best in tuned.methods.items()}


def _load(path: Path) -> Tuned:
    try:
        return Tuned.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TuningError(f"{path}: not a TOML file: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        raise TuningError(f"{path}: {problems}") from error


def _path(folder: Path, dataset: str) -> Path:
    return folder / f"{component(dataset)}.toml"
