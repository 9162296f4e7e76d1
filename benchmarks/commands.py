"""What the subcommands of ``python -m benchmarks.run`` do."""

import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import executors, machine, merging, plan, provenance, suite, tuned_settings, tuning
from benchmarks.errors import EXIT_AUDIT, EXIT_FAILED, UsageError
from benchmarks.listing import list_
from benchmarks.progress import Bar
from benchmarks.report import write
from benchmarks.report.leaderboard import failed_audits
from benchmarks.report.results import Results, load
from benchmarks.store import RunFolder, StoreError, to_json
from data.errors import InputError
from methods import hooks
from methods.base import Compute, count
from methods.lm.answers import LlmError
from methods.registry import create, names

USER_ERRORS = (InputError, StoreError, LlmError)


PROTOCOL = ("split", "min_rating", "min_count", "negatives", "users")
"""Keys of a suite's [protocol] that are options, too."""
TRIALS = 8
"""Fits per method of --tune where --trials does not say."""


def overrides(options: Namespace) -> dict[str, Any]:
    """The keys of a suite that the command line sets.

    Raises:
        UsageError: for a --set that is not METHOD.SETTING=VALUE.
    """
    protocol = {key: getattr(options, key) for key in PROTOCOL}
    chosen: dict[str, Any] = {
        "methods": options.methods,
        "datasets": options.datasets,
        "seeds": options.seeds or ([options.seed] if options.seed is not None else None),
        "limit": options.limit,
        "protocol": {key: value for key, value in protocol.items() if value is not None},
        "settings": _settings(options.settings),
    }
    return {key: value for key, value in chosen.items() if value not in (None, {})}


def _settings(pairs: Sequence[str]) -> dict[str, dict[str, Any]]:
    settings: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        method, dot, setting = name.rpartition(".")
        if not (equals and dot):
            raise UsageError(f"--set {pair!r}: expected METHOD.SETTING=VALUE, such as sasrec.epochs=3")
        settings.setdefault(method, {})[setting] = suite.typed(text)
    return settings


def _warn_of_unused(pairs: Sequence[str], methods: Sequence[str]) -> None:
    running = names(methods)
    for method in _settings(pairs):
        if not set(names([method])).intersection(running):
            print(f"--set {method}: not in this run, whose methods are {', '.join(running)}", file=sys.stderr)


def run(options: Namespace) -> int:
    """Run a suite, or what is left of it."""
    chosen = suite.load(options.suite, overrides(options))
    if options.method:
        chosen = chosen.model_copy(update={"methods": (*chosen.methods, *options.method)})
    _warn_of_unused(options.settings, chosen.methods)
    device = machine.choose_device(options.device)
    if options.backbone:
        _check_backbone(options.backbone)
    if options.revision:
        _check_revision(options.revision, options.backbone)
    jobs, threads = machine.choose_jobs(1 if options.executor == "serial" else options.jobs, device)
    execute: executors.Executor = executors.serial
    if options.executor == "processes" or jobs > 1:
        execute = partial(executors.processes, jobs=jobs, gpus=machine.choose_gpus(device))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    compute = Compute(
        device,
        options.dtype,
        options.backbone,
        options.revision,
        options.batch_size,
        threads,
        options.cache_dir.resolve(),
    )
    folder = _folder(options, chosen.name)
    chosen = plan.with_llm(chosen, options.llm, options.llm_budget, str(folder.path), _settings(options.settings))
    where = tuned_settings.folders(options.tuned, folder.path)
    _refuse_combinations(options, where, folder)
    tuned = () if options.tune else where  # a search starts from the methods' own defaults
    make = partial(plan.make_plan, chosen, compute, folder.path, tuned, options.keep_fits, options.part)
    if options.dry_run:
        made = make()
        return _dry_tune(made, options.trials or TRIALS) if options.tune else _dry_run(made, folder, options.fresh)
    with folder.opened():
        made = make()
        if where and not options.tune:
            _say_tuned(made, folder, where)
        if options.tune:
            return _tune(made, folder, options.trials or TRIALS, where[0], execute)
        if options.fresh:
            for cell in made.own:
                folder.outdate(cell.id, cell.key)
        _refuse_to_replace(made, folder)
        try:
            return _execute(made, folder, compute, jobs, execute)
        except KeyboardInterrupt:
            how = "without --fresh goes" if options.fresh else "goes"
            raise KeyboardInterrupt(f"the same command {how} on from here") from None


