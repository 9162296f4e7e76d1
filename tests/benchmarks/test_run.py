"""The command line end to end, on a small data set and methods made for the purpose."""

import collections
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

import benchmarks
from benchmarks import plan, suite
from benchmarks.conditions import FAMILIES
from benchmarks.report import figures, stability
from benchmarks.report.comparisons import comparisons
from benchmarks.report.conditions import by_condition, by_family, severity_curve
from benchmarks.report.leaderboard import cold_items, failed_audits, leaderboard
from benchmarks.report.ledger import ledger
from benchmarks.report.readme import shortened
from benchmarks.report.results import load
from benchmarks.report.write import clear, write_all
from benchmarks.run import main
from benchmarks.store import CellId, RunFolder
from methods.base import Compute, count
from tests.conftest import ROOT

TABLES = (
    "leaderboard.md",
    "leaderboard.csv",
    "leaderboard.tex",
    "leaderboard.json",
    "significance.csv",
    "families.csv",
    "cold-items.md",
    "cold-items.csv",
    "cold-items.tex",
)


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.run", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run of the tiny suite: suite file and run folder."""
    from tests.conftest import SUITE, write_atomic

    base = tmp_path_factory.mktemp("finished")
    suite = base / "tiny.toml"
    suite.write_text(SUITE.format(folder=write_atomic(base / "tiny", users=60, items=60, length=12)))
    run = start("--suite", suite, "--output-dir", base / "run", "--jobs", 2)
    output, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    assert "popularity" in output
    return suite, base / "run"


def test_help_lists_the_flags_users_of_such_tools_expect(run_suite):
    text = run_suite("--help").stdout
    flags = "suite methods datasets backbone device dtype seed seeds batch-size limit output-dir jobs executor"
    assert all(f"--{flag}" in text for flag in flags.split())


def test_help_imports_no_heavy_package(run_suite):
    code = "import sys; from benchmarks.run import parser; parser(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout.split()
    assert not {"torch", "transformers", "pandas", "scipy", "pydantic", "matplotlib"} & set(modules)


@pytest.mark.parametrize("what", ["methods", "datasets", "suites", "conditions", "templates"])
def test_list_names_what_there_is(run_suite, what):
    answer = run_suite("list", what)
    assert answer.returncode == 0
    assert len(answer.stdout.splitlines()) >= 2
    assert all(line.startswith("  ") for line in answer.stdout.splitlines())  # one thing a line


