"""Tables, figures and the page of a run, made from its folder alone."""

import collections
import copy
import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from benchmarks import plan, robustness, suite
from benchmarks.report import figures, ranks, stability
from benchmarks.report.comparisons import comparisons
from benchmarks.report.conditions import by_condition, by_family, severity_curve
from benchmarks.report.fits import fits
from benchmarks.report.leaderboard import cold_items, failed_audits, leaderboard, short
from benchmarks.report.ledger import ledger
from benchmarks.report.results import Results, load, scores_of
from benchmarks.report.write import clear, write_all
from benchmarks.significance import Friedman, Interval, nemenyi_critical_difference
from benchmarks.store import RunFolder
from methods.base import Compute
from tests.benchmarks.conftest import TABLES
from tests.conftest import ROOT, write_atomic


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
    assert rows["popularity"]["drop"] == rows["popularity"]["losing"] == 0 and rows["popularity"]["rbo"] == 1
    assert rows["tests.fakes:Prompted"]["rbo"] < 0.9
    (results,) = load(RunFolder(finished[1]))
    means = results.values("ndcg@10")[results.methods.index("tests.fakes:Prompted")].mean(axis=(1, 2))
    assert rows["tests.fakes:Prompted"]["losing"] == pytest.approx(
        np.mean(means[results.unseen] < 0.95 * means[0]), rel=1e-5
    )
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
    assert {row["first"] for row in board.rows} == {None}  # the only one that can change is always first
    text = short(board).markdown()
    assert text.count("unseen templates change none of its scores") == 2  # in the row, and below the table
    for table in (by_family(results), by_condition(results)):
        rows = [row for row in table.rows if row["method"] == "tests.fakes:Deaf"]
        assert {row["family"] for row in rows if "drop" not in row} == {"unseen", "typos", "history-drop"}
        assert not any("severity_area" in row for row in rows)
    assert {row["quantity"] for row in comparisons(results).rows} == {"clean"}


def test_records_and_scores_are_read_as_the_documentation_shows(finished, capsys):
    file, run = finished
    code = re.search(r"```python\n(.*?)```", (ROOT / "benchmarks" / "README.md").read_text(), re.DOTALL)[1]
    code = code.replace("results/robustness", str(run)).replace('"ml-100k" / "sasrec"', '"tiny" / "popularity"')
    pasted = {}
    exec(code.replace("ml-100k", str(file.parent / "tiny")), pasted)
    (results,) = load(RunFolder(run))
    row = next(row for row in leaderboard(results).rows if row["method"] == "popularity")
    assert pasted["means"]["clean"] == pytest.approx(row["clean"], abs=1e-6)
    assert pasted["unseen"].mean() == pytest.approx(row["unseen"], abs=1e-6)
    lists, scores = pasted["lists"], pasted["scores"]
    rank = (scores > np.take_along_axis(scores, lists.positive[:, None], axis=1)).sum(axis=1)
    assert (rank == results.ranks[results.methods.index("popularity"), 0, 0]).all()


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
    assert "intervals over users, not over fits" in board.caption
    assert "intervals over users and seeds" in leaderboard(replace(results, seeds=(0, 0))).caption
    assert {row["unseen"] for row in fits(results).rows} == {None}