def _refuse_combinations(options: Namespace, where: Sequence[Path], folder: RunFolder) -> None:
    """See that no option is given beside one that it has no meaning with.

    Raises:
        UsageError: for the first that is.
    """
    if options.executor == "serial" and (options.jobs or 1) > 1:
        raise UsageError(f"--jobs {options.jobs} needs --executor processes: serial runs one method after the other")
    if options.trials and not options.tune:
        raise UsageError(f"--trials {options.trials} is for --tune")
    if options.tune and not where:
        raise UsageError("--tune has nowhere to write its settings with --tuned none")
    if options.tune and options.fresh:
        raise UsageError(f"--fresh is not for --tune: to search again, delete {folder.path / 'tuning'}")
    if options.tune and options.part != (1, 1):
        raise UsageError("--part is not for --tune: give every machine its own --methods")
    if options.keep_fits and (options.tune or options.fresh):
        other, kept = "--tune" if options.tune else "--fresh", options.cache_dir.resolve() / "fits"
        raise UsageError(f"--keep-fits is not for {other}, which fits anew: to renew kept fits, delete {kept}")
    if options.tuned and not options.tune and not all(place.is_dir() for place in where):
        raise UsageError(f"--tuned {options.tuned}: no such folder")


def _check_backbone(backbone: str) -> None:
    """See that a folder is there; whether the hub has a model, the methods find out that need one."""
    from methods.lm.hub import means_folder

    if means_folder(backbone) and not Path(backbone).is_dir():
        raise UsageError(f"--backbone {backbone}: no such folder")


def _check_revision(revision: str, backbone: str | None) -> None:
    """See that there is something of which a revision can be had."""
    if not backbone:
        raise UsageError(f"--revision {revision}: of which --backbone?")
    from methods.lm.embedded import RECIPES

    if backbone in RECIPES or Path(backbone).is_dir():
        raise UsageError(f"--revision {revision}: {backbone} has none, only models of the Hugging Face hub do")


def _folder(options: Namespace, name: str) -> RunFolder:
    """The run folder; by default it has the name of the suite."""
    return RunFolder((options.output_dir or Path("results") / name).resolve())


def _refuse_to_replace(made: plan.Plan, folder: RunFolder) -> None:
    """See that what is finished is kept, unless it was made by an earlier edition of a user's own method.

    Raises:
        UsageError: if results of other settings or data would be replaced, and --fresh has not asked for it.
    """
    asked = [cell for cell in made.cells if not folder.outdated(cell.id, cell.key)]
    others = [cell for cell in asked if (record := folder.stored(cell.id)) and not cell.may_replace(record)]
    if others:
        instead = "" if others[0].keep else ", or --fresh to replace what is there"
        raise UsageError(
            f"{folder.path}: {count(len(others), 'finished cell')} with other settings, conditions, data or device "
            f"would be replaced, the first {others[0].id}: what the suite, --set, --limit, --backbone and their like "
            f"change, or --tune has found since, needs another --output-dir{instead}"
        )


def _tune(made: plan.Plan, folder: RunFolder, trials: int, where: Path, execute: executors.Executor) -> int:
    """Search the settings of every method that declares a space, and write the best after each method."""
    searches = tuning.searches(made.cells, trials)
    tuning.refuse_to_replace(searches)
    _say_data(made)
    tuned_settings.write(searches, where)  # a file that cannot be added to is refused before anything is fitted
    executors.log_to(folder.path / "run.log")
    failed, written = False, list[Path]()
    with closing(Bar(searches, made.costs)) as bar:
        for search, outcome in execute(searches, bar.report):
            failed |= outcome.status == "failed"
            bar.ended(search, outcome)
            written = tuned_settings.write(searches, where)
    how = "with --fresh instead of" if any(folder.stored(cell.id) for cell in made.cells) else "without"
    found = f"tuned settings: {where}; the same command {how} --tune runs with them"
    print(found if written else "no tuned settings: no trial has a value", file=sys.stderr)
    return EXIT_FAILED if failed else 0


def _dry_tune(made: plan.Plan, trials: int) -> int:
    """Print how many fits each search would make."""
    _say_data(made)
    searches = tuning.searches(made.cells, trials)
    for search in searches:
        print(f"{search.id}: {search.waiting()} fits to make, of {trials} trials over {', '.join(search.space)}")
    for name in sorted({cell.id.method for cell in made.cells} - {search.id.method for search in searches}):
        row = hooks.tuned_as(name, create(name, made.suite.settings.get(name)))
        print(f"{name}: {'no settings to search' if row == name else f'runs with the settings of {row}'}")
    return 0


def _execute(made: plan.Plan, folder: RunFolder, compute: Compute, jobs: int, execute: executors.Executor) -> int:
    """Run the cells that are not finished, rewriting the leaderboard after each, then write everything."""
    outcomes: dict[str, dict[str, str]] = {}
    manifest = made.manifest() | {
        "provenance": provenance.describe(),
        "compute": {
            "device": compute.device,
            "dtype": compute.dtype,
            "backbone": compute.backbone,
            "jobs": jobs,
            "threads": compute.threads,
        },
        "outcomes": outcomes,
    }
    write.clear(folder)
    folder.write("manifest.json", to_json(manifest))
    kept = {cell.id: record for cell in made.cells if (record := folder.record(cell.id, cell.key))}
    waiting = [cell for cell in made.own if cell.id not in kept]
    _say_data(made)
    _say_cells(made, folder, list(kept.values()), len(waiting))
    executors.log_to(folder.path / "run.log")
    if kept and waiting:
        write.write_leaderboard(folder, load(folder))
    with closing(Bar(waiting, made.costs)) as bar:
        for cell, outcome in execute(waiting, bar.report):
            if outcome.status != "finished":
                outcomes[str(cell.id)] = {"status": outcome.status, "reason": outcome.reason}
                folder.write("manifest.json", to_json(manifest))
            bar.ended(cell, outcome)
            write.write_leaderboard(folder, load(folder))
    print("writing tables and figures ...", file=sys.stderr)
    return _conclude(folder, load(folder))


