"""A cell: one method fitted once on one data set with one seed, and scored under every condition."""

import csv
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import audits, kept_fits, metrics
from benchmarks.conditions import Condition
from benchmarks.contract import check_offset, check_range, checked, for_roles, own_errors, score, scored
from benchmarks.protocol import Problem
from benchmarks.provenance import code, peak_memory, reset_peak_memory, source
from benchmarks.store import SCHEMA, CellId, RunFolder, to_json
from data.fingerprint import fingerprint
from data.types import FloatArray
from methods import hooks
from methods.base import Compute, FitReport, Method, NotRunnable, Requests, Task, count
from methods.lm.open import recorded_file
from methods.lm.recorded import recorded_text
from methods.registry import create

FIT_SHARE = 0.6
"""Share of a cell's expected time that fitting takes; only the progress bar depends on it."""

ASKING = ("llm_run", "llm_budget")
"""Settings that say where and for how much an LLM was asked; no result depends on them."""

RECORDED = "recorded"
"""How the setting ``llm`` begins where no LLM is asked."""

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Cell:
    """All that determines the results of a cell, and where they go.

    Args:
        id: data set, method and seed.
        settings: the method's settings.
        problem: split, candidates and templates.
        conditions: clean first.
        compute: where to compute; the cache folder and the thread count are not part of the key.
        run: the run folder.
        keep: whether its fit is kept in the cache, and one that is kept there is used.
    """

    id: CellId
    settings: Mapping[str, Any]
    problem: Problem = field(repr=False)
    conditions: tuple[Condition, ...]
    compute: Compute
    run: Path
    keep: bool = False

    @cached_property
    def key(self) -> str:
        """Content key: a finished cell is used again only if nothing that could change it has changed."""
        return self._key(self.fingerprints, self._described)

    def _key(self, fingerprints: Mapping[str, str], conditions: Sequence[Mapping[str, Any]]) -> str:
        settings = to_json(self.lasting)
        return fingerprint(SCHEMA, self.id.method, self.id.seed, settings, fingerprints, conditions, self.machine)

    @property
    def _described(self) -> list[dict[str, Any]]:
        """The conditions, with the source of a user's own perturbations as this process has it."""
        return [condition.describe() for condition in self.conditions]

    @property
    def lasting(self) -> dict[str, Any]:
        """The settings but for those that no result depends on, :data:`ASKING`."""
        return {name: value for name, value in self.settings.items() if name not in ASKING}

    def may_replace(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is this cell's but for the source of a user's own method and perturbations."""
        made = {condition["name"]: condition for condition in record.get("conditions", ())}
        conditions = [_of_source(condition, made.get(condition["name"], {})) for condition in self._described]
        fingerprints = _of_source(self.fingerprints, record.get("fingerprints", {}))
        return bool(record["key"] == self._key(fingerprints, conditions))

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Those of the problem, of recorded answers and model folders that it reads, and of a user's own method."""
        method = create(self.id.method, self.settings)
        found = dict(self.problem.fingerprints)
        file = recorded_file(hooks.llm(method), self.problem.dataset.name, self.compute.cache)
        if file is not None and file.is_file():
            found["recorded"] = fingerprint(recorded_text(file))
        backbone = self.compute.backbone if "language model" in method.info.needs else None
        if models := kept_fits.models([backbone, *self.lasting.values()]):
            found["models"] = fingerprint(models)
        return found | self.source

    @property
    def source(self) -> dict[str, str]:
        """Fingerprint of a user's own method as this process has it: of the module named, and that of the class."""
        module, colon, _ = self.id.method.partition(":")
        if not colon:
            return {}
        kind = type(create(self.id.method, self.settings))
        return {"source": source(*dict.fromkeys((module, kind.__module__)))}

    @property
    def fit_file(self) -> Path:
        """Where the cache has its fit: one file for all cells that fit the same."""
        asking = not str(self.settings.get("llm", RECORDED)).startswith(RECORDED)
        settings = to_json(self.settings if asking else self.lasting)
        own = {name: value for name, value in self.fingerprints.items() if name not in self.problem.fingerprints}
        learned = (self.id.method, self.id.seed, settings, self.problem.learnable, own)
        folders = kept_fits.folders([self.compute.backbone, *self.lasting.values()])  # the run folder is none of them
        key = fingerprint(*learned, self.machine, self.compute.device, folders, kept_fits.surroundings())
        return self.compute.cache / "fits" / f"{self.id.folder}-{key[:16]}.pickle"

    @property
    def machine(self) -> dict[str, Any]:
        """What of :class:`Compute` can change results; which of several GPUs does not."""
        device = self.compute.device.partition(":")[0]
        return asdict(self.compute) | {"device": device, "threads": 0, "cache": None}

    def execute(self, progress: Progress) -> "Outcome":
        """Fit and score, see :func:`run_cell`."""
        return run_cell(self, progress)

    def shown(self, method: Method) -> tuple[Task, Iterator[Requests]]:
        """What the method would fit on, and its requests under every condition, made as they are asked for."""
        requests = for_roles(self.problem.test_requests(), method)
        task = self.problem.task(self.compute)
        return task, (condition.apply(requests, self.id.seed) for condition in self.conditions)


def _of_source(own: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """``own``, as if it were of the source that ``theirs`` has."""
    kept = {name: value for name, value in own.items() if name != "source"}
    return kept | ({"source": theirs["source"]} if "source" in theirs else {})


@dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    Args:
        status: ``finished``, ``not run`` (something it needs is missing) or ``failed``.
        reason: why there are no numbers, or what went wrong all the same; empty if nothing did.
    """

    status: str
    reason: str = ""


def run_cell(cell: Cell, progress: Progress) -> Outcome:
    """Fit and score; write the finished cell into the run folder.

    Raises:
        StoreError: if the run folder cannot be written.
    """
    log, made_with = logging.getLogger(__name__), code()
    if cell.source.items() - cell.fingerprints.items():  # a process of its own reads the file anew
        return Outcome("failed", "its file has changed since this run began: the same command fits what has changed")
    if cell.key != cell._key(cell.fingerprints, cell._described):
        changed = "the file of a perturbation has changed since this run began"
        return Outcome("failed", f"{changed}: the same command fits again what it has changed")
    try:
        progress(0.0, "fitting")
        fit, said = _fitted(cell)
        method = fit.method
        with RunFolder(cell.run).writing(cell.id) as folder:
            scored = _score_conditions(cell, method, folder, progress)
            record = {
                "schema": SCHEMA,
                "key": cell.key,
                "dataset": cell.id.dataset,
                "method": cell.id.method,
                "seed": cell.id.seed,
                "settings": cell.lasting,
                "info": asdict(method.info)
                | {key: sorted(getattr(method.info, key)) for key in ("roles", "learns", "needs")},
                "fit": asdict(_noted(fit.report, scored.shortened, scored.unusable)),
                "ledger": scored.ledger,
                "seconds": {"fit": fit.seconds, "score": scored.seconds},
                "memory": {place: max(peak, fit.memory.get(place, 0.0)) for place, peak in peak_memory().items()},
                "code": made_with,
                "records_bytes": (folder / "records.csv").stat().st_size,
                "scores_bytes": {file.name: file.stat().st_size for file in (folder / "scores").iterdir()},
                "conditions": cell._described,
                "audits": [asdict(check) for check in scored.audits],
                "fingerprints": cell.fingerprints,
            }
            (folder / "record.json").write_text(to_json(record), encoding="utf-8")
            with own_errors(method):
                artifacts = hooks.artifacts(method)
            for name, content in artifacts.items():
                if Path(name).name != name or (folder / name).exists():
                    raise ValueError(f"artifacts: {name!r} is no plain file name, or there is one of that name")
                (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    except NotRunnable as reason:
        log.warning("%s: not run: %s", cell.id, reason)
        return Outcome("not run", str(reason))
    return Outcome("finished", said)


def _fitted(cell: Cell) -> tuple[kept_fits.Fit, str]:
    """The fit that the cache has, or one made now; and what there is to say of that.

    Raises:
        NotRunnable: if something it needs is not there.
    """
    task = cell.problem.task(cell.compute)
    reset_peak_memory()
    if cell.keep and (kept := kept_fits.load(cell.fit_file, task)):
        return kept, "with a kept fit"
    method = create(cell.id.method, cell.settings)
    started = time.perf_counter()
    report = checked(method.fit(task, cell.id.seed))
    fit = kept_fits.Fit(method, report, time.perf_counter() - started, peak_memory())
    try:
        if cell.keep:
            kept_fits.save(cell.fit_file, fit, task)
    except kept_fits.FitError as error:
        logging.getLogger(__name__).warning("%s: %s", cell.id, error)
        return fit, str(error)
    return fit, ""


@dataclass(frozen=True)
class _Scored:
    """What scoring all conditions took and showed; audits, which score some users again, count in none of it.

    Args:
        seconds: per 1000 rankings.
        shortened: prompts cut to the model's window.
        ledger: what was wrong with answers, where the method counts it.
        unusable: the same in words for the note of the row; empty if nothing was.
        audits: of the cell.
    """

    seconds: float
    shortened: int
    ledger: dict[str, Any] | None
    unusable: str
    audits: list[audits.Audit]


def _score_conditions(cell: Cell, method: Method, folder: Path, progress: Progress) -> _Scored:
    """Write scores and records of every condition."""
    requests = for_roles(cell.problem.test_requests(), method)
    invariance = audits.Invariance(method.info.roles)
    demonstrations = audits.Demonstrations(cell.problem, method)
    (folder / "scores").mkdir()
    elapsed, before = 0.0, hooks.shortened(method)
    with (folder / "records.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["condition", "user", "template", "candidates", "rank", "ties", *metrics.METRICS, "train_count", "flags"]
        )
        for n, condition in enumerate(cell.conditions):
            progress(FIT_SHARE + (1 - FIT_SHARE) * n / len(cell.conditions), condition.name)
            shown = condition.apply(requests, cell.id.seed)
            started = time.perf_counter()
            scores, flags = scored(method, shown)
            elapsed += time.perf_counter() - started
            check_range(method, scores)
            if not n:
                check_offset(method, scores)
            mask = cell.problem.test.mask
            competing = scores if mask is None else np.where(mask, scores, -np.inf)  # the list a user would see
            np.save(folder / "scores" / f"{n:03}.npy", competing.astype(np.float32))
            invariance.see(condition, scores)
            with own_errors(method):
                demonstrations.see(condition, shown)
            writer.writerows(_rows(condition, shown, scores, cell.problem, flags))

    shortened = hooks.shortened(method) - before

    def afresh(shown: Requests) -> FloatArray:
        with own_errors(method):
            hooks.forget(method)
        return score(method, shown)

    ledger, unusable = hooks.ledger(method), hooks.unusable(method)  # before the audits score again
    rescored = audits.rescoring(afresh, requests, cell.conditions, cell.id.seed)
    checks = [*invariance.audits(), *demonstrations.audits(), *rescored]
    seconds = elapsed / (len(requests) * len(cell.conditions)) * 1000
    return _Scored(seconds, shortened, ledger, unusable, checks)


def _noted(report: FitReport, shortened: int, unusable: str) -> FitReport:
    """The report, with a note on prompts that were shortened and on answers that could not be used if there are any."""
    said = f"{count(shortened, 'prompt')} shortened to the model's window" if shortened else ""
    return replace(report, note="; ".join(filter(None, (report.note, said, unusable))))


def _rows(
    condition: Condition, shown: Requests, scores: FloatArray, problem: Problem, flags: Sequence[str]
) -> Iterator[list[Any]]:
    lists, train = problem.test, problem.split.train
    train_count = np.bincount(train.items, minlength=shown.catalogue.n_items)[lists.targets]
    rank = metrics.rank_of_positive(scores, lists.positive, lists.mask)
    ties = metrics.tied_with_positive(scores, lists.positive, lists.mask)
    values = metrics.evaluate(rank, lists.competing)
    alone = ties == 0  # the rules are those of ranks that nobody shares
    if alone.any():
        means = {key: float(value[alone].mean()) for key, value in values.items()}
        assert not (broken := metrics.check_sanity(means, int(alone.sum()))), broken
    templates = next(iter(shown.templates.values()), None)
    for row, (user, flag) in enumerate(zip(shown.users.tolist(), flags, strict=True)):
        template = templates[row].id if templates else ""
        found = (lists.competing[row], f"{rank[row]:.10g}", ties[row])
        numbers = (f"{values[key][row]:.6g}" for key in metrics.METRICS)
        yield [condition.name, shown.catalogue.user_ids[user], template, *found, *numbers, train_count[row], flag]
