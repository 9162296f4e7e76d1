"""The project as a user gets it: README, wheel, reference run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.protocol import Protocol, prepare
from benchmarks.report.conditions import by_family
from benchmarks.report.readme import filled
from benchmarks.report.results import load
from benchmarks.store import RunFolder
from data.prompts.library import templates
from methods.base import Compute
from tests.conftest import ROOT, write_atomic

README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = ROOT / "results" / "reference"


def test_continuous_integration_runs_the_test_command_of_the_readme():
    commands = re.findall(r"^ {4}(python3 -m venv .*pytest -n auto)$", README, flags=re.MULTILINE)
    assert len(commands) == 1
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert commands[0].replace(".[test]", ".[dev]").replace("install ", "install -q ") in script


def test_leaderboard_and_ordering_in_the_readme_are_those_of_the_reference_run():
    assert filled(README, REFERENCE / "unseen") == README


@pytest.mark.parametrize("manifest", sorted(REFERENCE.glob("*/manifest.json")), ids=lambda path: path.parent.name)
def test_reference_run_is_complete_and_its_audits_passed(manifest):
    content = json.loads(manifest.read_text(encoding="utf-8"))
    assert content["provenance"]["commit"] and not content["provenance"]["dirty"]
    assert content["suite"]["limit"] is None
    assert all(audit["passed"] for audit in content["audits"])
    assert "AUDIT FAILED" not in (manifest.parent / "leaderboard.md").read_text(encoding="utf-8")
    boards = json.loads((manifest.parent / "leaderboard.json").read_text(encoding="utf-8"))
    placed = {(dataset, row["method"]): row for dataset, rows in boards.items() for row in rows}
    assert placed.keys() == {(cell["dataset"], cell["method"]) for cell in content["cells"]}
    assert not [outcome for outcome in content["outcomes"].values() if outcome["status"] == "failed"]
    assert all(row["note"] for row in placed.values() if row.get("clean") is None)


def shown(language, file="CONTRIBUTING.md"):
    """Blocks of code in a document."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / file).read_text(encoding="utf-8"), re.DOTALL)


def test_method_that_contributors_are_shown_runs_as_pasted_with_the_setting_it_names(tmp_path, suite_file, run_suite):
    code, *_ = shown("python")
    (name, setting) = re.search(r"--set (.*?)\.(\w+)=2$", code, re.MULTILINE).groups()
    file = tmp_path / f"{name.partition(':')[0].replace('.', '/')}.py"
    file.parent.mkdir()
    file.write_text(code, encoding="utf-8")
    flags = ("--suite", suite_file, "--methods", name, "--set", f"{name}.{setting}=2", "--output-dir", tmp_path / "r")
    answer = run_suite(*flags, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert answer.returncode == 0, answer.stderr
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "r").rglob("record.json"))
    assert record["settings"] == {setting: 2}


def test_method_with_a_language_model_that_contributors_are_shown_scores_as_pasted():
    pytest.importorskip("recbole")
    pasted = {}
    exec(shown("python")[1], pasted)
    task = prepare("ml-100k", Protocol(users=3), {"recommend": templates("recommend")}).task(Compute())
    method = pasted["YesOrNo"]()
    assert method.fit(task, 0).note.startswith("tiny-llama") and method.score(task.valid.select(np.arange(2))).std() > 0


def test_perturbation_that_contributors_are_shown_runs_as_pasted(suite_file, tmp_path, monkeypatch, run_suite):
    (tmp_path / "shouting.py").write_text(shown("python")[2])
    monkeypatch.syspath_prepend(tmp_path)
    (line,) = re.findall(r'"my_package\.mine:(Shouting" = [^`]*)`', (ROOT / "CONTRIBUTING.md").read_text())
    suite_file.write_text(suite_file.read_text().replace("typos = [0.1, 0.3]", f'"shouting:{line}'))
    answer = run_suite("--suite", suite_file, "--output-dir", tmp_path / "r", "--jobs", 2)
    assert answer.returncode == 0, answer.stderr
    (results,) = load(RunFolder(tmp_path / "r"))
    assert [c["name"] for c in results.conditions if c["family"] == "shouting"] == ["shouting@0.1", "shouting@0.5"]
    rows = {row["method"]: row for row in by_family(results).rows if row["family"] == "shouting"}
    assert rows["tests.fakes:Prompted"]["reached"] > 0.5 and rows["random"]["reached"] == 0


def test_data_set_that_contributors_are_shown_loads_as_pasted(tmp_path, monkeypatch):
    *_, code = shown("python")
    for file in write_atomic(tmp_path / "books", users=20, items=20).iterdir():
        file.rename(file.with_stem("books"))
    monkeypatch.chdir(tmp_path)
    pasted = {}
    exec(code, pasted)
    catalogue = pasted["load"](min_count=2).catalogue
    assert (catalogue.name, catalogue.domain.item, catalogue.n_users) == ("books", "book", 20)


def test_scoring_that_the_language_model_layer_shows_runs_as_pasted(tmp_path, monkeypatch):
    pytest.importorskip("recbole")
    (code,) = shown("python", "methods/lm/README.md")
    monkeypatch.chdir(tmp_path)
    pasted = {}
    exec(code, pasted)
    shape = re.search(r"odds = .*# shape \[(\d+), (\d+)\]", code).groups()
    assert pasted["odds"].shape == tuple(map(int, shape)) and pasted["odds"].std() > 0


def test_template_that_contributors_are_shown_loads_as_pasted(tmp_path):
    (table,) = shown("toml")
    (tmp_path / "mine.toml").write_text(table, encoding="utf-8")
    assert "mine-01" in [template.id for template in templates("recommend", [tmp_path / "mine.toml"])]


def test_imports_go_one_way():
    order = {"data": 0, "methods": 1, "benchmarks": 2}
    for package, rank in order.items():
        for path in (ROOT / package).rglob("*.py"):
            imported = re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            against = [name for name in imported if order.get(name, -1) > rank]
            assert not against, f"{path} imports {against}"


def test_smoke_suite_runs_from_an_installed_wheel(tmp_path: Path):
    pytest.importorskip("recbole")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    source = tmp_path / "source"  # in a checkout, setuptools packs what an earlier build has left there
    for package in ("benchmarks", "methods", "data"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path / "wheels", source], check=True)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel], check=True)

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)

    imported = python("-c", "import benchmarks, methods, data; print(benchmarks, methods, data)").stdout
    assert imported.count(str(tmp_path / "site")) == 3
    assert (
        python(str(tmp_path / "site" / "bin" / "promptrec-bench"), "list").stdout
        == python("-m", "benchmarks.run", "list").stdout
    )
    run = python("-m", "benchmarks.run", "--suite", "smoke")
    assert run.returncode == 0, run.stderr
    rows = json.loads((tmp_path / "results" / "smoke" / "leaderboard.json").read_text())["ml-100k"]
    found = {row["method"]: row for row in rows}
    assert {"random", "popularity", "bpr", "sasrec", "tallrec"} == found.keys()
    assert all(row["unseen"] is not None for row in rows), rows
    assert found["bpr"]["clean_auc"] > found["random"]["clean_auc"]
    assert (tmp_path / "results" / "smoke" / "figures" / "ml-100k-drop.png").exists()
