"""What a run folder holds, as arrays."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import metrics, robustness
from benchmarks.families import SHARED
from benchmarks.store import CellId, RunFolder, StoreError
from data.types import FloatArray, IntArray

PRIMARY = "ndcg@10"
"""What the tables are about."""


@dataclass(frozen=True)
class Results:
    """All finished methods of one data set.

    Args:
        dataset: name of the data set.
        methods: methods of which every seed is finished.
        seeds: seeds.
        conditions: descriptions of the conditions, clean first.
        ranks: mid-rank of the positive, shape ``[methods, seeds, conditions, users]``.
        ties: other candidates that share it, same shape.
        candidates: competing candidates per user, shape ``[users]``.
        train_count: training interactions of each user's positive, shape ``[users]``; NaN if not recorded.
        records: record of each method's finished cells, by method and seed; of those without a row, too.
        missing: method -> why it has no row.
        manifest: manifest of the run.
        folder: the run folder.
    """

    dataset: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    conditions: tuple[dict[str, Any], ...]
    ranks: FloatArray
    ties: FloatArray
    candidates: IntArray
    train_count: FloatArray
    records: dict[str, tuple[dict[str, Any], ...]]
    missing: dict[str, str]
    manifest: dict[str, Any]
    folder: RunFolder

    @cached_property
    def unseen(self) -> IntArray:
        """Indices of the unseen-template conditions."""
        return self.family("unseen")

    @property
    def statistics(self) -> dict[str, Any]:
        """The suite's settings of tests and intervals."""
        found: dict[str, Any] = self.manifest["suite"]["statistics"]
        return found

    @property
    def seed(self) -> int:
        """Seed of what is drawn for all methods, resamples among it."""
        return int(self.manifest["suite"]["protocol"]["seed"])

    @property
    def resampled(self) -> str:
        """What the bootstrap intervals are over: resampling one seed shows nothing of how fits differ."""
        if not len(self.unseen):
            return "users and seeds" if len(self.seeds) > 1 else "users, not over fits"
        return "users, templates and seeds" if len(self.seeds) > 1 else "users and templates, not over fits"

    def family(self, name: str) -> IntArray:
        """Indices of the conditions of a family."""
        return np.array([n for n, c in enumerate(self.conditions) if c["family"] == name], np.int64)

    @property
    def families(self) -> tuple[str, ...]:
        """Families of conditions in order, without clean."""
        return tuple(dict.fromkeys(c["family"] for c in self.conditions[1:]))

    def values(self, metric: str, tie: float = 0.0) -> FloatArray:
        """A metric per method, condition, user and seed, shape ``[methods, conditions, users, seeds]``.

        Args:
            metric: key of the metric.
            tie: 0 for mid-ranks; -1 or 1 as if the positive came first or last of those that share its rank.
        """
        counts = np.broadcast_to(self.candidates, self.ranks.shape)
        return metrics.METRICS[metric](self.ranks + tie * self.ties / 2, counts).transpose(0, 2, 3, 1)

    @cached_property
    def means(self) -> FloatArray:
        """Mean of the primary metric over users and seeds, shape ``[methods, conditions]``."""
        return np.asarray(self.values(PRIMARY).mean(axis=(2, 3)))

    def prompted(self, method: str) -> bool:
        """Whether a method has a prompt that conditions can change."""
        return bool(self.records[method][0]["info"]["roles"])

    def role(self, method: str) -> str:
        """The role whose templates word a method's prompt, the shared one if it has several; empty without a prompt."""
        roles = sorted(self.records[method][0]["info"]["roles"])
        return SHARED if SHARED in roles else str(next(iter(roles), ""))

    def one_wording(self, method: str) -> bool:
        """Whether several unseen conditions show a method one and the same wording: its ranks are moved all alike."""
        ranks = self.ranks[self.methods.index(method)]
        first, unseen = ranks[:, self.unseen[:1]], ranks[:, self.unseen]
        alike = len(self.unseen) > 1 and bool((unseen == first).all())
        return alike and self.prompted(method) and bool((first != ranks[:, :1]).any())

    def reached(self, method: str, family: str = "unseen") -> bool:
        """Whether a family of conditions was put to a method: in every fit some score moved, or there is no prompt."""
        members = self.family(family).tolist()
        if not members or not self.prompted(method):
            return bool(members)
        return all(any(self._moved(method, seed, member) for member in members) for seed in range(len(self.seeds)))

    def unmoved(self, method: str, conditions: IntArray) -> bool:
        """Whether conditions change no score of any fit of a method."""
        fits = range(len(self.seeds))
        return not any(self._moved(method, seed, c) for c in conditions.tolist() for seed in fits)

    def _moved(self, method: str, seed: int, condition: int) -> bool:
        """Whether a condition changed any score of a fit; any rank, in a folder without scores."""
        moved = _scores_moved(self.cell(method, self.seeds[seed]), self.records[method][seed]["key"], condition)
        ranks = self.ranks[self.methods.index(method), seed]
        return bool((ranks[condition] != ranks[0]).any()) if moved is None else moved

    def cell(self, method: str, seed: int) -> Path:
        """Folder of a finished cell."""
        return self.folder.cell(CellId(self.dataset, method, seed))