def test_list_names_all_families_of_conditions(run_suite):
    listed = run_suite("list", "conditions").stdout
    assert all(f"  {family}" in listed for family in FAMILIES)
    assert "unseen/recommend-unseen-01" in listed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--suite", "robustnes"], "did you mean 'robustness'?"),
        (["--suit", "smoke"], "did you mean --suite?"),
        (["--methods", "popularty"], "did you mean popularity"),
        (["--methods", "no.such:Method"], "No module named 'no'"),
        (["--datasets", "ml-10k"], "did you mean 'ml-100k'?"),
        (["--methods", "random", "--set", "random.speed=3"], "has no setting 'speed'"),
        (["--methods", "sasrec", "--set", "bpr.nosuch=2"], "method 'bpr' has no setting 'nosuch'"),
        (
            ["--methods", "random", "--set", "bpr.epochs=2", "--tune"],
            "--set bpr: not in this run, whose methods are random",
        ),
        (["--seed", "1", "--seeds", "2", "3"], "not allowed with argument --seed"),
        (["--methods", "random", "--tuned", "typo"], "--tuned typo: no such folder"),
        (["--llm", "foo"], "llm 'foo': give recorded, recorded:FILE, endpoint:MODEL or local:MODEL"),
        (["--llm-budget", "nonsense"], "no budget 'nonsense'"),
        (["--set", "random"], "expected METHOD.SETTING=VALUE"),
        (["--tune", "--trials", "0"], "--trials: 0 is not a whole number of at least 1"),
        (["--trials", "99"], "--trials 99 is for --tune"),
        (["--batch-size", "0"], "--batch-size: 0 is not a whole number of at least 1 or auto"),
        (["--negatives", "abc"], "--negatives: abc is not a whole number of at least 1 or full"),
        (["--tune", "--methods", "random"], "none of these methods has settings to search"),
        (["--tune", "--tuned", "none"], "nowhere to write"),
        (["--device", "gpu"], "no device 'gpu': give auto, cpu, cuda"),
        (["--device", "cuda:x"], "no device 'cuda:x': give auto, cpu, cuda"),
        (["--executor", "serial", "--jobs", "2"], "--jobs 2 needs --executor processes"),
        (["--revision", "main"], "--revision main: of which --backbone?"),
        (["--revision", "main", "--backbone", "tiny-t5"], "--revision main: tiny-t5 has none, only models of"),
        (["--seeds", "0", "1", "0"], "error: --seeds: 0 is there twice"),
        (["--datasets", "ml-100k", "ml-100k"], "'ml-100k' is there twice"),
        (["run", "smoke"], "unknown argument 'smoke': did you mean --suite smoke?"),
        (["report", "results/smoke"], "unknown argument 'results/smoke': did you mean --output-dir results/smoke?"),
        (["report", "--methods", "random", "--dry-run"], "report takes no --methods, --dry-run"),
        (["list", "--methods", "bpr", "datasets"], "list takes no --methods"),
        (["list", "metods"], "there are methods"),
        (["report", "--output-dir", "nowhere-at-all"], "no run here"),
        (["--backbone", "./nowhere"], "--backbone ./nowhere: no such folder"),
        (["--output-dir", ""], "--output-dir: the name of a folder is needed"),
    ],
)
def test_bad_input_is_answered_with_a_sentence_and_neighbours(run_suite, tmp_path, arguments, sentence):
    if "--output-dir" not in arguments and arguments[0] != "list":
        arguments = [*arguments, "--output-dir", tmp_path / "run"]
    answer = run_suite(*arguments)
    assert answer.returncode == 2
    assert sentence in answer.stderr
    assert "Traceback" not in answer.stderr


def test_run_folder_holds_manifest_records_scores_log_tables_and_figures(finished):
    _, run = finished
    cell = run / "cells" / "tiny" / "popularity" / "seed-0"
    names = {str(path.relative_to(run)) for path in run.rglob("*")}
    assert {*TABLES, "manifest.json", "run.log", "index.html", "significance.md", "ledger.md"} <= names
    assert sum(name.endswith(".png") for name in names) == 3
    assert (cell / "records.csv").read_text().startswith("condition,user,template,candidates,rank,ties,auc,hit@1")
    manifest = json.loads((run / "manifest.json").read_text())
    assert {"packages", "commit", "dirty", "python", "machine"} <= manifest["provenance"].keys()
    assert manifest["datasets"]["tiny"]["judged_users"] == 60


def test_leaderboard_is_sorted_by_the_mean_over_unseen_templates(finished):
    rows = json.loads((finished[1] / "leaderboard.json").read_text())["tiny"]
    values = [row["unseen"] for row in rows]
    assert values == sorted(values, reverse=True)
    assert all(row["clean_low"] <= row["clean"] <= row["clean_high"] for row in rows)
    assert all(row["worst"] <= row["unseen"] for row in rows)


def test_intervals_of_one_fit_do_not_claim_to_be_over_fits(finished):
    for name in ("leaderboard.md", "significance.md"):
        text = (finished[1] / name).read_text()
        assert "over users and templates, not over fits" in text and "over users, templates and seeds" not in text


def test_prompted_method_is_reached_by_wording_and_the_others_are_not(finished):
    rows = {row["method"]: row for row in json.loads((finished[1] / "leaderboard.json").read_text())["tiny"]}
    assert rows["popularity"]["drop"] == 0 and rows["popularity"]["rbo"] == 1
    assert rows["tests.fakes:Prompted"]["rbo"] < 0.9
    (results,) = load(RunFolder(finished[1]))
    reached = {(row["method"], row["family"]): row["reached"] for row in by_family(results).rows}
    assert [reached["random", family] for family in results.families] == [0, 0, 0]
    assert reached["tests.fakes:Prompted", "unseen"] == 1
    weak, strong = (
        row["reached"]
        for row in by_condition(results).rows
        if row["method"] == "tests.fakes:Prompted" and row["family"] == "typos"
    )
    assert 0 < weak < strong <= 1  # a few short prompts have no word to touch


