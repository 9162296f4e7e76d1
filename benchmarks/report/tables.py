"""The tables of a run."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import robustness, significance
from benchmarks.report.results import Results, scores_of
from benchmarks.report.table import Column, Table
from data.random import generator
from data.types import FloatArray, IntArray
from methods.base import count

PRIMARY = "ndcg@10"
COLD = 10
"""An item with fewer training interactions is cold."""

LEADERBOARD = (
    Column("method", "Method"),
    Column("unseen", "Unseen mean", "up", 3, interval=("unseen_low", "unseen_high")),
    Column("unseen_low", "", detail=True),
    Column("unseen_high", "", detail=True),
    Column("clean", "Clean", "up", 3, interval=("clean_low", "clean_high")),
    Column("clean_low", "", detail=True),
    Column("clean_high", "", detail=True),
    Column("worst", "Worst template", "up", 3),
    Column("worst_template", "", detail=True),
    Column("lower_decile", "", detail=True),
    Column("deviation", "", detail=True),
    Column("seed_deviation", "", detail=True),
    Column("cps", "", detail=True),
    Column("drop", "Drop", "down", 3),
    Column("rbo", "RBO@10", "up", 3),
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
    Column("note", "Note"),
)
COLD_ITEMS = (LEADERBOARD[0], Column("users", "Users"), *LEADERBOARD[1:7])
SIGNIFICANCE = (
    Column("quantity", "On"),
    Column("a", "A"),
    Column("b", "B"),
    Column("difference", "A - B", digits=4, interval=("low", "high")),
    Column("low", "", detail=True),
    Column("high", "", detail=True),
    Column("p", "p", digits=4),
    Column("holm", "Holm p", digits=4),
    Column("effect_size", "d_z", digits=2),
    Column("wilcoxon_p", "Wilcoxon p", digits=4),
    Column("t_p", "t p", digits=4),
    Column("n", "n"),
    Column("significant", "Significant"),
)
CONDITIONS = (
    Column("method", "Method"),
    Column("condition", "Condition"),
    Column("family", "Family"),
    Column("severity", "Severity", digits=2),
    Column("value", PRIMARY, digits=4),
    Column("drop", "Drop", digits=4),
    Column("hit@10", "", detail=True),
    Column("auc", "", detail=True),
    Column("rbo", "RBO@10", digits=3),
)
FAMILIES = (
    Column("method", "Method"),
    Column("family", "Family"),
    Column("conditions", "Conditions"),
    Column("mean", "Mean", digits=4),
    Column("worst", "Worst", digits=4),
    Column("drop", "Mean drop", digits=4),
    Column("severity_area", "Severity area", digits=4),
    Column("rbo", "RBO@10", digits=3),
)


def leaderboard(results: Results) -> Table:
    """One row per method, best mean over the unseen templates first; methods without numbers below, with the reason."""
    rows = sorted(_standings(results), key=_place)
    rows += [{"method": method, "note": reason} for method, reason in sorted(results.missing.items())]
    return Table(LEADERBOARD, rows, _caption(results))


def _standings(results: Results) -> Iterator[dict[str, Any]]:
    if not results.methods:
        return
    seed = results.manifest["suite"]["protocol"]["seed"]
    values = results.values(PRIMARY)
    tested = len(results.unseen) > 0
    shown = values[:, results.unseen] if tested else values[:, :1]
    first = robustness.probability_first(shown.mean(axis=(2, 3)), rng=generator(seed, "probability first"))
    bounds = [results.values(PRIMARY, tie)[:, 0].mean(axis=(1, 2)) for tie in (1.0, -1.0)]
    auc, hit, mrr = (results.values(metric)[:, 0].mean(axis=(1, 2)) for metric in ("auc", "hit@10", "mrr"))
    for m, method in enumerate(results.methods):
        reports = [record["fit"] for record in results.records[method]]
        yield {
            "method": method,
            **_levels(results, method, values[m]),
            "seed_deviation": float(shown[m].mean(axis=(0, 1)).std(ddof=1)) if len(results.seeds) > 1 else None,
            **(_robustness(results, method, values[m]) if results.reached(method) else {}),
            "first": float(first[m]) if tested else None,
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
            "note": _note(reports, results.seeds),
        }


def _note(reports: list[dict[str, Any]], seeds: Sequence[int]) -> str:
    """What the fits say of themselves, once where all say the same.

    >>> _note([{"note": "kept epoch 2"}, {"note": ""}, {"note": "kept epoch 3"}], [7, 8, 9])
    'seed 7: kept epoch 2; seed 9: kept epoch 3'
    """
    notes = [report["note"] for report in reports]
    if len(set(notes)) == 1:
        return str(notes[0])
    return "; ".join(f"seed {seed}: {note}" for seed, note in zip(seeds, notes, strict=True) if note)


def _place(row: dict[str, Any]) -> tuple[float, str]:
    """What rows are sorted by: quality under unseen templates, clean quality in a run without any."""
    return -row.get("unseen", row["clean"]), row["method"]


def _robustness(results: Results, method: str, values: FloatArray) -> dict[str, Any]:
    """What a method's values, shape ``[conditions, users, seeds]``, and lists are over the unseen templates."""
    by_template = values[results.unseen].mean(axis=(1, 2))
    over = robustness.summary(by_template)
    worst = results.conditions[results.unseen[int(by_template.argmin())]]["name"]
    return {
        "worst": over.worst,
        "worst_template": worst.rpartition("/")[2].removeprefix("recommend-"),
        "lower_decile": over.lower_decile,
        "deviation": over.standard_deviation,
        "cps": robustness.combined_performance_score(by_template),
        "drop": float(robustness.performance_drop_rate(values[0].mean(), over.mean)),
        **list_stability(results, method, results.unseen, tuple(STABILITY)),
    }


