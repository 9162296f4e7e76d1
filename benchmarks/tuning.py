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
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from methods.base import Compute, Method, MethodInfo, NotRunnable, Space
from methods.registry import MethodError, create

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
        """Trials made earlier, in order.

        Raises:
            TuningError: if the file with them cannot be read.
        """
        if not self.path.exists():
            return []
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            trials = [Trial(**trial) for trial in stored["trials"]] if stored["key"] == self.key else []
        except (ValueError, KeyError, TypeError) as error:
            raise TuningError(f"{self.path}: no file of trials: {error}; delete it to search anew") from error
        return [] if _missing(trials) else trials

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


def tuned_as(name: str, method: Method) -> str:
    """The row whose tuned settings a row runs with: that of its family, unless its class names another.

    Rows of one family differ by what they vary alone; nothing of it is in the family's space.
    """
    return str(getattr(method, "tuned_as", name.partition("/")[0]))


def searches(cells: Iterable[Cell], trials: int) -> list[Search]:
    """One search per data set and method that declares a ``space``; what the suite or --set fixes is not searched.

    Raises:
        TuningError: if there is nothing to search.
    """
    found: dict[tuple[str, str], Search] = {}
    others = {}
    for cell in cells:
        method = create(cell.id.method, cell.settings)
        if (row := tuned_as(cell.id.method, method)) != cell.id.method:
            others[cell.id.method] = row
            continue
        space = getattr(method, "space", {})
        free = {name: choices for name, choices in space.items() if name not in cell.settings}
        if free:
            found.setdefault((cell.id.dataset, cell.id.method), Search(cell, free, trials))
    if not found:
        hints = [f"; {name} runs with what --tune finds for {row}" for name, row in others.items()]
        raise TuningError(f"none of these methods has settings to search{''.join(hints)}")
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
        fixed: settings that the suite or --set gave to all trials.
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
    fixed: dict[str, Any] = {}
    settings: dict[str, Any] = {}

    def holds_for(self, info: MethodInfo, compute: Compute, given: Mapping[str, Any]) -> bool:
        """Whether a row would run as the trials did: with their language model, if it needs one, and what they fixed.

        Args:
            info: of the row.
            compute: of the run.
            given: settings that the suite or --set gives to the row.
        """
        same = all(key in given and given[key] == value for key, value in self.fixed.items())
        return same and self.backbone == _backbone(info, compute)


class Tuned(BaseModel):
    """The settings found for one data set.

    Args:
        dataset: its name.
        data: fingerprint of its interactions and split; the settings are used with no others.
        trials: what every method was given; a smaller space has fewer.
        methods: by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    data: str
    trials: int
    methods: dict[str, Best] = {}

    def toml(self) -> str:
        """The file's text; settings of None, a method's own choice, are left out."""
        lines = [HEADER, *_lines(self.model_dump(exclude={"methods"}))]
        for name, found in sorted(self.methods.items()):
            lines += ["", f"[methods.{json.dumps(name)}]", *_lines(found.model_dump(exclude_defaults=True))]
        return "\n".join(lines) + "\n"


def _lines(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key} = {json.dumps(value)}"


def _backbone(info: MethodInfo, compute: Compute) -> str:
    """The language model a method's settings hold for; empty for the embedded one and for methods without."""
    named = "@".join(filter(None, (compute.backbone, compute.revision)))
    return named if "language model" in info.needs else ""


def data_key(problem: Problem) -> str:
    """Fingerprint of what must be the same for tuned settings to be used: other users may be judged, no other data."""
    return fingerprint(problem.dataset.fingerprint, problem.split.fingerprint)


def write(made: Sequence[Search], folder: Path) -> list[Path]:
    """Write the best settings of the searches that have ended, beside those the folder has of other methods.

    Returns:
        The paths of what is written.

    Raises:
        StoreError: if the folder cannot be written.
        TuningError: for a file that these settings cannot go into, or trials that cannot be read.
    """
    paths = []
    for dataset in dict.fromkeys(search.id.dataset for search in made):
        own = [search for search in made if search.id.dataset == dataset]
        path = _path(folder, dataset)
        earlier = _earlier(path, own)
        if found := {search.id.method: best for search in own if not search.waiting() and (best := _best(search))}:
            data, methods = data_key(own[0].cell.problem), {**earlier, **found}
            tuned = Tuned(dataset=dataset, data=data, trials=own[0].trials, methods=methods)
            with disk_errors(folder):
                write_atomically(path, tuned.toml())
            paths.append(path)
    return paths


def _earlier(path: Path, made: Sequence[Search]) -> dict[str, Best]:
    """What the file has that may stand beside the settings these searches find."""
    if not path.exists():
        return {}
    tuned, trials = _load(path), made[0].trials
    if tuned.data != data_key(made[0].cell.problem):
        raise TuningError(f"{path} was found on another split or part of the data: move it, or name another --tuned")
    if tuned.trials == trials:
        return tuned.methods
    if others := tuned.methods.keys() - {search.id.method for search in made}:
        had = f"{', '.join(sorted(others))} had {tuned.trials} trials"
        raise TuningError(f"{path}: {had}, not {trials}: give --trials {tuned.trials}, or search them again too")
    return {}


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
        fixed=dict(search.cell.settings),
        settings=dict(trials[-number].settings),
    )


def folders(given: str | None, run: Path) -> tuple[Path, ...]:
    """Where tuned settings are looked for, the first place first: by default the run folder, then the project."""
    if given is not None:
        return () if given == "none" else (Path(given),)
    return run / "tuned", Path(str(resources.files("benchmarks"))) / "tuned"


def read(problem: Problem, places: Sequence[Path]) -> dict[Path, Tuned]:
    """The files of exactly these data, the first place first.

    Raises:
        TuningError: for a file that cannot be read; the message names it.
    """
    paths = [path for place in places if (path := _path(place, problem.dataset.name)).exists()]
    return {path: tuned for path in paths if (tuned := _load(path)).data == data_key(problem)}


def choose(
    files: Mapping[Path, Tuned], name: str, method: Method, compute: Compute, given: Mapping[str, Any]
) -> Best | None:
    """The tuned settings of a row: those of the first file that has some which hold for it.

    Args:
        files: by path.
        name: of the row.
        method: the row.
        compute: of the run.
        given: settings that the suite or --set gives to the row.

    Raises:
        TuningError: if the method does not take the settings; the message names the file.
    """
    for path, tuned in files.items():
        best = tuned.methods.get(tuned_as(name, method))
        if best and best.holds_for(method.info, compute, given):
            try:
                create(name, {**best.settings, **given})
            except MethodError as error:
                raise TuningError(f"{path}: {error}") from error
            return best
    return None


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