def test_a_prompt_that_no_unseen_template_reaches_is_not_called_robust(suite_file, tmp_path, run_suite):
    methods = ("random", "tests.fakes:Deaf", "tests.fakes:Faint")
    run_suite("--suite", suite_file, "--methods", *methods, "--output-dir", tmp_path / "r")
    (results,) = load(RunFolder(tmp_path / "r"))
    board = leaderboard(results)
    faint = next(row for row in board.rows if row["method"] == "tests.fakes:Faint")
    assert faint["drop"] == 0 and faint["rbo"] > 0.99  # robust it is
    deaf, other = (next(r for r in board.rows if r["method"] == m) for m in ("tests.fakes:Deaf", "random"))
    assert deaf["unseen"] == deaf["clean"] > 0 and not {"worst", "drop", "rbo", "cps"} & deaf.keys()
    assert other["drop"] == 0 and other["rbo"] == 1
    text = shortened(board.rows, board.caption)
    assert "| not reached by unseen templates |" in text and "unseen templates do not reach it" in text
    for table in (by_family(results), by_condition(results)):
        rows = [row for row in table.rows if row["method"] == "tests.fakes:Deaf"]
        assert {row["family"] for row in rows if "drop" not in row} == {"unseen", "typos", "history-drop"}
    assert {row["quantity"] for row in comparisons(results).rows} == {"clean"}


def test_prompts_that_were_shortened_are_counted_in_the_note_and_the_ledger_is_kept(suite_file, tmp_path, run_suite):
    run_suite("--suite", suite_file, "--methods", "random", "tests.fakes:Narrow", "--output-dir", tmp_path / "r")
    (results,) = load(RunFolder(tmp_path / "r"))
    notes = {row["method"]: row["note"] for row in leaderboard(results).rows}
    shortened = 60 * len(results.conditions)  # what the audits score again is not counted
    assert notes == {"random": "", "tests.fakes:Narrow": f"fitted; {shortened} prompts shortened to the model's window"}
    (record,) = (tmp_path / "r" / "cells").glob("*/*Narrow*/seed-0/record.json")
    assert json.loads(record.read_text())["ledger"] == {"prompts": shortened}


def test_without_unseen_templates_clean_quality_is_what_counts(suite_file, tmp_path, run_suite):
    text = Path(suite_file).read_text().replace("unseen = true", "")
    assert text != Path(suite_file).read_text()
    (tmp_path / "clean.toml").write_text(text)
    answer = run_suite("--suite", tmp_path / "clean.toml", "--output-dir", tmp_path / "r")
    assert answer.returncode == 0, answer.stderr
    (results,) = load(RunFolder(tmp_path / "r"))
    board = leaderboard(results)
    values = [row["clean"] for row in board.rows]
    assert values == sorted(values, reverse=True) and "Sorted by clean quality" in board.caption
    assert not any({"unseen", "worst", "drop"} & row.keys() or row["first"] for row in board.rows)


