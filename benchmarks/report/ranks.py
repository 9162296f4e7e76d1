"""Methods across data sets: average ranks, Friedman's test, Nemenyi's critical difference."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report.results import PRIMARY, Results
from benchmarks.report.table import Column, Table
from benchmarks.significance import Friedman, friedman, nemenyi_critical_difference

TITLES = {"unseen": "Unseen mean", "clean": "Clean"}


@dataclass(frozen=True)
class Ranks:
    """Average ranks over the data sets of a run.

    Args:
        methods: those with a row on every data set.
        datasets: the data sets.
        tests: ``unseen`` and ``clean`` -> ranks of the methods and Friedman's test of them.
        level: 1 - the threshold of significance.
    """

    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    tests: dict[str, Friedman]
    level: float

    @property
    def critical_difference(self) -> float:
        """How far two average ranks must be apart to differ."""
        return nemenyi_critical_difference(len(self.methods), len(self.datasets), 1 - self.level)


def ranks(found: Sequence[Results]) -> Ranks | None:
    """Ranks across data sets; None for one data set, or fewer than three methods with a row on all of them.

    Source: Demšar, 2006, section 3.2.2.
    """
    methods = tuple(m for m in found[0].methods if all(m in results.methods for results in found))
    if len(found) < 2 or len(methods) < 3:
        return None
    levels: dict[str, list[list[float]]] = {quantity: [] for quantity in TITLES if quantity in _levels(found[0])}
    for results in found:
        places = [results.methods.index(method) for method in methods]
        for quantity, level in _levels(results).items():
            levels[quantity].append([level[place] for place in places])
    return Ranks(
        methods,
        tuple(results.dataset for results in found),
        {quantity: friedman(np.array(rows)) for quantity, rows in levels.items()},
        found[0].statistics["level"],
    )


def _levels(results: Results) -> dict[str, list[float]]:
    """The primary metric of every method, clean and under unseen templates."""
    means = results.means
    unseen = {"unseen": means[:, results.unseen].mean(axis=1).round(12).tolist()} if len(results.unseen) else {}
    return {**unseen, "clean": means[:, 0].round(12).tolist()}


def table(found: Ranks) -> Table:
    """One row per method, the best average rank first."""
    rows = [
        {"method": method, **{quantity: float(test.average_ranks[m]) for quantity, test in found.tests.items()}}
        for m, method in enumerate(found.methods)
    ]
    rows.sort(key=lambda row: (*(row[quantity] for quantity in found.tests), row["method"]))
    p = Table(
        [Column(quantity, title, digits=4, probability=True) for quantity, title in TITLES.items()],
        [{quantity: test.p for quantity, test in found.tests.items()}],
    )
    tests = ", ".join(f"{c.title} {p.cell(0, c)}" for c in p.columns if c.key in found.tests)
    return Table(
        (Column("method", "Method"), *(Column(quantity, TITLES[quantity], "down", 2) for quantity in found.tests)),
        rows,
        f"Average rank by {PRIMARY} on {len(found.datasets)} data sets ({', '.join(found.datasets)}), 1 is best, of "
        f"methods with a row on each. Friedman's p: {tests}. Two average ranks differ if they are more than "
        f"{found.critical_difference:.2f} apart (Nemenyi): these tests count data sets, and find little in a few. "
        "Bold: best, underlined: second.",
    )