def test_wordings_that_methods_know_are_a_family_beside_the_unseen_ones(suite_file, tmp_path, run_suite):
    text = suite_file.read_text().replace("typos = [0.1, 0.3]", 'seen = ["*-seen-0[12]"]')
    (tmp_path / "seen.toml").write_text(text)
    answer = run_suite("--suite", tmp_path / "seen.toml", "--output-dir", tmp_path / "r")
    assert answer.returncode == 0, answer.stderr
    (results,) = load(RunFolder(tmp_path / "r"))
    rows = {row["method"]: row for row in by_family(results).rows if row["family"] == "seen"}
    assert [row["conditions"] for row in rows.values()] == [2, 2, 2]
    assert 0.8 < rows["tests.fakes:Prompted"]["reached"] < 1  # whose own wording it is, it leaves as it was
    assert rows["random"]["reached"] == rows["random"]["drop"] == 0
    assert len(results.unseen) == 12


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
    assert manifest["datasets"]["tiny"]["untitled"] == 0
    manifest["datasets"]["tiny"]["untitled"] = 31
    (run / "manifest.json").write_text(json.dumps(manifest))
    write_all(RunFolder(run), load(RunFolder(run)))
    tables = sorted(run.glob("*.md"))
    assert len(tables) == 7
    for text in [path.read_text() for path in tables]:
        assert " MIXED: " in text and " NOT REPORTABLE: " in text and " AUDIT FAILED: popularity: " in text
        assert " NO TITLES: prompts show the ids of 31 of 60 items." in text
    assert (run / "index.html").read_text().count("NOT REPORTABLE") == 7


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
    odd = tmp_path / 'toys #1 100%25 "new" $x_$ ?'
    odd.mkdir()
    for ending in ("inter", "item"):
        shutil.copy(tmp_path / "tiny" / f"tiny.{ending}", odd / f"{odd.name}.{ending}")
    flags = ("--datasets", odd, "--methods", "popularity", "--output-dir", tmp_path / "r")
    assert run_suite("--suite", suite_file, *flags).returncode == 0
    pictures = re.findall('<img src="([^"]*)" alt="[^"]*">', (tmp_path / "r" / "index.html").read_text())
    found = {tmp_path / "r" / unquote(urlsplit(picture).path) for picture in pictures}
    assert found == set((tmp_path / "r" / "figures").glob("*.png")) != set()
    assert {path.with_suffix(".pdf") for path in found} == set((tmp_path / "r" / "figures").glob("*.pdf"))
    label = re.search(r"\\label{(.*)}", (tmp_path / "r" / "leaderboard.tex").read_text())
    assert label and re.fullmatch(r"tab:[\w.-]+", label[1])


def test_legends_name_every_method(finished):
    assert figures._labels(("a.b:Mine", "sasrec")) == ["Mine", "sasrec"]
    assert figures._labels(("a:Mine", "b:Mine", "own:_Hidden")) == ["a:Mine", "b:Mine", "own:_Hidden"]


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
    shutil.rmtree(next((run / "cells").glob("*/*popularity*")))
    (results,) = load(RunFolder(run))
    assert comparisons(results).caption.endswith(": no two methods to compare.")


def test_significant_is_what_survives_the_correction_and_has_an_interval_without_0(finished, monkeypatch):
    (results,) = load(RunFolder(finished[1]))
    found = {"difference": 0.1, "high": 0.2, "effect_size": 1.0, "wilcoxon_p": 0.0, "t_p": 0.0, "n": 60}
    values = {"clean": {"p": 1e-9, "low": -0.1}, "unseen": {"p": 1e-9, "low": 0.1}, "drop": {"p": 0.9, "low": 0.1}}
    compared = lambda _, quantity, *rest: found | values[quantity]  # noqa: E731
    monkeypatch.setattr("benchmarks.report.comparisons._compared", compared)
    table = comparisons(results)
    assert {row["quantity"] for row in table.rows if row["significant"]} == {"unseen"}
    assert "Holm p below 5% and an interval without 0" in table.caption and "at least 0.0" in table.caption


def test_a_role_with_fewer_unseen_templates_than_conditions_is_named(finished):
    (results,) = load(RunFolder(finished[1]))
    board = {row["method"]: row for row in leaderboard(results).rows}
    assert [board[m]["prompt"] for m in ("random", "tests.fakes:Prompted")] == [False, True]
    assert board["tests.fakes:Prompted"]["note"] == ""
    (record,) = results.records["tests.fakes:Prompted"]
    twice = json.loads(json.dumps(record))
    for n in results.unseen.tolist():
        twice["conditions"][n]["parameters"]["templates"].append(f"own-{n % 2}")
    for roles, note in (
        (["sequential"], "2 unseen templates of its role, in turn, for 12 conditions"),
        (["attribute", "recommend"], ""),
    ):
        records = {**results.records, "tests.fakes:Prompted": (twice | {"info": twice["info"] | {"roles": roles}},)}
        board = {row["method"]: row for row in leaderboard(replace(results, records=records)).rows}
        assert board["tests.fakes:Prompted"]["note"] == note
        assert board["random"]["note"] == ""


def test_one_wording_under_several_conditions_is_no_spread_over_templates(finished):
    (results,) = load(RunFolder(finished[1]))
    ranks = results.ranks.copy()
    ranks[results.methods.index("tests.fakes:Prompted"), :, results.unseen] = np.arange(60)
    board = {row["method"]: row for row in leaderboard(replace(results, ranks=ranks)).rows}
    row = board["tests.fakes:Prompted"]
    assert row["note"] == "one unseen wording in all 12 conditions: intervals are not over templates"
    assert "drop" in row and "rbo" in row and "worst" not in row and row["first"] is None
    assert "worst" in board["random"]