def test_grades_may_stand_in_any_order(finished, tmp_path):
    run = shutil.copytree(finished[1], tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_text())
    weak, strong = (c for c in manifest["conditions"] if c["family"] == "typos")
    weak["severity"], strong["severity"] = strong["severity"], weak["severity"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    (results,) = load(RunFolder(run))
    severity, places = severity_curve(results, np.arange(len(results.conditions), dtype=float), "typos")
    assert severity.tolist() == [0.0, 0.1, 0.3] and places[1] == places[2] + 1
    assert len(by_family(results).rows) == 3 * 3


def test_legend_of_severity_curves_covers_no_panel_however_few_there_are(finished):
    (results,) = load(RunFolder(finished[1]))
    typos = tuple(c if c["family"] == "typos" else {**c, "severity": None} for c in results.conditions)
    for conditions, panels in ((results.conditions, 2), (typos, 1)):
        figure = figures._severity(replace(results, conditions=conditions))
        figure.canvas.draw()
        (legend,) = figure.legends
        assert len(figure.axes) == panels
        assert all(legend.get_window_extent().x0 > panel.get_window_extent().x1 for panel in figure.axes)


def test_rows_of_different_versions_of_the_code_are_marked(finished, tmp_path):
    run = shutil.copytree(finished[1], tmp_path / "run")
    file = run / "cells" / "tiny" / "popularity" / "seed-0" / "record.json"
    record = json.loads(file.read_text())
    assert record["code"].keys() == {"version", "commit", "dirty"}
    assert "MIXED" not in (run / "leaderboard.md").read_text()
    record["code"]["commit"] = "another"
    file.write_text(json.dumps(record))
    (results,) = load(RunFolder(run))
    assert "MIXED: the rows were made by different versions of the code" in leaderboard(results).caption


def test_every_table_says_that_its_numbers_are_not_to_be_relied_on(finished, tmp_path):
    run = shutil.copytree(finished[1], tmp_path / "run")
    record = run / "cells" / "tiny" / "popularity" / "seed-0" / "record.json"
    record.write_text(record.read_text().replace('"dirty":', '"dirty": "?", "was":').replace("true", "false"))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["suite"]["limit"] = 5
    (run / "manifest.json").write_text(json.dumps(manifest))
    write_all(RunFolder(run))
    tables = sorted(run.glob("*.md"))
    assert len(tables) == 6
    for text in [path.read_text() for path in tables]:
        assert " MIXED: " in text and " NOT REPORTABLE: " in text and " AUDIT FAILED: popularity: " in text
    assert (run / "index.html").read_text().count("NOT REPORTABLE") == 6


def test_lists_that_no_condition_changes_are_compared_once(finished, tmp_path, monkeypatch):
    (results,) = load(RunFolder(shutil.copytree(finished[1], tmp_path / "run")))
    measure, compared = stability.STABILITY["rbo"], []
    monkeypatch.setitem(stability.STABILITY, "rbo", lambda a, b: compared.append(a) or measure(a, b))
    for method, expected in (("popularity", 1), ("tests.fakes:Prompted", len(results.unseen))):
        found = stability.list_stability(results, method, results.unseen)
        assert (found["rbo"] == pytest.approx(1.0)) == (method == "popularity")
        assert len(compared) == expected
        compared.clear()


def test_page_finds_the_figures_of_a_data_set_of_any_name(suite_file, tmp_path, run_suite):
    odd = tmp_path / 'toys #1 100%25 "new" ?'
    odd.mkdir()
    for ending in ("inter", "item"):
        shutil.copy(tmp_path / "tiny" / f"tiny.{ending}", odd / f"{odd.name}.{ending}")
    flags = ("--datasets", odd, "--methods", "popularity", "--output-dir", tmp_path / "r")
    assert run_suite("--suite", suite_file, *flags).returncode == 0
    pictures = re.findall('<img src="([^"]*)" alt="[^"]*">', (tmp_path / "r" / "index.html").read_text())
    found = {tmp_path / "r" / unquote(urlsplit(picture).path) for picture in pictures}
    assert found == set((tmp_path / "r" / "figures").iterdir()) != set()


def test_tables_and_figures_of_a_run_are_removed_and_what_others_made_stays(finished, tmp_path):
    run = shutil.copytree(finished[1], tmp_path / "run")
    made = {path.relative_to(run) for path in run.rglob("*") if path.is_file()}
    picture = Path("cells", "tiny", "random", "seed-0", "seen.png")
    own = [Path("notes.md"), Path("figures", "tiny-mine.png"), Path("figures", "other.png"), Path("tuned", "tiny.toml")]
    for path in (picture, Path("figures", "tiny-random-seen.png"), *own):
        (run / path).parent.mkdir(exist_ok=True)
        (run / path).write_text("")
    clear(RunFolder(run))
    stays = {path for path in made if path.parts[0] in ("cells", "manifest.json", "run.log", ".lock")}
    assert {path.relative_to(run) for path in run.rglob("*") if path.is_file()} == stays | {picture, *own}
    (run / "manifest.json").unlink()
    clear(RunFolder(run))
    assert all((run / path).exists() for path in own)


def test_data_of_the_same_name_are_refused(suite_file, tmp_path, run_suite):
    from tests.conftest import write_atomic

    folders = [write_atomic(tmp_path / name / "tiny", users=60, items=60, length=12) for name in "ab"]
    answer = run_suite("--suite", suite_file, "--datasets", *folders, "--output-dir", tmp_path / "r")
    assert answer.returncode == 2 and "are both called 'tiny': rename the files of one" in answer.stderr


def test_every_pair_is_compared_but_where_the_outcome_is_known_beforehand(finished):
    with (finished[1] / "significance.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["quantity"] for row in rows] == ["clean"] * 3 + ["unseen"] * 2 + ["drop"]
    assert all("tests.fakes:Prompted" in (row["a"], row["b"]) for row in rows[3:])
    assert (rows[-1]["a"], rows[-1]["b"]) == ("tests.fakes:Prompted", "no drop")  # once, not for every still method


def test_one_comparison_is_counted_as_one(finished, tmp_path):
    run = shutil.copytree(finished[1], tmp_path / "run")
    shutil.rmtree(next((run / "cells").glob("*/*Prompted*")))
    (results,) = load(RunFolder(run))
    assert "over the 1 comparison of this table" in comparisons(results).caption


def test_a_suite_can_name_the_method_that_others_are_compared_with(finished, tmp_path):
    run = shutil.copytree(finished[1], tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["suite"]["statistics"]["against"] = "popularity"
    (run / "manifest.json").write_text(json.dumps(manifest))
    (results,) = load(RunFolder(run))
    table = comparisons(results)
    assert [(row["quantity"], row["a"], row["b"]) for row in table.rows] == [
        ("clean", "random", "popularity"),
        ("clean", "tests.fakes:Prompted", "popularity"),
        ("unseen", "tests.fakes:Prompted", "popularity"),
        ("drop", "tests.fakes:Prompted", "no drop"),
    ]
    assert "over the 4 comparisons" in table.caption
    manifest["suite"]["statistics"]["against"] = "bpr"
    stranger = comparisons(replace(results, manifest=manifest))
    assert len(stranger.rows) == 6 and "bpr, with which the suite compares, is not in this run" in stranger.caption
    shutil.rmtree(run / "cells" / "tiny" / "popularity")
    (results,) = load(RunFolder(run))
    table = comparisons(results)
    assert not table.rows and "compares with popularity, which has no row" in table.caption


def test_methods_are_ranked_across_data_sets(finished, suite_file, tmp_path, run_suite):
    from tests.conftest import write_atomic

    other = write_atomic(tmp_path / "tin", users=40, items=60, length=12)
    for file in list(other.iterdir()):
        file.rename(file.with_stem("tin"))
    both = (Path(suite_file).parent / "tiny", other)
    answer = run_suite("--suite", suite_file, "--datasets", *both, "--output-dir", tmp_path / "r")
    assert answer.returncode == 0, answer.stderr
    with (tmp_path / "r" / "ranks.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = [{row["method"]: row["unseen"] for row in leaderboard(r).rows} for r in load(RunFolder(tmp_path / "r"))]
    for row in rows:
        places = [sorted(board.values(), reverse=True).index(board[row["method"]]) + 1 for board in found]
        assert float(row["unseen"]) == np.mean(places)
    page = (tmp_path / "r" / "index.html").read_text()
    assert "across data sets" in page and page.count("critical-difference.png") == 2
    assert page.count('src="figures/tin-drop.png"') == page.count('src="figures/tiny-drop.png"') == 1
    assert not (finished[1] / "ranks.csv").exists()
    assert run_suite("--suite", suite_file, "--output-dir", tmp_path / "r").returncode == 0  # one data set of the two
    assert not [*tmp_path.rglob("ranks.*"), *tmp_path.rglob("critical-difference.png")]


def test_ledger_counts_training_that_was_done_before(finished, tmp_path):
    run = shutil.copytree(finished[1], tmp_path / "run")
    file = run / "cells" / "tiny" / "popularity" / "seed-0" / "record.json"
    record = json.loads(file.read_text())
    record["fit"]["reused"] = 100.0
    file.write_text(json.dumps(record))
    (results,) = load(RunFolder(run))
    rows = {row["method"]: row for row in ledger(results).rows}
    assert rows["popularity"]["fit_seconds"] >= 100 > rows["random"]["fit_seconds"]


def test_cold_items_are_judged_by_the_users_who_meet_them(finished):
    file, run = finished
    problem = plan.make_plan(suite.load(str(file), {}), Compute(), run).problems["tiny"]
    trained = collections.Counter(problem.split.train.items.tolist())
    meet = zip(problem.test.users.tolist(), problem.test.targets.tolist(), strict=True)
    users = {problem.dataset.catalogue.user_ids[user] for user, target in meet if trained[target] < 10}
    assert 0 < len(users) < 60
    cold = {row["method"]: row for row in csv.DictReader((run / "cold-items.csv").open())}
    assert len(cold) == 3
    records = csv.DictReader((run / "cells" / "tiny" / "random" / "seed-0" / "records.csv").open())
    clean = [float(row["ndcg@10"]) for row in records if row["condition"] == "clean" and row["user"] in users]
    row = cold["random"]
    assert int(row["users"]) == len(clean) == len(users)
    assert float(row["clean"]) == float(row["unseen"]) == pytest.approx(sum(clean) / len(clean), rel=1e-4)
    assert float(row["clean_low"]) < float(row["clean"]) < float(row["clean_high"])
    assert "cold-items" in (run / "index.html").read_text()


def test_cold_items_of_an_older_run_are_not_recorded(finished, tmp_path):
    run = shutil.copytree(finished[1], tmp_path / "run")
    for file in run.rglob("records.csv"):
        file.write_text("".join(line.rpartition(",")[0] + "\n" for line in file.read_text().splitlines()))
        record = json.loads(file.with_name("record.json").read_text())
        assert record.pop("records_bytes") > file.stat().st_size
        file.with_name("record.json").write_text(json.dumps(record))
    (results,) = load(RunFolder(run))
    assert "not recorded" in cold_items(results).markdown()
    assert len(leaderboard(results).rows) == 3


def test_data_without_tuned_settings_are_named_unless_none_were_asked_for(suite_file, tmp_path, run_suite):
    flags = ("--suite", suite_file, "--methods", "random", "--output-dir", tmp_path / "r")
    assert "tiny: no tuned settings for these data and methods" in run_suite(*flags).stderr
    assert "no tuned settings" not in run_suite(*flags, "--tuned", "none").stderr


def test_running_again_recomputes_nothing(finished, run_suite):
    suite, run = finished
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


OWN = "from tests.fakes import Prompted\n\n\nclass Mine(Prompted):\n    pass\n"


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
    before = (run / "manifest.json").read_bytes()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background, it is ignored
    process = start(*other, "--fresh")
    cells = [run / "cells" / "tiny" / method / "seed-0" for method in ("random", "popularity")]
    while (run / "manifest.json").read_bytes() == before or not all(
        (cell / "record.json").exists() and not (cell / ".outdated").exists() for cell in cells
    ):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
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


def test_report_finds_the_run_of_a_suite_file_by_the_name_in_it(finished, tmp_path, run_suite):
    file, run = finished
    (tmp_path / "other-name.toml").write_text(file.read_text())
    place = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    shutil.copytree(run, tmp_path / "results" / "tiny")
    assert run_suite("report", "--suite", "other-name.toml", **place).returncode == 0
    assert run_suite("--suite", "other-name.toml", "--dry-run", **place).stdout.count(": finished") == 3


def test_reader_that_has_seen_enough_ends_the_list_quietly():
    process = start("list")
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait()


def test_interrupt_while_importing_ends_the_command_quietly(monkeypatch, capsys):
    class Interrupt:
        def find_spec(self, *_: object) -> None:
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "benchmarks.commands", raising=False)
    monkeypatch.delattr(benchmarks, "commands", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupt()])
    assert main(["list"]) == 130
    assert capsys.readouterr().err.startswith("stopped")


def test_report_leaves_the_tables_of_a_folder_without_its_cells(finished, tmp_path, run_suite):
    run = shutil.copytree(finished[1], tmp_path / "run")
    shutil.rmtree(run / "cells")
    before = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}
    answer = run_suite("report", "--output-dir", run)
    assert answer.returncode == 2 and "no method of this run is finished here" in answer.stderr
    assert before == {path: path.read_bytes() for path in before}


def test_report_rebuilds_the_tables_without_a_model(finished, run_suite):
    _, run = finished
    tables = {name: (run / name).read_bytes() for name in TABLES}
    for name in TABLES:
        (run / name).unlink()
    assert run_suite("report", "--output-dir", run).returncode == 0
    assert tables == {name: (run / name).read_bytes() for name in TABLES}


@pytest.mark.parametrize("moment", ["before-the-first-cell", "between-cells", "while-scoring"])
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(finished, tmp_path, moment):
    suite, whole = finished
    run = tmp_path / "run"
    flags = ("--suite", suite, "--output-dir", run, "--jobs", 2, "--set", "tests.fakes:Prompted.seconds=0.0")
    reached = {
        "before-the-first-cell": run / "manifest.json",
        "between-cells": run / "cells" / "tiny" / "random" / "seed-0" / "record.json",
        "while-scoring": run / "cells" / "tiny" / "tests.fakes_Prompted-5e",
    }[moment]
    process = start(*flags)
    if moment == "while-scoring":
        while not list(run.glob("cells/tiny/tests*/.partial-*")) and process.poll() is None:
            time.sleep(0.01)
    else:
        wait_for(reached)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    again = start(*flags)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert not list(run.rglob(".partial-*"))
    for name in TABLES:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_second_run_into_the_same_folder_is_refused(suite_file, tmp_path, run_suite):
    flags = ("--suite", suite_file, "--output-dir", tmp_path / "run")
    first = start(*flags, "--set", "tests.fakes:Prompted.seconds=20.0")
    wait_for(tmp_path / "run" / "manifest.json")
    second = run_suite(*flags)
    first.kill()
    first.communicate()
    assert second.returncode == 2
    assert "another run is writing here" in second.stderr


def test_method_that_cannot_run_has_a_row_with_its_reason(suite_file, tmp_path, run_suite):
    answer = run_suite(
        "--suite", suite_file, "--methods", "random", "tests.fakes:Missing", "--output-dir", tmp_path / "r"
    )
    assert answer.returncode == 0
    assert "not run: no endpoint; set OPENAI_BASE_URL" in (tmp_path / "r" / "leaderboard.md").read_text()


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("Broken", "failed: RuntimeError: the loss is not a number"),
        ("Undefined", "not finite"),
        ("Unreported", "fit returns a FitReport, not 3"),
        ("Uncounted", "failed: TypeError: interactions in a FitReport is a whole number, not None"),
        ("Suicidal", "exit code -9"),
        ("Refused", "failed: RuntimeError: refused: nobody answers |"),
    ],
)
def test_method_that_fails_costs_its_own_row_only(suite_file, tmp_path, run_suite, method, reason):
    answer = run_suite(
        "--suite",
        suite_file,
        "--methods",
        "random",
        f"tests.fakes:{method}",
        "--output-dir",
        tmp_path / "r",
        "--jobs",
        2,
    )
    table = (tmp_path / "r" / "leaderboard.md").read_text()
    assert answer.returncode == 1
    assert reason in table
    assert "| random |" in table


