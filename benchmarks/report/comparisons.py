"""The table of significance tests between methods."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np

from benchmarks import significance
from benchmarks.report.results import PRIMARY, Results
from benchmarks.report.table import Column, Table, percent
from data.random import generator
from data.types import FloatArray

SIGNIFICANCE = (
    Column("quantity", "On"),
    Column("a", "A"),
    Column("b", "B"),
    Column("difference", "A - B", digits=4, interval=("low", "high")),
    Column("low", "", detail=True),
    Column("high", "", detail=True),
    Column("p", "p", digits=4, probability=True),
    Column("holm", "Holm p", digits=4, probability=True),
    Column("effect_size", "d_z", digits=2),
    Column("wilcoxon_p", "Wilcoxon p", digits=4, probability=True),
    Column("t_p", "t p", digits=4, probability=True),
    Column("n", "n"),
    Column("significant", "Significant"),
)


def comparisons(results: Results) -> Table:
    """Pairs of methods on clean quality, quality under unseen templates, and the drop between them.

    A test whose outcome is known beforehand is left out, or it would make the correction of all others harsher.
    """
    if not results.methods:
        return Table(SIGNIFICANCE, [])
    tests = list(_tests(results))
    statistics = results.manifest["suite"]["statistics"]
    alpha = 1 - statistics["level"]
    # the smallest p a test can give must stay well below the threshold after adjustment
    draws = max(statistics["draws"], round(4 * len(tests) / alpha))
    rows = [
        {
            "quantity": quantity,
            "a": results.methods[a],
            "b": results.methods[b],
            **_compared(results, quantity, cube, a, b, draws),
        }
        for quantity, cube, a, b in tests
    ]
    for row, adjusted in zip(rows, significance.holm(np.array([row["p"] for row in rows])).tolist(), strict=True):
        row |= {"holm": adjusted, "significant": adjusted < alpha}
    return Table(
        SIGNIFICANCE,
        rows,
        f"{results.dataset}, {PRIMARY}, paired by user on identical candidates. p: two-sided paired sign-flip "
        f"permutation test; Holm p: adjusted over the {len(rows)} comparisons of this table; brackets: "
        f"{percent(statistics['level'])} bootstrap interval over {results.resampled}. p takes templates and seeds "
        f"({', '.join(map(str, results.seeds))}) as given, so that an interval may hold 0 where p is small: the "
        "difference is then one on these templates or seeds. drop = clean - unseen, a difference where the leaderboard "
        "has a ratio: a positive one means that A loses more. Tests with an outcome known beforehand are left out: "
        "those on unseen and drop of two methods that no unseen template moves, and on drop of one whose prompt none "
        "reaches." + _lacking(results),
    )


def _tests(results: Results) -> Iterator[tuple[str, FloatArray, int, int]]:
    """What is tested: quantity, its values ``[methods, users, templates, seeds]``, and the two methods."""
    values = results.values(PRIMARY).transpose(0, 2, 1, 3)
    clean, unseen = values[:, :, :1], values[:, :, results.unseen]
    moved = (unseen != clean).any(axis=(1, 2, 3))
    reached = [results.reached(method) for method in results.methods]
    for a, b in _pairs(results):
        yield "clean", clean, a, b
    for quantity, cube in {"unseen": unseen, "drop": clean - unseen}.items():
        for a, b in _pairs(results):
            if (moved[a] or moved[b]) and (quantity == "unseen" or (reached[a] and reached[b])):
                yield quantity, cube, a, b


def _against(results: Results) -> str:
    """The method that all others are compared with, finished or not; empty if it is every two."""
    against = results.manifest["suite"]["statistics"].get("against")  # runs from before it lack it
    return against if against in (*results.methods, *results.missing) else ""


def _pairs(results: Results) -> list[tuple[int, int]]:
    """Every two methods, or every other one with the one that the suite names."""
    every, against = range(len(results.methods)), _against(results)
    if not against:
        return list(combinations(every, 2))
    return [(other, fixed) for fixed in every if results.methods[fixed] == against for other in every if other != fixed]


def _lacking(results: Results) -> str:
    against = _against(results)
    return f" Nothing is compared: the suite compares with {against}, which has no row." * (against in results.missing)


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
