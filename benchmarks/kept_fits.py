"""Fits that are kept in the cache: a fitted method scores under other conditions without being fitted again.

``fits/<dataset>/<method>/seed-<s>-<key>.pickle`` holds the method as its fit left it, and what the fit took. It is used
where all that the fit depends on is the same: method, settings, seed, training and validation part, seen templates,
machine, packages, what is in folders that are named, such as a backbone, and the code of ``methods``, ``data`` and the
two modules here that make the task and the file. Conditions, unseen templates and judged users may be others. Reading a
pickle runs what it says: a cache is to be trusted as code is.
"""

import hashlib
import logging
import os
import pickle
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

import data
import methods
from benchmarks import protocol
from benchmarks.provenance import packages
from benchmarks.store import replacing
from data.fingerprint import fingerprint
from methods.base import FitReport, Method, Task

PARTS = ("catalogue", "train", "valid", "valid_positive", "templates", "compute")
"""Parts of a task that a fit does not keep: whoever reads it brings the same ones."""


class FitError(RuntimeError):
    """A fit cannot be kept."""


@dataclass(frozen=True)
class Fit:
    """A fitted method, and what the fit took.

    Args:
        method: as ``fit`` left it.
        report: what it said of its fit.
        seconds: time.
        memory: largest in MiB, as :func:`benchmarks.provenance.peak_memory` gives it.
    """

    method: Method
    report: FitReport
    seconds: float
    memory: Mapping[str, float]


def load(path: Path, task: Task) -> Fit | None:
    """The fit that is kept in a file, with this task in the place of that it was made with; None if none can be read.

    Args:
        path: the file.
        task: the same as it was fitted on, but perhaps for the cache folder and the number of threads.
    """
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            fit = _Reader(file, task).load()
        if not isinstance(fit, Fit):
            raise TypeError(f"it holds no fit but {type(fit).__name__}")
    except Exception as error:  # a pickle may raise anything
        logging.getLogger(__name__).warning("%s: cannot be read, fitted again: %s", path, error)
        return None
    return fit


def save(path: Path, fit: Fit, task: Task) -> None:
    """Keep a fit in a file, which appears only when it is complete.

    Raises:
        FitError: if the method holds something that cannot be stored, or the disk is full or not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"), replacing(path) as file:
            _Writer(file, task).dump(fit)
    except Exception as error:  # what a method holds may raise anything
        raise FitError(f"its fit cannot be kept: {type(error).__name__}: {error}") from error


class _Writer(pickle.Pickler):
    """Has names for the task, its parts, and paths inside the cache folder."""

    def __init__(self, file: BinaryIO, task: Task) -> None:
        super().__init__(file, protocol=5)
        self._names = {id(part): name for name, part in _named(task).items()}
        self._cache = task.compute.cache

    def persistent_id(self, obj: Any) -> Any:
        """The name of an object that is not stored."""
        if isinstance(obj, Path) and obj.is_relative_to(self._cache):
            return "cache", str(obj.relative_to(self._cache))
        return self._names.get(id(obj))


class _Reader(pickle.Unpickler):
    """Knows what is meant by the names."""

    def __init__(self, file: BinaryIO, task: Task) -> None:
        super().__init__(file)
        self._parts = _named(task)
        self._cache = task.compute.cache

    def persistent_load(self, name: Any) -> Any:
        """The object of a name."""
        return self._parts[name] if isinstance(name, str) else self._cache / name[1]


def _named(task: Task) -> dict[str, Any]:
    return {"task": task} | {name: getattr(task, name) for name in PARTS}


def folders(named: Iterable[object]) -> dict[str, list[str]]:
    """Names, sizes and times of the files in every folder that is named, perhaps as ``local:FOLDER``."""
    names = [name.removeprefix("local:") for name in named if isinstance(name, str)]
    return {name: sorted(map(_stamp, Path(name).rglob("*"))) for name in names if os.path.isdir(name)}


def models(named: Iterable[object]) -> list[dict[str, str]]:
    """SHA-256 of its files by path inside it, of every folder of a model that is named, perhaps as ``local:FOLDER``.

    Hidden files, such as what a download notes of itself, are no part of the model.
    """
    folders = dict.fromkeys(Path(name.removeprefix("local:")) for name in named if name and isinstance(name, str))
    return [_digests(folder) for folder in folders if (folder / "config.json").is_file()]


def _digests(folder: Path) -> dict[str, str]:
    files = ((file, file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    return {
        str(inside): _digest(file, _stamp(file))
        for file, inside in files
        if not any(part.startswith(".") for part in inside.parts)
    }


@cache
def _digest(path: Path, stamp: str) -> str:
    """SHA-256 of a file, read once for every stamp."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> str:
    return f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" if path.is_file() else str(path)


@cache
def surroundings() -> str:
    """SHA-256 of what any fit depends on: Python, packages, and the files that methods and their tasks are made of."""
    own = {Path(file).name: Path(file).read_bytes().hex() for file in (__file__, protocol.__file__)}
    for package in (data, methods):
        folder = Path(package.__path__[0])
        files = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".md", ".pyc"))
        own |= {f"{package.__name__}/{path.relative_to(folder)}": path.read_bytes().hex() for path in files}
    return fingerprint(platform.python_version(), packages(), own)