def scores_of(cell: Path, condition: int) -> FloatArray | None:
    """Stored scores of a cell, shape ``[users, candidates]``; None in a folder without scores.

    Raises:
        StoreError: if the file is damaged and its record, of an earlier version, has no sizes to tell.
    """
    path = cell / "scores" / f"{condition:03}.npy"
    try:
        return np.load(path) if path.exists() else None
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"{path}: damaged; delete {cell}, and the command that made it fits it again") from error


@cache
def _scores_moved(cell: Path, key: str, condition: int) -> bool | None:
    """Whether the scores of a cell differ from the clean ones; None without scores. ``key`` tells cells apart."""
    clean, scores = scores_of(cell, 0), scores_of(cell, condition)
    return None if clean is None or scores is None else bool(robustness.scores_moved(clean, scores).any())


def load(folder: RunFolder) -> tuple[Results, ...]:
    """Results per data set of a run, finished or not.

    Raises:
        StoreError: if the folder holds no run.
    """
    manifest = folder.read_manifest()
    return tuple(_of_dataset(folder, manifest, dataset) for dataset in manifest["datasets"])


def _of_dataset(folder: RunFolder, manifest: dict[str, Any], dataset: str) -> Results:
    cells = [cell for cell in manifest["cells"] if cell["dataset"] == dataset]
    seeds = tuple(dict.fromkeys(cell["seed"] for cell in cells))
    found: dict[str, tuple[dict[str, Any], ...]] = {}
    missing: dict[str, str] = {}
    for method in dict.fromkeys(cell["method"] for cell in cells):
        ids = [(CellId(dataset, method, cell["seed"]), cell["key"]) for cell in cells if cell["method"] == method]
        found[method] = tuple(record for cell, key in ids if (record := folder.record(cell, key)))
        if len(found[method]) < len(seeds):
            missing[method] = _reason(manifest, ids, len(found[method]))
    finished = tuple(method for method in found if method not in missing)
    read = {m: [_read(folder.cell(CellId(dataset, m, seed)) / "records.csv") for seed in seeds] for m in finished}
    conditions = tuple(manifest["conditions"])
    # identical lists make users and candidate counts the same for all methods
    first = next(iter(read.values()))[0] if read else Records(*np.empty((4, 0)))
    shape = (len(finished), len(seeds), len(conditions), len(first.candidates))
    return Results(
        dataset=dataset,
        methods=finished,
        seeds=seeds,
        conditions=conditions,
        ranks=np.array([[records.ranks for records in rows] for rows in read.values()], float).reshape(shape),
        ties=np.array([[records.ties for records in rows] for rows in read.values()], float).reshape(shape),
        candidates=first.candidates,
        train_count=first.train_count,
        records=found,
        missing=missing,
        manifest=manifest,
        folder=folder,
    )


def _reason(manifest: dict[str, Any], ids: Sequence[tuple[CellId, str]], finished: int) -> str:
    outcomes = manifest.get("outcomes", {})
    for cell, _ in ids:
        if str(cell) in outcomes:
            seed = f" for seed {cell.seed}" * (len(ids) > 1)
            return f"{outcomes[str(cell)]['status']}{seed}: {outcomes[str(cell)]['reason']}"
    return f"not finished yet ({finished} of {len(ids)} seeds)"


class Records(NamedTuple):
    """The records of a cell: what is known per user, and ranks and ties ``[conditions, users]``."""

    candidates: IntArray
    train_count: FloatArray
    ranks: FloatArray
    ties: FloatArray


def _read(path: Path) -> Records:
    import pandas as pd

    columns = {"condition", "candidates", "train_count", "rank", "ties"}
    text = io.StringIO(path.read_text(encoding="utf-8"))  # pandas takes Ctrl-C while it reads a file for damage to it
    table = pd.read_csv(text, usecols=columns.__contains__, keep_default_na=False)
    clean = table[table["condition"] == table["condition"].iloc[0]]
    ranks, ties = (table[key].to_numpy(float).reshape(-1, len(clean)) for key in ("rank", "ties"))
    # older records lack the training count
    train_count = clean.get("train_count", pd.Series(np.nan, clean.index)).to_numpy(float)
    return Records(clean["candidates"].to_numpy(np.int64), train_count, ranks, ties)
