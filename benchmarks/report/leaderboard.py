"""The leaderboard, of all users and of those whose positive is rare."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import robustness, significance
from benchmarks.families import SHARED
from benchmarks.report.results import PRIMARY, Results
from benchmarks.report.stability import STABILITY, list_stability
from benchmarks.report.table import Column, Table, percent
from data.random import generator
from data.types import FloatArray
from methods.base import count

COLD = 10
"""An item with fewer training interactions is cold."""
LOSS = 0.05
"""Share of clean quality that is more than a little."""
LEADERBOARD = (
    Column("method", "Method"),
    Column("unseen", "Unseen mean", "up", 3, interval=("unseen_low", "unseen_high")),
    Column("clean", "Clean", "up", 3, interval=("clean_low", "clean_high")),
    Column("worst", "Worst template", "up", 3),
    Column("worst_template", "", detail=True),
    Column("lower_decile", "", detail=True),
    Column("deviation", "", detail=True),
    Column("losing", "", detail=True),
    Column("seed_deviation", "", detail=True),
    Column("cps", "", detail=True),
    Column("drop", "Drop", "down", 3, interval=("drop_low", "drop_high"), among="prompt"),
    Column("rbo", "RBO@10", "up", 3, among="prompt"),
    Column("jaccard", "", detail=True),
    Column("kendall", "", detail=True),
    Column("first", "P(first)", "up", 2),
    Column("clean_auc", "AUC", "up", 3),
    Column("clean_hit@10", "Hit@10", "up", 3),
    Column("clean_mrr", "", detail=True),
    Column("clean_pessimistic", "", detail=True),
    Column("clean_optimistic", "", detail=True),
    Column("epochs", "Epochs"),
    Column("converged", "Converged"),
    Column("interactions", "Interactions seen"),
    Column("tokens", "Tokens seen"),
    Column("trials", "", detail=True),
    Column("prompt", "", detail=True),
    Column("note", "Note"),
)
SHORT = ("method", "unseen", "clean", "worst", "drop", "rbo", "clean_auc", "clean_hit@10")
"""Columns that a page of a paper has room for."""
COLD_ITEMS = (LEADERBOARD[0], Column("users", "Users"), *LEADERBOARD[1:3])


def leaderboard(results: Results) -> Table:
    """One row per method, best mean over the unseen templates first; methods without numbers below, with the reason."""
    rows = sorted(_standings(results), key=_place)
    rows += [{"method": method, "note": reason} for method, reason in sorted(results.missing.items())]
    return Table(LEADERBOARD, rows, _caption(results))


def short(board: Table) -> Table:
    """The columns of a leaderboard that matter most, and why a row lacks numbers."""
    rows = [{**row, "note": _lacking(row)} for row in board.rows]
    keys = (*SHORT, "note") if any(row["note"] for row in rows) else SHORT
    columns = [column for column in LEADERBOARD if column.key in keys]
    return Table(columns, rows, re.sub(r" P\(first\): [^.]*\.", "", board.caption))


def _lacking(row: dict[str, Any]) -> str:
    """Why a row lacks numbers, in short where it has some; empty where it has all."""
    if row.get("unseen") is None:
        return str(row["note"])
    if row.get("rbo") is not None:  # a drop there is none of where clean is 0
        return ""
    return f"unseen templates change {'some fits' if row['unseen'] != row['clean'] else 'none of its scores'}"


def _standings(results: Results) -> Iterator[dict[str, Any]]:
    if not results.methods:
        return
    values = results.values(PRIMARY)
    shown = values[:, results.unseen] if len(results.unseen) else values[:, :1]
    first = _shares_first(results, values)
    bounds = [results.values(PRIMARY, tie)[:, 0].mean(axis=(1, 2)) for tie in (1.0, -1.0)]
    auc, hit, mrr = (results.values(metric)[:, 0].mean(axis=(1, 2)) for metric in ("auc", "hit@10", "mrr"))
    for m, method in enumerate(results.methods):
        reports = [record["fit"] for record in results.records[method]]
        yield {
            "method": method,
            **_levels(results, method, values[m]),
            "seed_deviation": float(shown[m].mean(axis=(0, 1)).std(ddof=1)) if len(results.seeds) > 1 else None,
            **(_robustness(results, method, values[m]) if results.reached(method) else {}),
            "first": first.get(method),
            "clean_auc": float(auc[m]),
            "clean_hit@10": float(hit[m]),
            "clean_mrr": float(mrr[m]),
            "clean_pessimistic": float(bounds[0][m]),
            "clean_optimistic": float(bounds[1][m]),
            "epochs": mean(reports, "epochs"),
            "converged": converged(reports),
            "interactions": mean(reports, "interactions"),
            "tokens": mean(reports, "tokens"),
            "trials": mean(reports, "trials"),
            "prompt": results.prompted(method),
            "note": "; ".join(filter(None, (_note(reports, results.seeds), _worded(results, method)))),
        }


def _shares_first(results: Results, values: FloatArray) -> dict[str, float]:
    """How often each method with a prompt that the unseen templates reach is first of these, templates resampled.

    Nothing where there is one such method, which is always first.
    """
    reached = [
        m
        for m, method in enumerate(results.methods)
        if results.prompted(method) and results.reached(method) and not results.one_wording(method)
    ]
    if len(reached) < 2:
        return {}
    shares = robustness.probability_first(
        values[reached][:, results.unseen].mean(axis=(2, 3)),
        [results.role(results.methods[m]) for m in reached],
        rng=generator(results.seed, "probability first"),
    )
    return {results.methods[m]: share for m, share in zip(reached, shares.tolist(), strict=True)}


def _note(reports: list[dict[str, Any]], seeds: Sequence[int]) -> str:
    """What the fits say of themselves, once where all say the same.

    >>> _note([{"note": "kept epoch 2"}, {"note": ""}, {"note": "kept epoch 3"}], [7, 8, 9])
    'seed 7: kept epoch 2; seed 9: kept epoch 3'
    """
    notes = [report["note"] for report in reports]
    if len(set(notes)) == 1:
        return str(notes[0])
    return "; ".join(f"seed {seed}: {note}" for seed, note in zip(seeds, notes, strict=True) if note)


def _worded(results: Results, method: str) -> str:
    """What is said where a language model's prompt is not the suite's, or its role has too few unseen templates."""
    record = results.records[method][0]
    if not results.prompted(method):
        unreached = "language model" in record["info"]["needs"]
        return "its prompt, if it has one, is its own: no condition changes it" if unreached else ""
    shown = len(results.unseen)
    if not results.reached(method):
        return ""
    if results.one_wording(method):
        return f"one unseen wording in all {shown} conditions: intervals are not over templates"
    # the first template, of the shared role, numbers the conditions, whether it is of the method's own role or not
    templates = [record["conditions"][n]["parameters"]["templates"] for n in results.unseen.tolist()]
    columns = list(zip(*templates, strict=True))[0 if SHARED in record["info"]["roles"] else 1 :]
    own = max(len(set(column)) for column in columns)
    return f"{count(own, 'unseen template')} of its role, in turn, for {shown} conditions" if own < shown else ""


def _place(row: dict[str, Any]) -> tuple[float, str]:
    """What rows are sorted by: quality under unseen templates, clean quality in a run without any."""
    return -row.get("unseen", row["clean"]), row["method"]


def _robustness(results: Results, method: str, values: FloatArray) -> dict[str, Any]:
    """What a method's values, shape ``[conditions, users, seeds]``, and lists are over the unseen templates."""
    return {
        **(_spread(results, method, values) if not results.one_wording(method) else {}),
        **_drop(results, method, values),
        **list_stability(results, method, results.unseen, tuple(STABILITY)),
    }