def _say_tuned(made: plan.Plan, folder: RunFolder, where: Sequence[Path]) -> None:
    for name, problem in made.problems.items():
        said = "no tuned settings for these data and methods"
        if tuned := made.tuned[name]:
            files = " and ".join(map(str, tuned_settings.read(problem, where)))
            said = f"tuned settings for {count(len(tuned), 'method')}, of {files}"
        if beside := tuned_settings.beside(problem, folder.path, where):
            said += f"; those of {beside} need --tuned {beside}"
        elif not tuned:
            said += ", see --tune"
        print(f"{name}: {said}", file=sys.stderr)


def _say_data(made: plan.Plan) -> None:
    for name, problem in made.problems.items():
        facts = made.facts(problem)
        print(
            f"{name}: {facts['users']} users, {facts['items']} items, {facts['interactions']} interactions; "
            f"{facts['judged_users']} of {facts['test_users']} test users judged, {facts['candidates']} candidates",
            file=sys.stderr,
        )
        for note in facts["notes"]:
            print(f"  {note}", file=sys.stderr)


def _say_cells(made: plan.Plan, folder: RunFolder, finished: Sequence[dict[str, Any]], waiting: int) -> None:
    kept = f", {len(finished)} finished earlier and kept" if finished else ""
    if others := sum(record.get("code") != provenance.code() for record in finished):
        kept += f", {others} of them made by other code: --fresh fits all again"
    if others := len(made.cells) - len(finished) - waiting:
        kept += f", {others} left to other parts"
    size = f"{count(len(made.cells), 'cell')} x {count(len(made.conditions), 'condition')}"
    print(f"{size} into {folder.path}{kept}", file=sys.stderr)
    if left := set(folder.finished()).difference(cell.id for cell in made.cells):
        print(
            f"{count(len(left), 'finished cell')} of other commands are in no table of this one, the first "
            f"{min(map(str, left))}: to have them there, name their methods, data sets and seeds too",
            file=sys.stderr,
        )


def _dry_run(made: plan.Plan, folder: RunFolder, fresh: bool) -> int:
    """Print each cell, whether it is finished, and what it would ask of a language model."""
    _say_data(made)
    for cell in made.own:
        if not fresh and folder.record(cell.id, cell.key) is not None:
            state = "finished"
        else:
            method = create(cell.id.method, cell.settings)
            estimate = hooks.estimate(method)
            state = "to score, its fit is kept" if cell.keep and cell.fit_file.exists() else "to run"
            state += f", {estimate(*cell.shown(method))}" if estimate else ""
        print(f"{cell.id}: {state}")
    if not fresh:
        _refuse_to_replace(made, folder)
    return 0


def report(options: Namespace) -> int:
    """Write all tables and figures of a run folder again, from its records alone."""
    folder = _folder(options, "" if options.output_dir else suite.load(options.suite, overrides(options)).name)
    found = load(folder)
    left = sum(len(results.seeds) - len(each) for results in found for each in results.records.values())
    failed = len(found[0].manifest.get("outcomes", {})) >= left
    if not failed and not any(results.methods for results in found):  # where all failed, tables say why
        raise UsageError(f"{folder.path}: no method of this run is finished here: its tables stay as they are")
    with folder.opened():
        return _conclude(folder, found)


def merge(options: Namespace) -> int:
    """Put the parts of a run into one folder, and write its tables and figures."""
    parts = [RunFolder(Path(part).resolve()) for part in options.what]
    with _folder(options, parts[0].read_manifest()["suite"]["name"]).opened() as folder:
        for sentence in merging.merge(parts, folder):
            print(sentence, file=sys.stderr)
        return _conclude(folder, load(folder))


def _conclude(folder: RunFolder, found: Sequence[Results]) -> int:
    """Write everything, show the leaderboards, and say how the run ended."""
    started = time.perf_counter()
    write.write_all(folder, found)
    print((folder.path / "leaderboard.md").read_text(encoding="utf-8"))
    print(f"tables, figures and index.html: {folder.path} ({time.perf_counter() - started:.0f} s)", file=sys.stderr)
    failed = [sentence for results in found for sentence in failed_audits(results)]
    for sentence in failed:
        print(f"AUDIT FAILED: {sentence}", file=sys.stderr)
    outcomes = found[0].manifest.get("outcomes", {}).values()
    none = not any(records for results in found for records in results.records.values())
    return EXIT_AUDIT if failed else EXIT_FAILED if none or any(o["status"] == "failed" for o in outcomes) else 0


RUN: dict[str, Callable[[Namespace], int]] = {"run": run, "list": list_, "report": report, "merge": merge}
