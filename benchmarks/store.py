"""The run folder: what is finished stays, what is half-written is never taken for whole.

manifest.json                 what was asked for, of what content, on which machine, by which code
run.log                       messages of the methods and the libraries below them
cells/<dataset>/<method>/seed-<s>/
    record.json               key, fit report, timings, conditions, audits
    scores/<number>.npy       of each condition in the manifest's order, from 000: float32 [users, candidates], minus
                              infinity for items that do not compete
    records.csv               per user and condition: template, rank, metrics, training count of the positive,
                              what was wrong with the answer
    .outdated                 where --fresh has asked for another fit: content key of that one
    ...                       what a method found while fitting, in its own words
leaderboard.md ...            made from the above alone, again at any time
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from data.fingerprint import fingerprint

SCHEMA = 1
OUTDATED = ".outdated"
OLD = ".partial-old-"
"""How a cell's folder is called while another takes its place."""
WRITTEN = ("", "cells/*/*/", "cells/*/*/seed-*/", "tuning/*/*/", "tuned/", "figures/")
"""Where a run writes; below them there may be other runs."""


class StoreError(RuntimeError):
    """The run folder cannot be used."""


@dataclass(frozen=True)
class CellId:
    """Names one fit of one method on one data set."""

    dataset: str
    method: str
    seed: int

    @property
    def folder(self) -> Path:
        """Path inside ``cells/``; names of any characters become one path component each."""
        return Path(component(self.dataset), component(self.method), f"seed-{self.seed}")

    def __str__(self) -> str:
        return f"{self.method} on {self.dataset}, seed {self.seed}"


def component(name: str) -> str:
    """A name of any characters as one component of a path."""
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    return plain if plain == name and name.strip(".") else f"{plain}-{fingerprint(name)[:8]}"


class RunFolder:
    """A folder that one run writes and any number of readers read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._damaged: set[Path] = set()

    @contextlib.contextmanager
    def opened(self) -> Iterator["RunFolder"]:
        """Hold the folder for writing and clear away what a killed run left half-written.

        Raises:
            StoreError: if another run holds it, or it cannot be written.
        """
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                raise StoreError(
                    f"{self.path}: another run is writing here; wait for it or choose another --output-dir"
                ) from None
        try:
            with disk_errors(self.path):
                for leftover in (path for place in WRITTEN for path in self.path.glob(f"{place}.partial-*")):
                    _clear(leftover)
            yield self
        finally:
            lock.release()

    def cell(self, cell: CellId) -> Path:
        """Folder of a cell, finished or not."""
        return self.path / "cells" / cell.folder

    def record(self, cell: CellId, key: str) -> dict[str, Any] | None:
        """The record of a finished cell of that content key; None if there is none, or it is to be fitted again."""
        record = self.stored(cell)
        known = record and record["key"] == key and record["schema"] == SCHEMA
        return record if known and not self.outdated(cell, key) else None

    def stored(self, cell: CellId) -> dict[str, Any] | None:
        """The record of a finished cell of any content key; None if there is none, or its files are damaged."""
        path = self.cell(cell) / "record.json"
        if not path.exists():
            return None
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            _ = record["key"], record["schema"]
            path = path.with_name("records.csv")
            with path.open(encoding="utf-8") as file:
                if not (file.readline() and file.readline()):
                    raise ValueError("no records")
            _check_size(path, record.get("records_bytes"))
            for name, size in record.get("scores_bytes", {}).items():
                path = self.cell(cell) / "scores" / name
                if path.exists():  # a folder may be kept without its scores
                    _check_size(path, size)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if path not in self._damaged:
                logging.getLogger(__name__).warning("%s: damaged, %s is not finished: %s", path, cell, error)
            self._damaged.add(path)
            return None
        return record

    def finished(self) -> Iterator[CellId]:
        """All finished cells, of whatever command."""
        for path in sorted(self.path.glob("cells/*/*/seed-*/record.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                record = json.loads(path.read_text(encoding="utf-8"))
                cell = CellId(record["dataset"], record["method"], record["seed"])
                if self.stored(cell):
                    yield cell

    def outdate(self, cell: CellId, key: str) -> None:
        """Note that a fit of that content key shall replace a finished cell, which stays until it does.

        Raises:
            StoreError: if the disk is not writable.
        """
        if self.stored(cell):
            with disk_errors(self.cell(cell)):
                write_atomically(self.cell(cell) / OUTDATED, key)

    def outdated(self, cell: CellId, key: str) -> bool:
        """Whether a fit of that content key has been asked for in the place of a finished cell."""
        path = self.cell(cell) / OUTDATED
        return path.exists() and path.read_text(encoding="utf-8") == key

    @contextlib.contextmanager
    def writing(self, cell: CellId) -> Iterator[Path]:
        """A folder that takes the cell's place when the block ends, and vanishes if it fails.

        Raises:
            StoreError: if the disk is full or not writable; what was there before is intact.
        """
        final = self.cell(cell)
        partial, old = (final.parent / f"{prefix}{final.name}" for prefix in (".partial-", OLD))
        with disk_errors(final):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            try:
                yield partial
                _sync(partial)
                if final.exists():
                    final.rename(old)
                partial.rename(final)
            finally:
                if old.exists() and not final.exists():
                    old.rename(final)
                for leftover in (partial, old):
                    shutil.rmtree(leftover, ignore_errors=True)

    def write(self, name: str, text: str) -> None:
        """Replace a file of the folder in one step."""
        with disk_errors(self.path):
            write_atomically(self.path / name, text)

    def read_manifest(self) -> dict[str, Any]:
        """The manifest.

        Raises:
            StoreError: if the folder holds no run, or the manifest is damaged.
        """
        path = self.path / "manifest.json"
        if not path.exists():
            raise StoreError(f"{self.path}: no run here (no manifest.json)")
        try:
            manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            schema = manifest["schema"]
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: damaged; the command that made the run writes it again") from error
        if schema != SCHEMA:
            raise StoreError(f"{path}: schema {schema}, this version reads {SCHEMA}")
        return manifest


def _clear(leftover: Path) -> None:
    """Remove what a killed run left half-written; what it had only moved out of the way goes back."""
    place = leftover.with_name(leftover.name.removeprefix(OLD))
    if place != leftover and not place.exists():
        leftover.rename(place)
    elif leftover.is_dir():
        shutil.rmtree(leftover)
    else:
        leftover.unlink()


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says of a full or read-only disk into a message with the folder."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: cannot write: {error.strerror or error}; earlier results are intact") from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    with replacing(path) as file:
        file.write(content if isinstance(content, bytes) else content.encode(errors="backslashreplace"))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of an earlier one when the block ends, and vanishes if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    try:
        with partial.open("wb") as file:
            yield file
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def to_json(value: object) -> str:
    """JSON as the suite writes it: sorted keys, indented, not-a-number as null, NumPy's scalars as Python's."""
    return json.dumps(_plain(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and value != value:
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _check_size(path: Path, size: int | None) -> None:
    """See that a file has the size it was written with, if that is known."""
    if size not in (None, path.stat().st_size):
        raise ValueError("cut off, or changed by hand")


def _sync(folder: Path) -> None:
    """Have the disk hold the files before their folder gets its final name."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
