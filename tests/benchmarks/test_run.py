"""Runs from the command line to the tables, on a small data set and methods made for the purpose."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import machine
from benchmarks.report.comparisons import comparisons
from benchmarks.report.fits import fits
from benchmarks.report.leaderboard import leaderboard
from benchmarks.report.ledger import ledger
from benchmarks.report.results import load
from benchmarks.report.stability import list_stability
from benchmarks.significance import bootstrap_interval
from benchmarks.store import RunFolder
from data.random import generator


def test_prompts_that_were_shortened_are_counted_in_the_note_and_the_ledger_is_kept(suite_file, tmp_path, run_suite):
    run_suite("--suite", suite_file, "--methods", "random", "tests.fakes:Narrow", "--output-dir", tmp_path / "r")
    (results,) = load(RunFolder(tmp_path / "r"))
    notes = {row["method"]: row["note"] for row in leaderboard(results).rows}
    shortened = 60 * len(results.conditions)  # what the audits score again is not counted
    assert notes == {"random": "", "tests.fakes:Narrow": f"fitted; {shortened} prompts shortened to the model's window"}
    (record,) = (tmp_path / "r" / "cells").glob("*/*Narrow*/seed-0/record.json")
    assert json.loads(record.read_text())["ledger"] == {"prompts": shortened}


def test_method_that_cannot_run_has_a_row_with_its_reason(suite_file, tmp_path, run_suite):
    answer = run_suite(
        "--suite", suite_file, "--methods", "random", "tests.fakes:Missing", "--output-dir", tmp_path / "r"
    )
    assert answer.returncode == 0
    assert "not run: no endpoint; set OPENAI_BASE_URL" in (tmp_path / "r" / "leaderboard.md").read_text()


def test_methods_that_fail_cost_their_own_rows_only(suite_file, tmp_path, run_suite):
    reasons = {
        "Broken": "failed: RuntimeError: the loss is not a number",
        "Undefined": "not finite",
        "Distant": "take away what all candidates share",
        "Faded": "beyond the single precision in which they are kept: give their logarithms",
        "Untidy": "failed: RuntimeError: untidy: [Errno 2] No such file or directory: '/nowhere/kept.txt'",
        "Garbled": "failed: RuntimeError: bad file \\udcff",
        "Unreported": "fit returns a FitReport, not 3",
        "Uncounted": "failed: TypeError: interactions in a FitReport is a whole number, not None",
        "Refused": "failed: RuntimeError: refused: nobody answers |",
        "Suicidal": "exit code -9",
    }
    methods = ("--methods", *(f"tests.fakes:{name}" for name in reasons), "random")
    answer = run_suite("--suite", suite_file, *methods, "--output-dir", tmp_path / "r", "--jobs", 2)
    table = (tmp_path / "r" / "leaderboard.md").read_text().splitlines()
    assert answer.returncode == 1
    for name, reason in reasons.items():
        (row,) = [line for line in table if line.startswith(f"| tests.fakes:{name} |")]
        assert reason in row
    (row,) = [line for line in table if line.startswith("| random |")]
    assert "failed" not in row


def test_method_that_ends_the_program_costs_its_own_row_only_and_the_log_is_named(suite_file, tmp_path, run_suite):
    methods = ("--methods", "tests.fakes:Leaver", "random")
    answer = run_suite("--suite", suite_file, *methods, "--output-dir", tmp_path / "r")
    assert answer.returncode == 1 and "random on tiny, seed 0: finished" in answer.stderr
    assert f"failed: SystemExit: 3 (see {tmp_path / 'r' / 'run.log'})" in answer.stderr
    assert "raise SystemExit(3)" in (tmp_path / "r" / "run.log").read_text()


def test_failed_audits_fail_the_run_and_mark_the_table(suite_file, tmp_path, run_suite):
    audits = {
        "Cheater": "wording changes nothing for a method without prompt",
        "Leaking": "demonstrations show training items only",
        "Forgetful": "batching changes no order",
    }
    methods = ("--methods", "random", *(f"tests.fakes:{cheat}" for cheat in audits))
    answer = run_suite("--suite", suite_file, *methods, "--output-dir", tmp_path / "r")
    assert answer.returncode == 3
    for cheat, audit in audits.items():
        assert f"AUDIT FAILED: tests.fakes:{cheat}: {audit}" in answer.stderr
    assert "AUDIT FAILED: random" not in answer.stderr
    assert "AUDIT FAILED" in (tmp_path / "r" / "leaderboard.md").read_text()


def test_serial_run_has_all_cores_for_its_one_process(suite_file, tmp_path, run_suite):
    run_suite("--suite", suite_file, "--methods", "random", "--executor", "serial", "--output-dir", tmp_path / "r")
    compute = json.loads((tmp_path / "r" / "manifest.json").read_text())["compute"]
    assert (compute["jobs"], compute["threads"]) == (1, machine.choose_jobs(1, compute["device"])[1])


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
    values, method = results.values("ndcg@10")[results.methods.index(row["method"])], row["method"]
    how = {"draws": results.statistics["resamples"], "level": results.statistics["level"]}
    rng = generator(results.seed, "interval", results.dataset, method)
    interval = bootstrap_interval(values[:1].transpose(1, 0, 2), **how, rng=rng)
    assert (row["clean_low"], row["clean_high"]) == (interval.low, interval.high)
    assert [r["clean"] for r in fits(results).rows if r["method"] == method] == pytest.approx(each)
    (compared,) = (row for row in comparisons(results).rows if row["quantity"] == "clean")
    other = results.values("ndcg@10")[results.methods.index("random"), 0]
    assert (compared["a"], compared["b"]) == ("random", method)
    assert compared["difference"] == pytest.approx(other.mean() - each.mean())
    alone = (
        replace(results, seeds=(s,), records={method: (r,)})
        for s, r in zip((3, 4), results.records[method], strict=True)
    )
    agreed = [list_stability(one, method, np.array([1]))["rbo"] for one in alone]
    assert list_stability(results, method, np.array([1]))["rbo"] == pytest.approx(np.mean(agreed))
    unseen = results.values("ndcg@10")[results.methods.index(row["method"]), results.unseen].mean(axis=(0, 1))
    assert row["seed_deviation"] == pytest.approx(unseen.std(ddof=1)) and row["seed_deviation"] > 0
    budget = next(row for row in ledger(results).rows if row["method"] == "tests.fakes:Seeded")
    assert (budget["epochs"], budget["ended"]) == (35, "at its limit")


def test_every_seed_perturbs_anew(suite_file, tmp_path, run_suite):
    flags = ("--methods", "tests.fakes:Prompted", "--seeds", 3, 4, "--output-dir", tmp_path / "r")
    assert run_suite("--suite", suite_file, *flags).returncode == 0
    (results,) = load(RunFolder(tmp_path / "r"))
    (first, second), typos = results.ranks[0], results.family("typos")
    assert (first[0] == second[0]).all() and (first[typos] != second[typos]).any()
