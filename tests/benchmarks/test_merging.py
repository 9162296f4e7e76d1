"""Parts of a run, put together, are the run."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.errors import UsageError
from benchmarks.merging import merge
from benchmarks.store import RunFolder
from tests.benchmarks.conftest import TABLES
from tests.conftest import SUITE, call, write_atomic

METHODS = ("random", "popularity", "tests.fakes:Prompted", "tests.fakes:Seeded", "tests.fakes:Missing")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A suite, its whole run, and its three parts."""
    base = tmp_path_factory.mktemp("parts")
    file = base / "tiny.toml"
    file.write_text(SUITE.format(folder=write_atomic(base / "tiny", users=60, items=60, length=12)))
    common = ["--suite", file, "--methods", *METHODS, "--executor", "serial", "--seeds", 1, 2]
    made = [call(*common, "--output-dir", base / "whole")]
    made += [call(*common, "--part", f"{part}/3", "--output-dir", base / f"part-{part}") for part in (1, 2, 3)]
    for run in made:
        assert run.returncode == 0, run.stderr
    return base, common


def finished(folder: Path) -> set[str]:
    return {str(path.parent.relative_to(folder)) for path in folder.glob("cells/*/*/*/record.json")}


def test_parts_share_the_cells_evenly(runs):
    base, _ = runs
    parts = [finished(base / f"part-{part}") for part in (1, 2, 3)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(finished(base / "whole")) == 8
    assert {len(part) for part in parts} <= {2, 3}
    board = (base / "part-1" / "leaderboard.md").read_text()
    assert "not finished yet (1 of 2 seeds)" in board or "not finished yet (0 of 2 seeds)" in board


def test_merged_parts_are_the_whole_run(runs, tmp_path, run_suite):
    base, common = runs
    first, *others = (base / f"part-{part}" for part in (1, 2, 3))
    answer = run_suite("merge", first, "--output-dir", tmp_path / "all", *others)
    assert answer.returncode == 0, answer.stderr
    assert finished(tmp_path / "all") == finished(base / "whole")
    for name in TABLES:
        assert (tmp_path / "all" / name).read_bytes() == (base / "whole" / name).read_bytes()
    assert "no endpoint; set OPENAI_BASE_URL" in answer.stdout
    planned = run_suite(*common, "--output-dir", tmp_path / "all", "--dry-run").stdout.splitlines()
    assert sum(line.endswith(": finished") for line in planned) == 8


def test_without_a_folder_parts_are_merged_into_that_of_their_suite(runs, tmp_path, run_suite, monkeypatch):
    base, _ = runs
    monkeypatch.chdir(tmp_path)
    answer = run_suite("merge", base / "part-1")
    assert answer.returncode == 0 and "cells finished in no part, the first " in answer.stderr
    assert finished(tmp_path / "results" / "tiny") == finished(base / "part-1")


def test_what_no_part_has_finished_is_left_for_later(runs, tmp_path):
    base, _ = runs
    into = RunFolder(tmp_path / "all")
    merge([RunFolder(base / "part-1")], into)
    assert finished(into.path) == finished(base / "part-1")
    shutil.copytree(base / "part-2", tmp_path / "part-2")
    damaged = next((tmp_path / "part-2").glob("cells/*/*/*/records.csv"))
    damaged.write_text("")
    (said,) = merge([RunFolder(tmp_path / "part-2"), RunFolder(base / "part-3")], into)
    assert said.startswith("1 of 10 cells finished in no part, the first ") and said.endswith(
        f"runs them in {into.path}"
    )
    assert finished(base / "whole") - finished(into.path) == {str(damaged.parent.relative_to(tmp_path / "part-2"))}
    kept = next(into.path.glob("cells/*/random/seed-1/record.json")).stat().st_ino
    merge([RunFolder(base / f"part-{part}") for part in (1, 2, 3)], into)
    assert finished(into.path) == finished(base / "whole")
    assert next(into.path.glob("cells/*/random/seed-1/record.json")).stat().st_ino == kept


def test_the_latest_fit_of_a_cell_is_taken(runs, tmp_path):
    base, _ = runs
    into, part = RunFolder(tmp_path / "all"), tmp_path / "part-1"
    shutil.copytree(base / "part-1", part)
    merge([RunFolder(part)], into)
    path = next(part.glob("cells/*/*/*/record.json"))
    record = json.loads(path.read_text()) | {"code": "after a correction"}
    path.write_text(json.dumps(record))
    for parts in ([part], [base / "part-1"]):  # that of before does not come back
        merge([RunFolder(each) for each in parts], into)
        assert json.loads((into.path / path.relative_to(part)).read_text())["code"] == "after a correction"


def test_what_failed_in_one_part_and_not_in_another_has_not_failed(runs, tmp_path):
    base, _ = runs
    for part in (1, 2, 3):
        shutil.copytree(base / f"part-{part}", tmp_path / f"part-{part}")
    path = tmp_path / "part-1" / "manifest.json"
    manifest = json.loads(path.read_text())
    reason = {"status": "failed", "reason": "no memory"}
    manifest["outcomes"] |= {"random on tiny, seed 1": reason, "tests.fakes:Missing on tiny, seed 1": reason}
    path.write_text(json.dumps(manifest))
    merge([RunFolder(tmp_path / f"part-{part}") for part in (1, 2, 3)], RunFolder(tmp_path / "all"))
    outcomes = RunFolder(tmp_path / "all").read_manifest()["outcomes"]
    assert set(outcomes) == {"tests.fakes:Missing on tiny, seed 1", "tests.fakes:Missing on tiny, seed 2"}


def test_part_of_another_run_is_refused(runs, tmp_path, run_suite):
    base, common = runs
    assert run_suite(*common[:-1], "--output-dir", tmp_path / "other").returncode == 0
    with pytest.raises(UsageError, match=f"{tmp_path / 'other'} is of another run than {base / 'part-1'}"):
        merge([RunFolder(base / "part-1"), RunFolder(tmp_path / "other")], RunFolder(tmp_path / "all"))
    with pytest.raises(UsageError, match="is of another run"):
        merge([RunFolder(base / "part-1")], RunFolder(tmp_path / "other"))
    shutil.copytree(base / "part-2", tmp_path / "part-2")
    manifest = json.loads((tmp_path / "part-2" / "manifest.json").read_text())
    manifest["suite"]["statistics"]["level"] = 0.8
    (tmp_path / "part-2" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="is of another run"):
        merge([RunFolder(base / "part-1"), RunFolder(tmp_path / "part-2")], RunFolder(tmp_path / "all"))
    assert not (tmp_path / "all").exists()


def test_parts_made_with_other_packages_are_named(runs, tmp_path):
    base, _ = runs
    shutil.copytree(base / "part-2", tmp_path / "part-2")
    path = tmp_path / "part-2" / "manifest.json"
    manifest = json.loads(path.read_text())
    torch = manifest["provenance"]["packages"]["torch"]
    manifest["provenance"]["packages"]["torch"] = "1.0"
    path.write_text(json.dumps(manifest))
    said, _ = merge([RunFolder(base / "part-1"), RunFolder(tmp_path / "part-2")], RunFolder(tmp_path / "all"))
    assert said == f"{tmp_path / 'part-2'}: torch 1.0 (not {torch})"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--part", "3"], "--part: 3 is not K/N with K from 1 to N, such as 1/8"),
        (["--part", "9/8"], "--part: 9/8 is not K/N"),
        (["--part", "0/8"], "--part: 0 is not a whole number of at least 1"),
        (["--part", "1/2", "--tune"], "--part is not for --tune: give every machine its own --methods"),
        (["merge"], "merge needs the folders of the parts"),
        (["merge", "nowhere", "--methods", "random"], "merge takes no --methods"),
        (["merge", "nowhere", "--output-dir", "{folder}"], "nowhere: no run here"),
        (["report", "--part", "1/2"], "report takes no --part"),
    ],
)
def test_unusable_parts_are_refused(run_suite, tmp_path, arguments, sentence):
    answer = run_suite(*(argument.format(folder=tmp_path / "run") for argument in arguments))
    assert answer.returncode == 2
    assert sentence in answer.stderr