def _spread(results: Results, method: str, values: FloatArray) -> dict[str, Any]:
    """How a method's values, shape ``[conditions, users, seeds]``, differ between the unseen templates."""
    by_template = values[results.unseen].mean(axis=(1, 2))
    over = robustness.summary(by_template)
    worst = results.conditions[results.unseen[int(by_template.argmin())]]["name"]
    return {
        "worst": over.worst,
        "worst_template": worst if results.prompted(method) else None,
        "lower_decile": over.lower_decile,
        "deviation": over.standard_deviation,
        "losing": float((by_template < (1 - LOSS) * values[0].mean()).mean()),
        "cps": robustness.combined_performance_score(by_template),
    }


def _drop(results: Results, method: str, values: FloatArray) -> dict[str, float]:
    """Share of clean quality that a method loses under the unseen templates, and its interval where it can vary."""
    clean, unseen = values[0], values[results.unseen]
    if not clean.any():
        return {"drop": float("nan")}
    if (unseen == clean).all():
        return {"drop": 0.0}
    low, high = robustness.drop_interval(
        clean,
        unseen.transpose(1, 0, 2),
        draws=results.statistics["resamples"],
        level=results.statistics["level"],
        rng=generator(results.seed, "drop interval", results.dataset, method),
    )
    rate = robustness.performance_drop_rate(clean.mean(), unseen.mean(axis=(1, 2)).mean())
    return {"drop": float(rate), "drop_low": low, "drop_high": high}


