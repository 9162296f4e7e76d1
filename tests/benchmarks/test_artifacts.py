"""What a method found while fitting becomes files beside its results."""

import errno
import os
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from benchmarks.cells import Cell, run_cell
from benchmarks.executors import attempt
from benchmarks.families import expand
from benchmarks.protocol import Protocol, prepare
from benchmarks.report import figures
from benchmarks.store import CellId, RunFolder, StoreError
from data.prompts.library import templates
from methods.base import Compute, FitReport, Task
from tests.conftest import write_atomic
from tests.fakes import Prompted


@dataclass
class Finder(Prompted):
    """Keeps a text and a picture."""

    name: str = "found.md"
    artifacts: dict[str, str | bytes] = field(init=False, default_factory=dict)

    def fit(self, task: Task, seed: int) -> FitReport:
        self.artifacts = {self.name: "a word: \u00e9\n", "seen.png": b"\x89PNG"}
        return FitReport()


@pytest.fixture
def cell(tmp_path):
    folder = write_atomic(tmp_path / "tiny", users=60, items=60, length=12)
    problem = prepare(str(folder), Protocol(negatives=5, users=4), {"recommend": templates("recommend")})
    found = CellId("tiny", "tests.benchmarks.test_artifacts:Finder", 0)
    return Cell(found, {}, problem, expand({}, {}), Compute(cache=tmp_path), tmp_path)


def test_what_a_method_keeps_is_written_beside_its_record(cell, tmp_path):
    assert run_cell(cell, print).status == "finished"
    (written,) = tmp_path.rglob("found.md")
    assert written.read_text(encoding="utf-8") == "a word: \u00e9\n"
    assert (written.parent / "record.json").exists()
    assert (written.parent / "seen.png").read_bytes() == b"\x89PNG"


@pytest.mark.parametrize("name", ["sub/x.txt", "../x.txt", "/x.txt", "..", "", "records.csv", "record.json", "scores"])
def test_what_a_method_keeps_goes_nowhere_else_and_over_nothing(cell, name):
    outcome = attempt(replace(cell, settings={"name": name}), print)
    assert outcome.status == "failed"
    assert outcome.reason.startswith(f"ValueError: artifacts: {name!r} is no plain file name, or there is one")
    assert not list(cell.run.rglob("record.json"))


def test_pictures_of_the_first_seed_are_figures_of_the_run(tmp_path):
    run, folder = RunFolder(tmp_path), tmp_path / "figures"
    folder.mkdir()
    results = SimpleNamespace(dataset="tiny", methods=("a/b", "c"), seeds=(3, 4), folder=run)
    for seed, content in ((3, b"first"), (4, b"second")):
        cell = run.cell(CellId("tiny", "a/b", seed))
        cell.mkdir(parents=True)
        (cell / "seen.png").write_bytes(content)
    (path,) = figures._kept(results, folder)
    assert path.name == "tiny-a-b-seen.png" and path.read_bytes() == b"first"


def test_full_disk_is_a_clear_error_and_leaves_no_half_picture(tmp_path, monkeypatch):
    path = tmp_path / "tiny-drop.png"
    path.write_bytes(b"old")

    def full(*places):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreError, match=r"tiny-drop\.png: cannot write: No space left on device"):
        figures._saved(Figure(), path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_picture_that_cannot_be_copied_is_a_clear_error(tmp_path):
    (tmp_path / "figures").write_text("a file")
    cell = RunFolder(tmp_path).cell(CellId("tiny", "c", 0))
    cell.mkdir(parents=True)
    (cell / "seen.png").write_bytes(b"")
    results = SimpleNamespace(dataset="tiny", methods=("c",), seeds=(0,), folder=RunFolder(tmp_path))
    with pytest.raises(StoreError, match="cannot write: File exists"):
        figures._kept(results, tmp_path / "figures")
