"""Tables by condition and by family of conditions."""

from collections.abc import Iterable

import numpy as np

from benchmarks import robustness
from benchmarks.families import SHARED
from benchmarks.report.results import PRIMARY, Results
from benchmarks.report.stability import list_stability
from benchmarks.report.table import Column, Table
from data.types import FloatArray, IntArray

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
    Column("reached", "Users reached", digits=3),
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
    Column("reached", "Users reached", digits=3),
)
REACHED = "Users reached: share of users any of whose scores the condition changed."
LEFT_OUT = "Rows in which no score of the method changed, and all is as in clean, are in the CSV alone."


def by_condition(results: Results) -> Table:
    """Every method under every condition."""
    if not results.methods:
        return Table(CONDITIONS, [])
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
    return Table(
        CONDITIONS,
        rows,
        f"{results.dataset}, {PRIMARY} and drop against clean under every condition. Conditions of templates are named "
        f"after those of the role {SHARED}; other roles show theirs, in their order. {REACHED} A dash for drop and "
        f"what follows: conditions of the family change no score of the method, or not in every fit. {LEFT_OUT}",
        _as_clean(results, ((m, np.array([c])) for m in results.methods for c in range(len(results.conditions)))),
    )


def by_family(results: Results) -> Table:
    """Every method under every family of conditions: level, drop, area under the severity curve, stability."""
    if not results.methods:
        return Table(FAMILIES, [])
    means = results.means
    rows = []
    for m, method in enumerate(results.methods):
        for family in results.families:
            members = results.family(family)
            over, against = robustness.summary(means[m, members]), _against_clean(results, method, means[m], members)
            rows.append(
                {
                    "method": method,
                    "family": family,
                    "conditions": len(members),
                    "mean": over.mean,
                    "worst": over.worst,
                    **against,
                    **({"severity_area": severity_area(results, means[m], family)} if against else {}),
                }
            )
    return Table(
        FAMILIES,
        rows,
        f"{results.dataset}, {PRIMARY} by family of conditions. Severity area: mean height of the curve from "
        f"severity 0 (clean) to the strongest grade; undefined for families without grades. {REACHED} A dash for drop "
        f"and what follows: the family changes no score of the method, or not in every fit. {LEFT_OUT}",
        _as_clean(results, ((m, results.family(family)) for m in results.methods for family in results.families)),
    )


def _as_clean(results: Results, rows: Iterable[tuple[str, IntArray]]) -> set[int]:
    """Numbers of the rows, of a method and other conditions than clean, in which nothing changed."""
    return {n for n, (method, members) in enumerate(rows) if any(members) and results.unmoved(method, members)}


def _against_clean(results: Results, method: str, means: FloatArray, conditions: IntArray) -> dict[str, float]:
    """Drop of the mean over some conditions of one family, and list stability; nothing where they reach no prompt."""
    family = results.conditions[conditions[0]]["family"]
    if family != "clean" and not results.reached(method, family):
        return {}
    drop = float(robustness.performance_drop_rate(means[0], robustness.summary(means[conditions]).mean))
    return {"drop": drop, **list_stability(results, method, conditions, ("rbo", "reached"))}


def severity_area(results: Results, means: FloatArray, family: str) -> float:
    """Area under a method's severity curve of a family; NaN if the family has no grades."""
    severity, values = severity_curve(results, means, family)
    return robustness.severity_area(severity, values) if len(severity) > 1 else float("nan")


def severity_curve(results: Results, means: FloatArray, family: str) -> tuple[FloatArray, FloatArray]:
    """Severities and values of a family's grades, severity 0 (clean) first."""
    severities = {n: results.conditions[n]["severity"] for n in results.family(family).tolist()}
    graded = sorted((n for n, severity in severities.items() if severity), key=lambda n: severities[n])
    return np.array([0.0, *(severities[n] for n in graded)]), means[[0, *graded]]
