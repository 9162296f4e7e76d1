"""Fits that are kept are those of a fit made now, and are used where nothing they depend on has changed."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import kept_fits, suite
from benchmarks.cells import Cell
from benchmarks.kept_fits import Fit, FitError
from benchmarks.plan import make_plan, with_llm
from methods.base import Compute, FitReport
from methods.registry import create
from tests.fakes import Closed, Prompted
from tests.methods.lm.servers import FaultServer, completion
from tests.methods.test_devices import GPU, QUICK, TUNED, make_worded_task

RECBOLE = ("bpr", "lightgcn", "caser", "din", "hgn", "gru4rec", "bert4rec", "sasrec", "s3rec")
ROWS = {
    **QUICK,
    **{row: {"epochs": 1} for row in (*RECBOLE, "llmrec/title")},
    "random": {},
    "popularity": {},
    "collm": {**TUNED, "max_prompts": 16, "map_epochs": 1},
    "ctrl": {"epochs": 1, "align_epochs": 1},
}
NOTED = "tests.fakes:Noted"


def scores_of_kept(path, task):
    return kept_fits.load(path, task).method.score(task.valid)


@pytest.fixture(scope="module")
def elsewhere():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture
def task(tmp_path):
    return make_worded_task(tmp_path)


@pytest.mark.parametrize(
    ("row", "device"),
    [*((row, "cpu") for row in ROWS), *(pytest.param(row, "cuda", marks=GPU) for row in QUICK)],
)
def test_another_process_scores_with_a_kept_fit_as_the_method_itself(tmp_path, elsewhere, row, device):
    task, path = make_worded_task(tmp_path, device=device), tmp_path / "kept" / "fit.pickle"
    method = create(row, ROWS[row])
    kept_fits.save(path, Fit(method, method.fit(task, seed=0), 1.5, {"host": 3.0}), task)
    scores = method.score(task.valid)
    assert np.isfinite(scores).all() and scores.std() > 0
    assert np.array_equal(elsewhere.submit(scores_of_kept, path, task).result(), scores)


def test_a_kept_fit_has_the_task_and_the_cache_of_its_reader(tmp_path, task):
    method = SimpleNamespace(task=task, train=task.train, file=task.compute.cache / "texts" / "a.sqlite")
    report = FitReport(epochs=2, note="as fitted")
    kept_fits.save(tmp_path / "fit.pickle", Fit(method, report, 1.5, {"host": 3.0}), task)
    moved = replace(task, compute=replace(task.compute, cache=tmp_path / "moved", threads=7))
    found = kept_fits.load(tmp_path / "fit.pickle", moved)
    assert found.method.task is moved and found.method.train is moved.train
    assert found.method.file == tmp_path / "moved" / "texts" / "a.sqlite"
    assert (found.report, found.seconds, found.memory) == (report, 1.5, {"host": 3.0})
    assert (tmp_path / "fit.pickle").stat().st_size < 2000


def test_what_cannot_be_kept_says_why_and_leaves_nothing(tmp_path, task):
    with pytest.raises(FitError, match=r"its fit cannot be kept: TypeError: .*lock"):
        kept_fits.save(tmp_path / "fits" / "fit.pickle", Fit(Closed(), FitReport(), 0.0, {}), task)
    (tmp_path / "file").write_text("")
    with pytest.raises(FitError, match="its fit cannot be kept: FileExistsError"):
        kept_fits.save(tmp_path / "file" / "fit.pickle", Fit(Prompted(), FitReport(), 0.0, {}), task)
    assert not [path for path in (tmp_path / "fits").iterdir() if path.suffix != ".lock"]


def test_fit_that_asked_an_endpoint_is_kept_without_connection_key_and_encoder(tmp_path, task, monkeypatch):
    with FaultServer() as server:
        server.answer = lambda prompt: completion(f"Said of {prompt[-30:]}")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
        method = create("llmrec/basic-paraphrase", {"llm": "endpoint:m", "epochs": 1})
        kept_fits.save(tmp_path / "fit.pickle", Fit(method, method.fit(task, seed=0), 0.0, {}), task)
    assert server.prompts and b"secret-key" not in (tmp_path / "fit.pickle").read_bytes()
    assert (tmp_path / "fit.pickle").stat().st_size < 2_000_000
    assert np.array_equal(scores_of_kept(tmp_path / "fit.pickle", task), method.score(task.valid))


@pytest.mark.parametrize("content", [b"", b"no pickle", b"cnowhere\nNothing\n.", b"]."])
def test_damaged_fit_is_none(tmp_path, task, caplog, content):
    (tmp_path / "fit.pickle").write_bytes(content)
    assert kept_fits.load(tmp_path / "fit.pickle", task) is None
    assert "cannot be read, fitted again" in caplog.text
    assert kept_fits.load(tmp_path / "none.pickle", task) is None


@pytest.fixture
def cell(suite_file, tmp_path):
    """The only cell of the tiny suite with changes, and with another place to compute."""

    def make(changes=None, llm_run=None, llm=None, **compute) -> Cell:
        chosen = {"methods": ["sasrec"], **(changes or {})}
        loaded = suite.load(str(suite_file), chosen)
        loaded = with_llm(loaded, llm, None, llm_run) if llm_run else loaded
        (made,) = make_plan(loaded, Compute(**{"cache": tmp_path / "cache", **compute}), tmp_path / "run").cells
        return made

    return make


def test_what_a_fit_does_not_depend_on_leads_to_the_same_file(cell):
    first = cell().fit_file
    assert cell({"conditions": {"typos": [0.2]}}).fit_file == first
    assert cell(threads=3).fit_file == first
    assert cell({"protocol": {"users": 9, "valid_users": 10_000}}).fit_file == first
    assert cell({"statistics": {"draws": 299}}).fit_file == first


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": [1]},
        {"methods": ["gru4rec"]},
        {"settings": {"sasrec": {"epochs": 2}}},
        {"protocol": {"seed": 1}},
        {"protocol": {"history_length": 3}},
        {"protocol": {"split": "temporal"}},
        {"protocol": {"valid_users": 10}},
        {"protocol": {"negatives": 7}},
    ],
    ids=json.dumps,
)
def test_what_a_fit_depends_on_leads_to_another_file(cell, changes):
    assert cell(changes).fit_file != cell().fit_file


def test_device_and_surroundings_lead_to_another_file(cell, monkeypatch, tmp_path):
    first = cell().fit_file
    assert cell(dtype="bfloat16").fit_file != first
    assert cell(device="cuda:1").fit_file != cell(device="cuda").fit_file  # where it lies; its results are the same
    assert cell(device="cuda:1").key == cell(device="cuda").key != cell().key
    monkeypatch.setattr(kept_fits, "packages", lambda: {"torch": "9.9"})
    kept_fits.surroundings.cache_clear()
    assert cell().fit_file != first
    monkeypatch.undo()
    (tmp_path / "protocol.py").write_text("VALID = 2")
    monkeypatch.setattr(kept_fits.protocol, "__file__", str(tmp_path / "protocol.py"))
    kept_fits.surroundings.cache_clear()
    assert cell().fit_file != first
    monkeypatch.undo()
    kept_fits.surroundings.cache_clear()
    assert cell().fit_file == first


def test_seen_templates_lead_to_another_file_and_unseen_ones_do_not(cell):
    made = cell({"methods": ["tallrec"]})
    seen, unseen = made.problem.seen("recommend"), made.problem.unseen("recommend")
    for templates, same in ((seen, True), ((*seen[1:], *unseen), False)):
        changed = replace(made, problem=replace(made.problem, templates={"recommend": templates}))
        assert (changed.fit_file == made.fit_file) == same


@pytest.mark.parametrize("where", ["backbone", "encoder", "llm"])
def test_other_files_in_a_folder_that_is_named_lead_to_another_file(cell, tmp_path, where):
    folder = tmp_path / "model"
    (folder / "adapter").mkdir(parents=True)
    settings = {"encoder": {"encoder": str(folder)}, "llm": {"llm": f"local:{folder}"}}.get(where, {})
    changes = {"methods": ["llmrec/title"], "settings": {"llmrec/title": settings}}
    compute = {"backbone": str(folder)} if where == "backbone" else {}
    first = cell(changes, **compute).fit_file
    assert cell(changes, **compute).fit_file == first
    (folder / "adapter" / "weights").write_text("trained again")
    assert cell(changes, **compute).fit_file != first


@pytest.mark.parametrize("where", ["backbone", "encoder", "llm"])
def test_results_of_another_model_in_the_same_folder_are_others(cell, tmp_path, where):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "weights").write_text("first")
    settings = {"encoder": {"encoder": str(folder)}, "llm": {"llm": f"local:{folder}"}}.get(where, {})
    method = "tallrec" if where == "backbone" else "llmrec/title"
    changes, compute = {"methods": [method], "settings": {method: settings}}, {}
    if where == "backbone":
        compute = {"backbone": str(folder)}
        assert "models" not in cell(**compute).fingerprints  # of a row without a language model
    first = cell(changes, **compute).key
    (folder / "weights").touch()
    (folder / ".cache").mkdir()
    (folder / ".cache" / "weights.metadata").write_text("fetched on Monday")
    assert cell(changes, **compute).key == first
    (folder / "weights").write_text("again")
    assert cell(changes, **compute).key != first


def test_who_pays_for_answers_matters_where_somebody_is_asked(cell):
    rank = {"methods": ["llm-rank"]}
    assert cell(rank, "run A").fit_file == cell(rank, "run B").fit_file
    assert cell(rank, "run A", "endpoint:m").fit_file != cell(rank, "run B", "endpoint:m").fit_file


def test_what_is_written_into_the_run_folder_leads_to_the_same_file(cell, tmp_path):
    (tmp_path / "run").mkdir()
    made = cell({"methods": ["llm-rank"]}, str(tmp_path / "run"), "endpoint:m")
    first = made.fit_file
    (tmp_path / "run" / "run.log").write_text("scored\n")
    assert made.fit_file == first


@pytest.fixture
def run_noted(run_suite, suite_file, tmp_path):
    """Run the tiny suite with the method that notes its fits."""

    def run(output, *arguments, method=NOTED):
        settings = [f"--set={NOTED}.log={tmp_path / 'log'}", f"--set={NOTED}.stop={tmp_path / 'stop'}"]
        where = ["--output-dir", tmp_path / output, "--cache-dir", tmp_path / "cache"]
        chosen = ["--methods", method, "--suite", suite_file, "--executor", "serial", *where]
        return run_suite(*chosen, *(settings if method == NOTED else ()), *arguments)

    return run


def test_other_conditions_and_users_are_scored_without_another_fit(run_noted, suite_file, tmp_path):
    assert run_noted("first", "--keep-fits").returncode == 0
    suite_file.write_text(suite_file.read_text().replace("typos = [0.1, 0.3]", "register = true"))
    assert f"{NOTED} on tiny, seed 0: to run" in run_noted("other", "--users", 20, "--dry-run").stdout
    assert "to score, its fit is kept" in run_noted("other", "--users", 20, "--dry-run", "--keep-fits").stdout
    answer = run_noted("other", "--users", 20, "--keep-fits")
    assert answer.returncode == 0 and "finished: with a kept fit" in answer.stderr
    answer = run_noted("other", "--users", 10, "--keep-fits")
    assert answer.returncode == 2 and answer.stderr.rstrip().endswith("needs another --output-dir")
    assert (tmp_path / "log").read_text() == "fit\n"
    assert run_noted("anew", "--users", 20).returncode == 0
    assert (tmp_path / "log").read_text() == "fit\nfit\n"
    for name in ("leaderboard.md", "leaderboard.json", "conditions.csv", "significance.csv"):
        assert (tmp_path / "other" / name).read_bytes() == (tmp_path / "anew" / name).read_bytes()


def test_a_fit_is_kept_before_it_is_scored(run_noted, tmp_path):
    (tmp_path / "stop").touch()
    assert "the current has failed" in run_noted("run", "--keep-fits").stderr
    (tmp_path / "stop").unlink()
    assert run_noted("run", "--keep-fits").returncode == 0
    assert (tmp_path / "log").read_text() == "fit\n"


def test_a_fit_that_cannot_be_kept_is_scored_and_said(run_noted, tmp_path):
    answer = run_noted("run", "--keep-fits", method="tests.fakes:Closed")
    assert answer.returncode == 0
    assert "seed 0: finished: its fit cannot be kept: TypeError" in answer.stderr
    assert (tmp_path / "run" / "leaderboard.md").exists()


@pytest.mark.parametrize("other", ["--fresh", "--tune"])
def test_what_fits_anew_takes_no_kept_fit(run_noted, tmp_path, other):
    answer = run_noted("run", "--keep-fits", other)
    assert answer.returncode == 2
    assert f"--keep-fits is not for {other}, which fits anew" in answer.stderr
    assert str(tmp_path / "cache" / "fits") in answer.stderr


@pytest.mark.slow  # every method of the robustness suite, small: some minutes
def test_tables_of_kept_fits_are_those_of_fits_made_now(run_suite, tmp_path):
    rows = suite.load("robustness").methods
    short = [f"--set={row}.epochs=1" for row in (*RECBOLE, "ctrl", "tallrec", "collm", "p5", "paprec", "ganprompt")]
    short += [f"--set={row}.prompts=640" for row in ("p5", "paprec")]
    short += [f"--set={row}.max_prompts=400" for row in ("tallrec", "collm", "ganprompt")]
    short += ["--set=collm.map_epochs=1", "--set=ganprompt.stage1_steps=5", "--set=llmrec.epochs=2"]
    short += ["--set=lrgd.training_steps=2", "--set=lrgd.valid_users=20", "--users=12"]
    short += ["--suite", "smoke", "--methods", *rows]
    for name in ("first", "second"):
        where = ["--output-dir", tmp_path / name, "--cache-dir", tmp_path / "cache"]
        answer = run_suite(*short, *where, "--keep-fits", timeout=3600)
        assert answer.returncode == 0 and "cannot be kept" not in answer.stderr, answer.stderr
    assert len(list((tmp_path / "cache" / "fits").rglob("*.pickle"))) == len(rows)
    for path in (tmp_path / "first").rglob("*"):
        if path.name in ("records.csv", "leaderboard.md", "significance.csv") or path.suffix == ".npy":
            assert path.read_bytes() == (tmp_path / "second" / path.relative_to(tmp_path / "first")).read_bytes()
