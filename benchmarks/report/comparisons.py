"""The table of significance tests between methods."""

from itertools import combinations
from typing import Any

import numpy as np

from benchmarks import significance
from benchmarks.report.results import PRIMARY, Results
from benchmarks.report.table import Column, Table
from data.random import generator
from data.types import FloatArray

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