def _levels(results: Results, method: str, values: FloatArray) -> dict[str, float]:
    """Mean and bootstrap interval of clean and unseen values of a method, shape ``[conditions, users, seeds]``."""
    statistics, rng = results.statistics, generator(results.seed, "interval", results.dataset, method)
    levels: dict[str, float] = {}
    parts = {"clean": values[:1]} | ({"unseen": values[results.unseen]} if len(results.unseen) else {})
    for name, part in parts.items():
        if name == "unseen" and (part == values[:1]).all():
            levels |= {f"unseen{end}": levels[f"clean{end}"] for end in ("", "_low", "_high")}
            continue
        found = significance.bootstrap_interval(
            part.transpose(1, 0, 2), draws=statistics["resamples"], level=statistics["level"], rng=rng
        )
        levels |= {name: float(part.mean(axis=(1, 2)).mean()), f"{name}_low": found.low, f"{name}_high": found.high}
    return levels


def cold_items(results: Results) -> Table:
    """Clean and unseen quality over the users whose positive has few training interactions."""
    if not results.methods:
        return Table(COLD_ITEMS, [])
    cold = results.train_count < COLD
    of = f"{results.dataset}, {PRIMARY} where the positive has fewer than {COLD} training interactions"
    if not cold.any():
        known = bool(np.isfinite(results.train_count).all())
        return Table(COLD_ITEMS, [], f"{of}: {'no user' if known else 'not recorded in this run'}.")
    values = results.values(PRIMARY)[:, :, cold]
    rows: list[dict[str, Any]] = [
        {"method": method, "users": int(cold.sum()), **_levels(results, method, values[m])}
        for m, method in enumerate(results.methods)
    ]
    rows.sort(key=_place)
    brackets = f"brackets hold {percent(results.statistics['level'])} bootstrap intervals"
    return Table(COLD_ITEMS, rows, f"{of}: {cold.sum()} of {count(len(cold), 'user')}; {brackets}.")


def mean(reports: list[dict[str, Any]], key: str) -> int:
    """Mean of a number of the fit reports, rounded."""
    return round(float(np.mean([report[key] for report in reports])))


def converged(reports: list[dict[str, Any]]) -> bool | None:
    """Whether all fits that trained stopped by themselves; None if none trained."""
    known = [report["converged"] for report in reports if report["converged"] is not None]
    return all(known) if known else None


def _caption(results: Results) -> str:
    facts = results.manifest["datasets"][results.dataset]
    sample = (
        ""
        if facts["judged_users"] == facts["test_users"]
        else f" (a random sample of {facts['test_users']}, the same for all methods)"
    )
    seeds = count(len(results.seeds), "seed")
    if not len(results.unseen):
        how = "Sorted by clean quality."
    else:
        how = (
            f"Sorted by the mean over {count(len(results.unseen), 'unseen template')} of each method's role. Drop = 1 "
            "- unseen / clean, none where clean is 0. RBO@10: agreement of each user's list with the clean one. "
            "P(first): share of resamples of the templates alone in which the row is first of those whose scores they "
            "change. Dashes in a row with a prompt: unseen templates change none of its scores, or not in every fit."
        )
    users = count(facts["judged_users"], "user")
    return (
        f"{results.dataset}: {PRIMARY} of {users}{sample}, {facts['candidates']} candidates, {seeds}; brackets hold "
        f"{percent(results.statistics['level'])} bootstrap intervals over {results.resampled}. {how} AUC and Hit@10 "
        f"are clean. Bold: best, underlined: second; of Drop and RBO@10 among rows with a prompt.{banner(results)}"
    )


def banner(results: Results) -> str:
    """What every table of a data set says at the end of its caption where its numbers are not to be relied on."""
    made = {str(record.get("code")) for method in results.methods for record in results.records[method]}
    mixed = " MIXED: the rows were made by different versions of the code." if len(made) > 1 else ""
    limited = " NOT REPORTABLE: made with --limit." if results.manifest["suite"]["limit"] else ""
    facts = results.manifest["datasets"][results.dataset]
    bare, items = facts.get("untitled", 0), facts["items"]  # earlier runs have not counted them
    untitled = f" NO TITLES: prompts show the ids of {bare} of {items} items." if 2 * bare > items else ""
    failed = failed_audits(results)
    return mixed + limited + untitled + (f" AUDIT FAILED: {'; '.join(failed)}." if failed else "")


def failed_audits(results: Results) -> list[str]:
    """Sentences of the audits that failed, of the data and of the methods."""
    checks = [(results.dataset, audit) for audit in results.manifest["audits"]]
    checks += [(method, audit) for method, records in results.records.items() for r in records for audit in r["audits"]]
    return [f"{owner}: {audit['name']} ({audit['detail']})" for owner, audit in checks if not audit["passed"]]