def test_method_that_ends_the_program_costs_its_own_row_only_and_the_log_is_named(suite_file, tmp_path, run_suite):
    methods = ("--methods", "tests.fakes:Leaver", "random")
    answer = run_suite("--suite", suite_file, *methods, "--output-dir", tmp_path / "r", "--jobs", 1)
    assert answer.returncode == 1 and "random on tiny, seed 0: finished" in answer.stderr
    assert f"failed: SystemExit: 3 (see {tmp_path / 'r' / 'run.log'})" in answer.stderr
    assert "raise SystemExit(3)" in (tmp_path / "r" / "run.log").read_text()


@pytest.mark.parametrize(
    "cheat, audit",
    [
        ("Cheater", "wording changes nothing for a method without prompt"),
        ("Leaking", "demonstrations show training items only"),
        ("Forgetful", "batching changes no order"),
    ],
)
def test_failed_audit_fails_the_run_and_marks_the_table(suite_file, tmp_path, run_suite, cheat, audit):
    answer = run_suite(
        "--suite", suite_file, "--methods", "random", f"tests.fakes:{cheat}", "--output-dir", tmp_path / "r"
    )
    assert answer.returncode == 3
    assert f"AUDIT FAILED: tests.fakes:{cheat}: {audit}" in answer.stderr
    assert "AUDIT FAILED" in (tmp_path / "r" / "leaderboard.md").read_text()