def test_templates_of_two_roles_are_resampled_each_for_itself(finished, monkeypatch):
    (results,) = load(RunFolder(finished[1]))
    asked = []
    monkeypatch.setattr(
        "benchmarks.significance.bootstrap_interval",
        lambda values, groups=(), **_: asked.append(tuple(groups)) or Interval(0.0, 0.0),
    )
    (record,) = results.records["random"]
    for roles in ([], ["recommend"], ["sequential"]):
        records = {**results.records, "random": (record | {"info": record["info"] | {"roles": roles}},)}
        comparisons(replace(results, records=records))
    assert {groups for groups in asked[: len(asked) * 2 // 3]} == {()}
    assert set(asked[len(asked) * 2 // 3 :]) == {(), (1, 1), (12, 12)}


def test_a_language_model_whose_prompt_no_condition_words_is_named(finished):
    (results,) = load(RunFolder(finished[1]))
    (record,) = results.records["random"]
    records = {**results.records, "random": ({**record, "info": {**record["info"], "needs": ["language model"]}},)}
    board = {row["method"]: row["note"] for row in leaderboard(replace(results, records=records)).rows}
    assert "no condition changes it" in board["random"] and board["popularity"] == ""


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
    sure = replace(ranks.ranks(load(RunFolder(tmp_path / "r"))), tests={"clean": Friedman(np.arange(3.0), 9.0, 1e-6)})
    assert "Friedman's p: Clean <0.0001." in ranks.table(sure).caption
    assert sure.critical_difference == nemenyi_critical_difference(len(sure.methods), 2, 0.05)
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
        file.write_text("".join(line.rsplit(",", 2)[0] + "\n" for line in file.read_text().splitlines()))
        record = json.loads(file.with_name("record.json").read_text())
        assert record.pop("records_bytes") > file.stat().st_size
        file.with_name("record.json").write_text(json.dumps(record))
    (results,) = load(RunFolder(run))
    assert "not recorded" in cold_items(results).markdown()
    assert len(leaderboard(results).rows) == 3


def test_report_leaves_the_tables_of_a_folder_without_its_cells(finished, tmp_path, run_suite):
    run = shutil.copytree(finished[1], tmp_path / "run")
    shutil.rmtree(run / "cells")
    before = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}
    answer = run_suite("report", "--output-dir", run)
    assert answer.returncode == 2 and "no method of this run is finished here" in answer.stderr
    assert before == {path: path.read_bytes() for path in before}


def test_report_rebuilds_the_tables_without_a_model(finished, tmp_path, run_suite):
    run = shutil.copytree(finished[1], tmp_path / "run")
    tables = {name: (run / name).read_bytes() for name in TABLES}
    for name in TABLES:
        (run / name).unlink()
    assert run_suite("report", "--output-dir", run).returncode == 0
    assert tables == {name: (run / name).read_bytes() for name in TABLES}


def test_report_of_a_run_that_ended_with_a_failed_seed_is_as_the_run_left_it(suite_file, tmp_path, run_suite):
    flags = ("--methods", "tests.fakes:Moody", "--seeds", 0, 1, "--output-dir", tmp_path / "r")
    ended, again = run_suite("--suite", suite_file, *flags), run_suite("report", "--output-dir", tmp_path / "r")
    assert (ended.returncode, ended.stdout) == (again.returncode, again.stdout)
    assert ended.returncode == 1 and "failed for seed 1: RuntimeError: not today" in ended.stdout


def test_tables_of_a_run_without_a_row_name_no_user(suite_file, tmp_path, run_suite):
    run_suite("--suite", suite_file, "--methods", "tests.fakes:Broken", "--output-dir", tmp_path / "r")
    assert "no user" not in (tmp_path / "r" / "cold-items.md").read_text()


def test_ledger_names_no_setting_of_the_harness(suite_file, tmp_path, run_suite):
    told = ("--methods", "tests.fakes:Listener", "--llm", "local:m", "--llm-budget", "requests=1")
    answer = run_suite("--suite", suite_file, *told, "--output-dir", tmp_path / "r")
    assert answer.returncode == 0, answer.stderr
    assert "| default, but for llm |" in (tmp_path / "r" / "ledger.md").read_text()


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
    made = json.loads((tmp_path / "r" / "manifest.json").read_text())["suite"]
    assert (made["limit"], made["protocol"]["users"]) == (5, 5)  # the lists that the scores are of
    table = (tmp_path / "r" / "leaderboard.md").read_text()
    assert "NOT REPORTABLE" in table
    assert "5 users (a random sample of 60" in table


PROMPTED = "tests.fakes:Prompted"


def test_numbers_of_the_leaderboard_are_those_of_the_records(finished):
    (results,) = load(RunFolder(finished[1]))
    m, row = results.methods.index(PROMPTED), {r["method"]: r for r in leaderboard(results).rows}[PROMPTED]
    ndcg = results.values("ndcg@10")[m].mean(axis=(1, 2))
    unseen = ndcg[[n for n, c in enumerate(results.conditions) if c["name"].startswith("unseen/")]]
    assert row["unseen"] == pytest.approx(unseen.mean())
    assert row["drop"] == pytest.approx(1 - unseen.mean() / ndcg[0])
    assert row["worst"] == pytest.approx(unseen.min())
    worst = {c["name"]: value for c, value in zip(results.conditions, ndcg, strict=True)}
    assert worst[row["worst_template"]] == pytest.approx(unseen.min())
    assert row["cps"] == pytest.approx((1 - unseen.max() + unseen.mean()) * unseen.max())
    for metric in ("auc", "hit@10", "mrr"):
        assert row[f"clean_{metric}"] == pytest.approx(results.values(metric)[m, 0].mean())
    clean, *others = (scores_of(results.cell(PROMPTED, 0), n) for n in (0, *results.unseen.tolist()))
    top = [robustness.top_k(scores, 10) for scores in (clean, *others)]
    assert row["rbo"] == pytest.approx(np.mean([robustness.rank_biased_overlap(top[0], other) for other in top[1:]]))


def test_ties_bound_clean_quality_by_the_last_and_the_first_place_they_share(finished):
    (results,) = load(RunFolder(finished[1]))
    ranks, ties = np.full_like(results.ranks, 3.0), np.full_like(results.ranks, 4.0)  # places 1 to 5
    row = leaderboard(replace(results, ranks=ranks, ties=ties)).rows[0]
    bounds = (row["clean_pessimistic"], row["clean_optimistic"])
    assert bounds == pytest.approx((1 / np.log2(5 + 2), 1 / np.log2(1 + 2)))


def test_a_family_reaches_a_method_that_it_moves_in_every_fit(finished, monkeypatch):
    (results,) = load(RunFolder(finished[1]))
    monkeypatch.setattr(Results, "_moved", lambda self, method, seed, condition: seed == 0)
    assert results.reached(PROMPTED) and not replace(results, seeds=(0, 1)).reached(PROMPTED)


def test_first_is_who_leads_under_unseen_templates_alone(finished, monkeypatch):
    (results,) = load(RunFolder(finished[1]))
    monkeypatch.setattr(Results, "reached", lambda self, method, family="unseen": True)
    record, ranks = results.records["random"][0], results.ranks.copy()
    for method, elsewhere, among in ((PROMPTED, 19, 1), ("random", 0, 3)):
        m = results.methods.index(method)
        ranks[m] = elsewhere
        ranks[m, :, results.unseen] = (among + np.arange(12) % 2)[:, None, None]
    records = {**results.records, "random": (record | {"info": record["info"] | {"roles": ["recommend"]}},)}
    board = {row["method"]: row for row in leaderboard(replace(results, ranks=ranks, records=records)).rows}
    assert (board[PROMPTED]["first"], board["random"]["first"]) == (1, 0)
    assert next(iter(board)) == PROMPTED  # whose clean quality is lowest


def test_intervals_and_draws_are_those_of_the_suite(finished):
    (results,) = load(RunFolder(finished[1]))
    manifest = copy.deepcopy(results.manifest)
    manifest["suite"]["statistics"]["level"], manifest["suite"]["protocol"]["seed"] = 0.5, 7
    narrow = replace(results, manifest=manifest)
    assert (results.seed, narrow.seed) == (0, 7)
    for table, names in ((leaderboard, ("clean_", "unseen_", "drop_")), (comparisons, ("",))):
        for wide, half in zip(table(results).rows, table(narrow).rows, strict=True):
            for name in names:
                if f"{name}low" in wide:
                    widths = [row[f"{name}high"] - row[f"{name}low"] for row in (wide, half)]
                    assert widths[1] < 0.6 * widths[0]
    assert "with 480 draws" in comparisons(results).caption  # four times as many as 6 tests over 5 %


def test_numbers_by_condition_and_family_are_those_of_the_records(finished):
    (results,) = load(RunFolder(finished[1]))
    m = results.methods.index(PROMPTED)
    means = {metric: results.values(metric)[m].mean(axis=(1, 2)) for metric in ("ndcg@10", "hit@10", "auc")}
    rows = [row for row in by_condition(results).rows if row["method"] == PROMPTED]
    for metric, key in (("ndcg@10", "value"), ("hit@10", "hit@10"), ("auc", "auc")):
        assert [row[key] for row in rows] == pytest.approx(means[metric])
    (row,) = (r for r in by_family(results).rows if (r["method"], r["family"]) == (PROMPTED, "unseen"))
    unseen = means["ndcg@10"][results.unseen]
    assert (row["mean"], row["worst"]) == pytest.approx((unseen.mean(), unseen.min()))
    assert row["drop"] == pytest.approx(1 - unseen.mean() / means["ndcg@10"][0])


def test_rows_in_which_no_score_changed_are_in_the_csv_alone(finished):
    (results,) = load(RunFolder(finished[1]))
    for table in (by_condition(results), by_family(results)):
        assert table.csv().count("\n") == 1 + len(table.rows)
        assert len(table.rows) == 3 * len(set(row[table.columns[1].key] for row in table.rows))
        printed = [row for n, row in enumerate(table.rows) if n not in table.detail]
        assert all(row in printed for row in table.rows if row["reached"] > 0)
        assert all(row["method"] == PROMPTED or row["family"] == "clean" for row in printed)
        assert table.markdown().count("\n| ") == 1 + len(printed) == table.latex().count(r" \\")
        assert table.html().count("<tr>") == 1 + len(printed)


def test_a_positive_drop_in_the_table_of_tests_is_a_loss(finished):
    (results,) = load(RunFolder(finished[1]))
    values = results.values("ndcg@10")[results.methods.index(PROMPTED)].mean(axis=(1, 2))
    (row,) = (row for row in comparisons(results).rows if row["quantity"] == "drop")
    assert row["difference"] == pytest.approx(values[0] - values[results.unseen].mean())


def test_what_only_one_test_among_many_would_find_is_not_significant(finished, monkeypatch):
    (results,) = load(RunFolder(finished[1]))
    found = {"difference": 0.1, "low": 0.1, "high": 0.2, "effect_size": 1.0, "wilcoxon_p": 0.0, "t_p": 0.0, "n": 60}
    monkeypatch.setattr("benchmarks.report.comparisons._compared", lambda *_: found | {"p": 0.02})
    rows = comparisons(results).rows
    assert [row["holm"] for row in rows] == pytest.approx([6 * 0.02] * 6) and not any(r["significant"] for r in rows)


def test_users_whose_scores_are_all_alike_do_not_count_in_list_stability(tmp_path):
    (tmp_path / "scores").mkdir()
    for n, scores in enumerate(([[1.0, 2.0], [1.0, 1.0]], [[2.0, 1.0], [2.0, 1.0]])):
        np.save(tmp_path / "scores" / f"{n:03}.npy", np.array(scores))
    assert stability._agreement(tmp_path, "key", 1, "kendall") == -1


@pytest.mark.parametrize("measure", ["rbo", "jaccard"])
def test_ten_items_of_a_list_are_compared(measure):
    clean = -np.arange(12.0)[None]
    for places, same in (([8, 11], False), ([10, 11], True)):
        other = clean.copy()
        other[0, places] = clean[0, places[::-1]]
        assert (stability.STABILITY[measure](clean, other).item() == pytest.approx(1)) == same


def test_spread_over_templates_is_that_of_the_records(finished):
    (results,) = load(RunFolder(finished[1]))
    row = {r["method"]: r for r in leaderboard(results).rows}[PROMPTED]
    unseen = results.values("ndcg@10")[results.methods.index(PROMPTED), results.unseen].mean(axis=(1, 2))
    spread = (np.quantile(unseen, 0.1), unseen.std(ddof=1))
    assert (row["lower_decile"], row["deviation"]) == pytest.approx(spread)


def test_a_severity_curve_starts_at_the_clean_prompt(finished):
    (results,) = load(RunFolder(finished[1]))
    means = np.arange(len(results.conditions), dtype=float)
    assert severity_curve(results, means, "typos")[1].tolist() == [0, *results.family("typos").tolist()]


def test_methods_are_ranked_by_what_the_leaderboard_is_sorted_by(finished):
    (results,) = load(RunFolder(finished[1]))
    board, levels = {row["method"]: row for row in leaderboard(results).rows}, ranks._levels(results)
    for quantity in ("unseen", "clean"):
        assert levels[quantity] == pytest.approx([board[method][quantity] for method in results.methods])