def _levels(results: Results, method: str, values: FloatArray) -> dict[str, float]:
    """Mean and bootstrap interval of clean and unseen values of a method, shape ``[conditions, users, seeds]``."""
    statistics, seed = results.manifest["suite"]["statistics"], results.manifest["suite"]["protocol"]["seed"]
    rng = generator(seed, "interval", results.dataset, method)
    levels: dict[str, float] = {}
    parts = {"clean": values[:1]} | ({"unseen": values[results.unseen]} if len(results.unseen) else {})
    for name, part in parts.items():
        found = significance.bootstrap_interval(
            part.transpose(1, 0, 2), draws=statistics["resamples"], level=statistics["level"], rng=rng
        )
        levels |= {name: float(part.mean(axis=(1, 2)).mean()), f"{name}_low": found.low, f"{name}_high": found.high}
    return levels


def cold_items(results: Results) -> Table:
    """Clean and unseen quality over the users whose positive has few training interactions."""
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
    level = results.manifest["suite"]["statistics"]["level"]
    return Table(
        COLD_ITEMS, rows, f"{of}: {cold.sum()} of {len(cold)} users; brackets hold {level:.0%} bootstrap intervals."
    )


def mean(reports: list[dict[str, Any]], key: str) -> int:
    """Mean of a number of the fit reports, rounded."""
    return round(float(np.mean([report[key] for report in reports])))


def converged(reports: list[dict[str, Any]]) -> bool | None:
    """Whether all fits that trained stopped by themselves; None if none trained."""
    known = [report["converged"] for report in reports if report["converged"] is not None]
    return all(known) if known else None


def list_stability(
    results: Results, method: str, conditions: IntArray, measures: Sequence[str] = ("rbo",)
) -> dict[str, float]:
    """Mean agreement of each user's list under some conditions with their clean list; NaN without scores.

    Args:
        results: of a run.
        method: whose lists.
        conditions: indices of the conditions.
        measures: keys of :data:`STABILITY`.
    """
    # A cell's key says what its scores depend on: what was computed for it once holds as long as the process lives.
    seeds = zip(results.seeds, results.records[method], strict=True)
    cells = [(results.cell(method, seed), record["key"]) for seed, record in seeds]
    found = {
        measure: [_agreement(*cell, condition, measure) for cell in cells for condition in conditions.tolist()]
        for measure in measures
    }
    return {key: float(np.mean(values)) if values else float("nan") for key, values in found.items()}


