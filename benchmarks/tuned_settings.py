"""The settings that a search found best, in one file per data set: ``tuned/<dataset>.toml``.

``benchmarks/tuned`` holds the settings that come with the project. A run takes the settings of a file whose data
are its own, below those of the suite and of ``--set``.
"""

import contextlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ValidationError

from benchmarks.protocol import Problem
from benchmarks.store import component, disk_errors, write_atomically
from benchmarks.tuning import Search, TuningError, data_key
from methods import hooks
from methods.base import Compute, Method, MethodInfo
from methods.registry import MethodError, create

HEADER = "# Written by --tune: the best of each method's trials by mean ndcg@10 of the validation lists.\n"
BARE = re.compile("[A-Za-z0-9_-]+")
"""Keys that TOML takes without quotes."""


class Best(BaseModel, frozen=True, extra="forbid"):
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


class Tuned(BaseModel, frozen=True, extra="forbid"):
    """The settings found for one data set.

    Args:
        dataset: its name.
        data: fingerprint of its interactions and split; the settings are used with no others.
        trials: what every method was given; a smaller space has fewer.
        methods: by name.
    """

    dataset: str
    data: str
    trials: int
    methods: dict[str, Best] = {}

    def toml(self) -> str:
        """The file's text; settings of None, a method's own choice, are left out."""
        lines = [HEADER, *_lines(self.model_dump(exclude={"methods"}))]
        for name, found in sorted(self.methods.items()):
            lines += ["", f"[methods.{_quoted(name)}]", *_lines(found.model_dump(exclude_defaults=True))]
        return "\n".join(lines) + "\n"


def _lines(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        place = prefix + (key if BARE.fullmatch(key) else _quoted(key))
        if isinstance(value, Mapping):
            yield from _lines(value, f"{place}.")
        elif value is not None:
            yield f"{place} = {_quoted(value)}"


def _quoted(value: Any) -> str:
    """A value or key in TOML, in whatever script."""
    return json.dumps(value, ensure_ascii=False)


def _backbone(info: MethodInfo, compute: Compute) -> str:
    """The language model a method's settings hold for; empty for the embedded one and for methods without."""
    named = "@".join(filter(None, (compute.backbone, compute.revision)))
    return named if "language model" in info.needs else ""


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
        _earlier(path, own)  # refuses a file that these settings cannot go into
        if found := {search.id.method: best for search in own if not search.waiting() and (best := _best(search))}:
            data = data_key(own[0].cell.problem)
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                with FileLock(path.with_name(f".{path.name}.lock")):  # searches of other methods may write here, too
                    methods = {**_earlier(path, own), **found}
                    tuned = Tuned(dataset=dataset, data=data, trials=own[0].trials, methods=methods)
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
        fixed=search.fixed,
        settings=dict(trials[-number].settings),
    )


def folders(given: str | None, run: Path) -> tuple[Path, ...]:
    """Where tuned settings are looked for, the first place first: by default the run folder, then the project."""
    if given is not None:
        return () if given == "none" else (Path(given).resolve(),)
    return run / "tuned", Path(str(resources.files("benchmarks"))) / "tuned"


def read(problem: Problem, places: Sequence[Path]) -> dict[Path, Tuned]:
    """The files of exactly these data, the first place first.

    Raises:
        TuningError: for a file that cannot be read; the message names it.
    """
    paths = [path for place in places if (path := _path(place, problem.dataset.name)).exists()]
    return {path: tuned for path in paths if (tuned := _load(path)).data == data_key(problem)}


def beside(problem: Problem, run: Path, used: Sequence[Path]) -> Path | None:
    """The folder not in use where a run beside this one has tuned settings of exactly these data; None if none has."""
    for place in sorted(run.parent.glob("*/tuned")):
        with contextlib.suppress(TuningError):
            if place not in used and read(problem, [place]):
                return place
    return None


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
        best = tuned.methods.get(hooks.tuned_as(name, method))
        if best and best.holds_for(method.info, compute, given):
            try:
                create(name, {**best.settings, **given})
            except MethodError as error:
                raise TuningError(f"{path}: {error}") from error
            return best
    return None


def _load(path: Path) -> Tuned:
    try:
        return Tuned.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise TuningError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TuningError(f"{path}: not a TOML file: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        raise TuningError(f"{path}: {problems}") from error


def _path(folder: Path, dataset: str) -> Path:
    return folder / f"{component(dataset)}.toml"
