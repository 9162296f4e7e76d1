"""The run folder under failure."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.store import SCHEMA, CellId, RunFolder, StoreError, to_json, write_atomically

CELL = CellId("data", "method", 0)


def finish(run: RunFolder, key: str = "k", text: str = "new") -> None:
    with run.writing(CELL) as folder:
        (folder / "scores.txt").write_text(text)
        (folder / "records.csv").write_text("condition\nclean\nclean\n")
        (folder / "scores").mkdir()
        (folder / "scores" / "000.npy").write_text("scores")
        sizes = {"records_bytes": (folder / "records.csv").stat().st_size, "scores_bytes": {"000.npy": 6}}
        (folder / "record.json").write_text(json.dumps({"key": key, "schema": SCHEMA, **sizes}))


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.opened():
        yield folder


def test_finished_cell_is_found_by_its_key_alone(run):
    finish(run, key="k")
    assert run.record(CELL, "k") is not None
    assert run.record(CELL, "other") is None
    assert run.record(CellId("data", "method", 1), "k") is None


def test_cell_that_fails_half_way_leaves_nothing_and_harms_nothing(run):
    finish(run, text="old")
    with pytest.raises(ZeroDivisionError), run.writing(CELL) as folder:
        (folder / "scores.txt").write_text("half")
        _ = 1 / 0
    assert (run.cell(CELL) / "scores.txt").read_text() == "old"
    assert not list(run.path.rglob(".partial-*"))


def test_full_disk_is_a_clear_error_and_earlier_results_stay(run):
    finish(run, text="old")
    with pytest.raises(StoreError, match="No space left on device; earlier results are intact"), run.writing(CELL):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (run.cell(CELL) / "scores.txt").read_text() == "old"


def test_finished_cell_replaces_an_older_one_of_another_key(run):
    finish(run, key="a", text="old")
    finish(run, key="b", text="new")
    assert run.record(CELL, "a") is None
    assert (run.cell(CELL) / "scores.txt").read_text() == "new"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("record.json", ""),
        ("record.json", "{}"),
        ("records.csv", ""),
        ("records.csv", "condition\n"),
        ("records.csv", "condition\nclean\n"),
        ("records.csv", None),
        ("scores/000.npy", "scor"),
    ],
)
def test_cell_with_a_damaged_file_is_not_finished_and_the_file_is_named_once(run, caplog, name, content):
    finish(run)
    file = run.cell(CELL) / name
    file.unlink() if content is None else file.write_text(content)
    assert run.record(CELL, "k") is run.record(CELL, "k") is None
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [str(file)]
    finish(run)
    assert run.record(CELL, "k") is not None


def test_cell_without_its_scores_or_their_sizes_is_finished(run):
    finish(run)
    record = run.record(CELL, "k")
    (run.cell(CELL) / "record.json").write_text(json.dumps({k: record[k] for k in ("key", "schema")}))
    (run.cell(CELL) / "scores" / "000.npy").write_text("scor")
    assert run.record(CELL, "k") is not None
    finish(run)
    (run.cell(CELL) / "scores" / "000.npy").unlink()
    assert run.record(CELL, "k") is not None


def test_cell_that_is_to_be_fitted_again_stays_until_it_is(run):
    finish(run, key="a", text="old")
    run.outdate(CELL, "a")
    assert run.record(CELL, "a") is None and run.stored(CELL) and run.outdated(CELL, "a")
    run.outdate(CELL, "b")  # one of other settings is to replace it: it still counts as what it is
    assert run.record(CELL, "a") is not None and run.outdated(CELL, "b")
    finish(run, key="b")
    assert run.record(CELL, "b") is not None and not run.outdated(CELL, "b")


def test_there_is_nothing_to_fit_again_where_nothing_is(run):
    run.outdate(CELL, "a")
    assert not run.cell(CELL).exists() and not run.outdated(CELL, "a")


def test_leftovers_of_a_killed_run_are_cleared_away(tmp_path):
    run = RunFolder(tmp_path / "run")
    leftover = run.cell(CELL).parent / ".partial-seed-0"
    leftover.mkdir(parents=True)
    (leftover / "record.json").write_text("{}")
    (run.path / ".partial-leaderboard.md").write_text("half")
    for place in ("figures", "tuned", "tuning/data/method"):
        (run.path / place).mkdir(parents=True)
        (run.path / place / ".partial-file").write_text("half")
    with run.opened():
        assert not list(run.path.rglob(".partial-*"))
        assert run.record(CELL, "k") is None


def test_what_was_moved_aside_for_a_new_cell_comes_back_if_that_cannot_take_its_place(run, monkeypatch):
    finish(run, text="old")
    rename = Path.rename

    def failing(self, target):
        if self.name == ".partial-seed-0":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(StoreError, match="Input/output error; earlier results are intact"):
        finish(run, text="new")
    assert (run.cell(CELL) / "scores.txt").read_text() == "old"
    assert not list(run.path.rglob(".partial-*"))


def test_what_a_killed_run_had_moved_aside_comes_back(tmp_path):
    run = RunFolder(tmp_path / "run")
    finish(run, text="old")
    run.cell(CELL).rename(run.cell(CELL).with_name(".partial-old-seed-0"))
    with run.opened():
        assert (run.cell(CELL) / "scores.txt").read_text() == "old"
        assert not list(run.path.rglob(".partial-*"))


def test_what_a_run_in_a_subfolder_is_writing_is_left_alone(run):
    other = RunFolder(run.path / "robustness")
    with other.opened(), other.writing(CELL) as folder:
        with RunFolder(run.path.parent).opened():
            pass
        assert folder.exists()


def test_two_writers_of_one_folder_are_refused(run):
    with pytest.raises(StoreError, match="another run is writing here"), RunFolder(run.path).opened():
        pass


def test_folder_without_a_run_and_of_another_schema_are_refused(run):
    with pytest.raises(StoreError, match="no run here"):
        run.read_manifest()
    run.write("manifest.json", to_json({"schema": 999}))
    with pytest.raises(StoreError, match="schema 999"):
        run.read_manifest()


def test_manifest_that_cannot_be_read_is_a_clear_error(run):
    (run.path / "manifest.json").mkdir()
    with pytest.raises(StoreError, match=r"manifest\.json: cannot be read: Is a directory"):
        run.read_manifest()


@pytest.mark.parametrize("content", ["", "{}", "[]"])
def test_damaged_manifest_is_a_clear_error(run, content):
    run.write("manifest.json", content)
    with pytest.raises(StoreError, match=r"manifest\.json: damaged; the command that made the run"):
        run.read_manifest()


def test_names_of_any_characters_become_one_folder_each():
    names = ["llmrec/all", "llmrec_all", "my.module:Class", "..", "a b", "data-1"]
    folders = {CellId(name, "m", 0).folder for name in names}
    assert len(folders) == len(names)
    assert all(len(folder.parts) == 3 and ".." not in folder.parts for folder in folders)


def test_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "deep" / "file.md"
    write_atomically(path, "one")
    write_atomically(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["file.md"]


def test_json_has_sorted_keys_and_null_for_what_is_not_a_number():
    assert json.loads(to_json({"b": float("nan"), "a": (1, 2)})) == {"a": [1, 2], "b": None}
    numbers = {"n": np.int64(3), "yes": np.bool_(True), "f": np.float32(0.5), "none": np.float32("nan")}
    assert json.loads(to_json(numbers)) == {"n": 3, "yes": True, "f": 0.5, "none": None}
    assert to_json({"b": 1, "a": 2}).index('"a"') < to_json({"b": 1, "a": 2}).index('"b"')