STABILITY: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "rbo": lambda a, b: robustness.rank_biased_overlap(robustness.top_k(a, 10), robustness.top_k(b, 10)),
    "jaccard": lambda a, b: robustness.jaccard_at(robustness.top_k(a, 10), robustness.top_k(b, 10)),
    "kendall": robustness.kendall_tau,
}


@cache
def _agreement(cell: Path, key: str, condition: int, measure: str) -> float:
    clean, scores = scores_of(cell, 0), scores_of(cell, condition)
    if clean is None or scores is None:
        return float("nan")
    return float(np.nanmean(STABILITY[measure](clean, scores)))


def _caption(results: Results) -> str:
    facts = results.manifest["datasets"][results.dataset]
    level = results.manifest["suite"]["statistics"]["level"]
    sample = (
        ""
        if facts["judged_users"] == facts["test_users"]
        else f" (a random sample of {facts['test_users']}, the same for all methods)"
    )
    seeds = count(len(results.seeds), "seed")
    made = {str(record.get("code")) for records in results.records.values() for record in records}
    mixed = " MIXED: the rows were made by different versions of the code." if len(made) > 1 else ""
    if not len(results.unseen):
        how = "Sorted by clean quality."
    else:
        how = (
            f"Sorted by the mean over {len(results.unseen)} unseen templates. Drop = 1 - unseen / clean. RBO@10: "
            "agreement of each user's list with the clean one. P(first): share of resamples of the templates in which "
            "the method is first. A dash in a row with a prompt: unseen templates do not reach it, or not in every fit."
        )
    limited = " NOT REPORTABLE: made with --limit." if results.manifest["suite"]["limit"] else ""
    failed = [audit for audit in failed_audits(results)]
    banner = f" AUDIT FAILED: {'; '.join(failed)}." if failed else ""
    return (
        f"{results.dataset}: {PRIMARY} of {facts['judged_users']} users{sample}, {facts['candidates']} candidates, "
        f"{seeds}; brackets hold {level:.0%} bootstrap intervals over users, templates and seeds. {how} AUC and Hit@10 "
        f"are clean. Bold: best, underlined: second.{mixed}{limited}{banner}"
    )


def failed_audits(results: Results) -> list[str]:
    """Sentences of the audits that failed, of the data and of the methods."""
    checks = [(results.dataset, audit) for audit in results.manifest["audits"]]
    checks += [(method, audit) for method, records in results.records.items() for r in records for audit in r["audits"]]
    return [f"{owner}: {audit['name']} ({audit['detail']})" for owner, audit in checks if not audit["passed"]]


def comparisons(results: Results) -> Table:
    """Pairs of methods on clean quality, quality under unseen templates, and the drop between them."""
    if not results.methods:
        return Table(SIGNIFICANCE, [])
    values = results.values(PRIMARY).transpose(0, 2, 1, 3)
    clean, unseen = values[:, :, :1], values[:, :, results.unseen]
    quantities = {"clean": clean, "unseen": unseen, "drop": clean - unseen} if len(results.unseen) else {"clean": clean}
    pairs, alpha = _pairs(results), 1 - results.manifest["suite"]["statistics"]["level"]
    # the smallest p a test can give must stay well below the threshold after adjustment
    draws = max(results.manifest["suite"]["statistics"]["draws"], round(4 * len(quantities) * len(pairs) / alpha))
    rows = [
        {
            "quantity": quantity,
            "a": results.methods[a],
            "b": results.methods[b],
            **_compared(results, quantity, cube, a, b, draws),
        }
        for quantity, cube in quantities.items()
        for a, b in pairs
    ]
    for row, adjusted in zip(rows, significance.holm(np.array([row["p"] for row in rows])).tolist(), strict=True):
        row |= {"holm": adjusted, "significant": adjusted < alpha}
    return Table(
        SIGNIFICANCE,
        rows,
        f"{results.dataset}, {PRIMARY}, paired by user on identical candidates. p: two-sided paired sign-flip "
        f"permutation test; Holm p: adjusted over the {len(rows)} comparisons of this table; brackets: "
        f"{1 - alpha:.0%} bootstrap interval over users, templates and seeds. p takes the seeds as given: "
        f"{', '.join(map(str, results.seeds))}. drop = clean - unseen, a difference where the leaderboard has a ratio: "
        "a positive one means that A loses more.",
    )


