"""Runs that are stopped, killed, repeated or changed."""

import csv
import json
import os
import shutil
import signal
import time
from collections.abc import Callable

import pytest

from benchmarks import plan, suite
from benchmarks.run import main
from benchmarks.store import CellId, RunFolder
from methods.base import Compute, count
from tests.benchmarks.conftest import TABLES
from tests.conftest import start

OWN = "from tests.fakes import Prompted\n\n\nclass Mine(Prompted):\n    pass\n"


def wait_for(reached: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "what was waited for never came"
        time.sleep(0.01)


def test_running_again_recomputes_nothing(finished, tmp_path, run_suite):
    suite, run = finished[0], shutil.copytree(finished[1], tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (run / "cells").rglob("*.npy")}
    tables = {name: (run / name).read_bytes() for name in TABLES}
    answer = run_suite("--suite", suite, "--output-dir", run)
    assert "3 finished earlier and kept" in answer.stderr
    assert before == {path: path.stat().st_mtime_ns for path in (run / "cells").rglob("*.npy")}
    assert tables == {name: (run / name).read_bytes() for name in TABLES}


def test_scores_that_were_cut_off_are_made_again_or_named_where_an_old_record_has_no_sizes(finished, tmp_path, capsys):
    run = shutil.copytree(finished[1], tmp_path / "run")
    cell = run / "cells" / "tiny" / "random" / "seed-0"
    file, record = cell / "scores" / "001.npy", json.loads((cell / "record.json").read_text())
    assert record["scores_bytes"] == {path.name: path.stat().st_size for path in (cell / "scores").iterdir()}
    os.truncate(file, 500)
    assert not RunFolder(run).record(CellId("tiny", "random", 0), record["key"])
    del record["scores_bytes"]
    (cell / "record.json").write_text(json.dumps(record))
    assert main(["report", "--output-dir", str(run)]) == 2
    assert f"error: {file}: damaged; delete {cell}, and the command" in capsys.readouterr().err


def test_edited_method_of_ones_own_is_fitted_again_and_the_others_are_kept(suite_file, tmp_path, run_suite):
    flags = ("--suite", suite_file, "--methods", "random", "mine:Mine", "--output-dir", tmp_path / "r")
    path = {**os.environ, "PYTHONPATH": str(tmp_path)}
    (tmp_path / "mine.py").write_text(OWN)
    assert run_suite(*flags, env=path).returncode == 0
    assert run_suite(*flags, "--dry-run", env=path).stdout.count(": finished") == 2
    (tmp_path / "mine.py").write_text(OWN + "    seconds: float = 0.001\n")
    answer = run_suite(*flags, env=path)
    assert answer.returncode == 0 and "1 finished earlier and kept" in answer.stderr


def test_method_of_ones_own_that_is_edited_while_it_runs_has_no_row_of_both(suite_file, tmp_path, run_suite):
    path = {**os.environ, "PYTHONPATH": str(tmp_path)}
    edit = f"open({str(tmp_path / 'mine.py')!r}, 'a').write('# edited')\n        return super().fit(task, seed)\n"
    (tmp_path / "mine.py").write_text(OWN.replace("pass\n", f"def fit(self, task, seed):\n        {edit}"))
    where = ("--executor", "processes", "--jobs", 1, "--output-dir", tmp_path / "r", "--seeds", 0, 1)
    answer = run_suite("--suite", suite_file, "--methods", "mine:Mine", *where, env=path)
    assert answer.returncode == 1 and "seed 0: finished" in answer.stderr
    assert "seed 1: failed: its file has changed since this run began" in answer.stderr


LOUD = """
from dataclasses import dataclass
from typing import ClassVar

from benchmarks.perturbations.base import Ungraded, WordingPerturbation

@dataclass(frozen=True)
class Loud(Ungraded, WordingPerturbation):
    family: ClassVar[str] = "loud"

    def perturb(self, text, rng):
        return text.upper()
"""


def test_results_under_a_perturbation_of_ones_own_are_made_again_when_it_has_changed(suite_file, tmp_path, run_suite):
    path = {**os.environ, "PYTHONPATH": str(tmp_path)}
    file = tmp_path / "noise.py"
    suite_file.write_text(suite_file.read_text().replace("typos = [0.1, 0.3]", '"noise:Loud" = true'))
    flags = ("--suite", suite_file, "--methods", "random", "tests.fakes:Prompted", "--output-dir", tmp_path / "r")
    file.write_text(LOUD)
    assert run_suite(*flags, env=path).returncode == 0
    assert run_suite(*flags, "--dry-run", env=path).stdout.count(": finished") == 2
    file.write_text(LOUD.replace("upper", "title"))
    assert run_suite(*flags, "--dry-run", env=path).stdout.count(": to run") == 2
    answer = run_suite(*flags, env=path)
    assert answer.returncode == 0 and "kept" not in answer.stderr
    other = run_suite(*flags, "--limit", 20, env=path)
    assert other.returncode == 2 and "would be replaced" in other.stderr


def test_perturbation_that_is_edited_while_a_run_goes_on_has_no_rows_of_both(suite_file, tmp_path, run_suite):
    path = {**os.environ, "PYTHONPATH": str(tmp_path)}
    file = tmp_path / "noise.py"
    edit = f"open({str(file)!r}, 'a').write('# edited')\n        return super().fit(task, seed)\n"
    (tmp_path / "mine.py").write_text(OWN.replace("pass\n", f"def fit(self, task, seed):\n        {edit}"))
    file.write_text(LOUD)
    suite_file.write_text(suite_file.read_text().replace("typos = [0.1, 0.3]", '"noise:Loud" = true'))
    where = ("--executor", "processes", "--jobs", 1, "--output-dir", tmp_path / "r", "--seeds", 0, 1)
    answer = run_suite("--suite", suite_file, "--methods", "mine:Mine", *where, env=path)
    assert answer.returncode == 1 and "seed 0: finished" in answer.stderr
    assert "seed 1: failed: the file of a perturbation has changed since this run began" in answer.stderr


def test_the_source_is_in_the_keys_of_ones_own_methods_alone(suite_file, tmp_path):
    made = plan.make_plan(suite.load(str(suite_file)), Compute(), tmp_path)
    assert [cell.id.method for cell in made.cells if "source" in cell.fingerprints] == ["tests.fakes:Prompted"]


def test_results_of_other_settings_or_data_are_replaced_only_if_asked_for(finished, tmp_path, run_suite):
    file, whole = finished
    run = shutil.copytree(whole, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    flags = ("--suite", file, "--output-dir", run)
    one = ("--set", "tests.fakes:Prompted.seconds=0.001")
    for given, cells in ((("--limit", 20), 3), (one, 1), ((*one, "--dry-run"), 1)):
        answer = run_suite(*flags, *given)
        assert answer.returncode == 2
        assert f"{run}: {count(cells, 'finished cell')} with other settings" in answer.stderr
        assert "--output-dir" in answer.stderr and "--fresh" in answer.stderr
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    answer = run_suite(*flags, "--method", "tests.fakes:Deaf", "--seeds", 0, 1, "--dry-run")
    assert answer.returncode == 0 and answer.stdout.count(": finished") == 3
    answer = run_suite(*flags, "--limit", 20, "--fresh")
    assert answer.returncode == 0 and "and kept" not in answer.stderr
    assert run_suite(*flags, "--limit", 20, "--dry-run").stdout.count(": finished") == 3


def test_kept_cells_of_other_code_are_counted_and_fitted_again_if_asked_for(finished, tmp_path, run_suite):
    suite, whole = finished
    run = shutil.copytree(whole, tmp_path / "run")
    file = run / "cells" / "tiny" / "popularity" / "seed-0" / "record.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"code": "another"}))
    flags = ("--suite", suite, "--output-dir", run)
    assert "3 finished earlier and kept, 1 of them made by other code" in run_suite(*flags).stderr
    assert run_suite(*flags, "--fresh", "--dry-run").stdout.count(": to run") == 3
    assert "and kept" not in run_suite(*flags, "--fresh").stderr
    assert json.loads(file.read_text())["code"] != "another"


def test_fresh_run_that_is_stopped_loses_nothing_and_goes_on_without_the_flag(finished, tmp_path, run_suite):
    suite, whole = finished
    run = shutil.copytree(whole, tmp_path / "run")
    command = ("--suite", suite, "--output-dir", run, "--jobs", 1)
    hold = tmp_path / "hold"
    hold.touch()
    other = (*command, "--set", f"tests.fakes:Prompted.hold={hold}")
    found = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    process = start(*other, "--fresh")
    try:
        wait_for(hold.read_text)  # the third method fits, and the others are in the tables
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        signal.signal(signal.SIGINT, found)
    hold.unlink()
    assert process.returncode == 130
    assert errors.rstrip().endswith("stopped; the same command without --fresh goes on from here")
    assert "0 of 1 seeds" in (run / "leaderboard.md").read_text()
    assert not (run / "significance.md").exists() and not list((run / "figures").iterdir())
    assert run_suite(*command, "--dry-run").stdout.count(": finished") == 3
    assert run_suite(*other, "--dry-run").stdout.splitlines()[-1] == "tests.fakes:Prompted on tiny, seed 0: to run"
    answer = run_suite(*other)
    assert answer.returncode == 0 and "2 finished earlier and kept" in answer.stderr
    assert run_suite(*other, "--dry-run").stdout.count(": finished") == 3


def test_fresh_fit_that_fails_leaves_what_was_there(suite_file, tmp_path, run_suite):
    flags = ("--suite", suite_file, "--methods", "tests.fakes:Tunable", "--output-dir", tmp_path / "r")
    assert run_suite(*flags).returncode == 0
    assert run_suite(*flags, "--fresh", "--set", "tests.fakes:Tunable.flaw='nan'").returncode == 1
    assert run_suite(*flags, "--dry-run").stdout.count(": finished") == 1


def test_cells_that_a_command_leaves_out_of_the_tables_are_counted_and_come_back_when_named(
    finished, tmp_path, run_suite
):
    suite, whole = finished
    run = shutil.copytree(whole, tmp_path / "run")
    rows = (run / "leaderboard.csv").read_text()
    answer = run_suite("--suite", suite, "--methods", "popularity", "--output-dir", run)
    said = "2 finished cells of other commands are in no table of this one, the first random on tiny, seed 0: "
    assert said in answer.stderr
    assert [row["method"] for row in csv.DictReader((run / "leaderboard.csv").open())] == ["popularity"]
    answer = run_suite("--suite", suite, "--output-dir", run)
    assert "3 finished earlier and kept" in answer.stderr and "in no table" not in answer.stderr
    assert (run / "leaderboard.csv").read_text() == rows


@pytest.mark.parametrize("moment", ["before-the-first-cell", "between-cells", "while-scoring"])
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(finished, tmp_path, moment):
    suite, whole = finished
    run = tmp_path / "run"
    flags = ("--suite", suite, "--output-dir", run, "--jobs", 2, "--set", "tests.fakes:Prompted.seconds=0.0")
    file = {
        "before-the-first-cell": "manifest.json",
        "between-cells": "cells/tiny/random/seed-0/record.json",
        "while-scoring": "cells/tiny/tests*/.partial-*",
    }[moment]
    process = start(*flags)
    wait_for(lambda: list(run.glob(file)))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL  # it had not ended
    again = start(*flags)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert not list(run.rglob(".partial-*"))
    for name in TABLES:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_second_run_into_the_same_folder_is_refused(suite_file, tmp_path, run_suite):
    flags = ("--suite", suite_file, "--output-dir", tmp_path / "run")
    hold = tmp_path / "hold"
    hold.touch()
    first = start(*flags, "--set", f"tests.fakes:Prompted.hold={hold}")
    try:
        wait_for((tmp_path / "run" / "manifest.json").exists)
        second = run_suite(*flags)
    finally:
        first.kill()
        first.communicate()
    assert second.returncode == 2
    assert "another run is writing here" in second.stderr