def test_failed_audit_of_a_method_that_lacks_a_seed_is_reported_all_the_same(finished, tmp_path):
    run = shutil.copytree(finished[1], tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["cells"] += [{**cell, "seed": 1} for cell in manifest["cells"]]
    (run / "manifest.json").write_text(json.dumps(manifest))
    file = run / "cells" / "tiny" / "random" / "seed-0" / "record.json"
    record = json.loads(file.read_text())
    record["audits"][0]["passed"] = False
    file.write_text(json.dumps(record))
    (results,) = load(RunFolder(run))
    assert not results.methods and "1 of 2 seeds" in results.missing["random"]
    assert [sentence.partition(":")[0] for sentence in failed_audits(results)] == ["random"]


def test_limited_run_is_marked_as_not_reportable(suite_file, tmp_path, run_suite):
    run_suite("--suite", suite_file, "--methods", "random", "--limit", 5, "--output-dir", tmp_path / "r")
    table = (tmp_path / "r" / "leaderboard.md").read_text()
    assert "NOT REPORTABLE" in table
    assert "5 users (a random sample of 60" in table


def test_serial_run_has_all_cores_for_its_one_process(suite_file, tmp_path, run_suite):
    run_suite("--suite", suite_file, "--methods", "random", "--executor", "serial", "--output-dir", tmp_path / "r")
    compute = json.loads((tmp_path / "r" / "manifest.json").read_text())["compute"]
    assert (compute["jobs"], compute["threads"]) == (1, plan.choose_jobs(1, compute["device"])[1])


def test_full_ranking_and_temporal_split_run(suite_file, tmp_path, run_suite):
    flags = ("--split", "temporal", "--negatives", "full")
    answer = run_suite("--suite", suite_file, *flags, "--output-dir", tmp_path / "r")
    assert answer.returncode == 0, answer.stderr
    assert "full candidates" in (tmp_path / "r" / "leaderboard.md").read_text()
    scores = np.load(tmp_path / "r" / "cells" / "tiny" / "popularity" / "seed-0" / "scores" / "000.npy")
    assert np.isneginf(scores).any(axis=1).all()  # what a user has chosen is in no list, whatever its score
    for row in csv.DictReader((tmp_path / "r" / "leaderboard.csv").open()):
        assert np.isfinite([float(row[key]) for key in ("rbo", "jaccard", "kendall")]).all()


def test_several_seeds_are_averaged_and_each_speaks_for_itself(suite_file, tmp_path, run_suite):
    flags = ("--methods", "tests.fakes:Seeded", "random", "--seeds", 3, 4, "--output-dir", tmp_path / "r")
    answer = run_suite("--suite", suite_file, *flags)
    assert answer.returncode == 0, answer.stderr
    (results,) = load(RunFolder(tmp_path / "r"))
    board = leaderboard(results)
    row = next(row for row in board.rows if row["method"] == "tests.fakes:Seeded")
    assert (row["epochs"], row["converged"], row["note"]) == (
        35,
        False,
        "seed 3: fitted with seed 3; seed 4: fitted with seed 4",
    )
    each = results.values("ndcg@10")[results.methods.index(row["method"]), 0].mean(axis=0)
    assert row["clean"] == pytest.approx(each.mean()) and each[0] != each[1]
    assert "2 seeds" in board.caption and "over users, templates and seeds" in board.caption
    unseen = results.values("ndcg@10")[results.methods.index(row["method"]), results.unseen].mean(axis=(0, 1))
    assert row["seed_deviation"] == pytest.approx(unseen.std(ddof=1)) and row["seed_deviation"] > 0
    budget = next(row for row in ledger(results).rows if row["method"] == "tests.fakes:Seeded")
    assert (budget["epochs"], budget["ended"]) == (35, "at its limit")


def test_unwritable_folder_is_a_clear_error(suite_file, tmp_path, run_suite):
    (tmp_path / "file").write_text("")
    answer = run_suite("--suite", suite_file, "--output-dir", tmp_path / "file" / "run")
    assert answer.returncode == 2
    assert "cannot write" in answer.stderr