def _pairs(results: Results) -> list[tuple[int, int]]:
    """Every two methods, or every other one with the one that the suite names."""
    every = range(len(results.methods))
    against = results.manifest["suite"]["statistics"].get("against")  # runs from before it lack it
    if against not in results.methods:
        return list(combinations(every, 2))
    fixed = results.methods.index(against)
    return [(other, fixed) for other in every if other != fixed]


def _compared(results: Results, quantity: str, cube: FloatArray, a: int, b: int, draws: int) -> dict[str, Any]:
    statistics, seed = results.manifest["suite"]["statistics"], results.manifest["suite"]["protocol"]["seed"]
    found = significance.compare(
        cube[a],
        cube[b],
        draws=draws,
        resamples=statistics["resamples"],
        rng=generator(seed, "comparison", results.dataset, quantity, results.methods[a], results.methods[b]),
        level=statistics["level"],
    )
    return {
        "difference": found.difference,
        "low": found.interval.low,
        "high": found.interval.high,
        "p": found.p,
        "effect_size": found.effect_size,
        "wilcoxon_p": found.wilcoxon_p,
        "t_p": found.t_p,
        "n": found.n,
    }


def by_condition(results: Results) -> Table:
    """Every method under every condition."""
    means = {metric: results.values(metric).mean(axis=(2, 3)) for metric in (PRIMARY, "hit@10", "auc")}
    rows = [
        {
            "method": method,
            "condition": condition["name"],
            "family": condition["family"],
            "severity": condition["severity"],
            "value": float(means[PRIMARY][m, c]),
            "hit@10": float(means["hit@10"][m, c]),
            "auc": float(means["auc"][m, c]),
            **_against_clean(results, method, means[PRIMARY][m], np.array([c])),
        }
        for m, method in enumerate(results.methods)
        for c, condition in enumerate(results.conditions)
    ]
    return Table(CONDITIONS, rows, f"{results.dataset}, {PRIMARY} and drop against clean under every condition.")


def _against_clean(results: Results, method: str, means: FloatArray, conditions: IntArray) -> dict[str, float]:
    """Drop of the mean over some conditions of one family, and list stability; nothing where they reach no prompt."""
    if conditions[0] in results.unseen and not results.reached(method):
        return {}
    drop = float(robustness.performance_drop_rate(means[0], means[conditions].mean()))
    return {"drop": drop, **list_stability(results, method, conditions)}


def by_family(results: Results) -> Table:
    """Every method under every family of conditions: level, drop, area under the severity curve, stability."""
    means = results.values(PRIMARY).mean(axis=(2, 3))
    rows = []
    for m, method in enumerate(results.methods):
        for family in results.families:
            members = results.family(family)
            over = robustness.summary(means[m, members])
            rows.append(
                {
                    "method": method,
                    "family": family,
                    "conditions": len(members),
                    "mean": over.mean,
                    "worst": over.worst,
                    "severity_area": severity_area(results, means[m], family),
                    **_against_clean(results, method, means[m], members),
                }
            )
    return Table(
        FAMILIES,
        rows,
        f"{results.dataset}, {PRIMARY} by family of conditions. Severity area: mean height of the curve from "
        "severity 0 (clean) to the strongest grade; undefined for families without grades.",
    )


def severity_area(results: Results, means: FloatArray, family: str) -> float:
    """Area under a method's severity curve of a family; NaN if the family has no grades."""
    severity, values = severity_curve(results, means, family)
    return robustness.severity_area(severity, values) if len(severity) > 1 else float("nan")


def severity_curve(results: Results, means: FloatArray, family: str) -> tuple[FloatArray, FloatArray]:
    """Severities and values of a family's grades, severity 0 (clean) first."""
    severities = {n: results.conditions[n]["severity"] for n in results.family(family).tolist()}
    graded = sorted((n for n, severity in severities.items() if severity), key=lambda n: severities[n])
    return np.array([0.0, *(severities[n] for n in graded)]), means[[0, *graded]]
