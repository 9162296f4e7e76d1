"""The table of significance tests between methods."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from benchmarks import significance
from benchmarks.report.results import PRIMARY, Results
from benchmarks.report.table import Column, Table, percent
from data.random import generator
from data.types import FloatArray
from methods.base import count

NO_DROP = "no drop"
"""Whom a drop is compared with where the other method, whose prompt no template moves, has none."""

SIGNIFICANCE = (
    Column("quantity", "On"),
    Column("a", "A"),
    Column("b", "B"),
    Column("difference", "A - B", digits=4, interval=("low", "high")),
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
    if not tests:
        return Table(SIGNIFICANCE, [], f"{results.dataset}: no two methods to compare.{_against_note(results)}")
    statistics = results.statistics
    alpha = 1 - statistics["level"]
    # the smallest p a test can give must stay well below the threshold after adjustment
    draws = max(statistics["draws"], round(4 * len(tests) / alpha))
    rows = [
        {"quantity": quantity, "a": a, "b": b, **_compared(results, quantity, values, a, b, draws)}
        for quantity, values, a, b in tests
    ]
    for row, adjusted in zip(rows, significance.holm(np.array([row["p"] for row in rows])).tolist(), strict=True):
        row |= {"holm": adjusted, "significant": adjusted < alpha and not row["low"] <= 0 <= row["high"]}
    return Table(
        SIGNIFICANCE,
        rows,
        f"{results.dataset}, {PRIMARY}, paired by user on identical candidates. p: two-sided paired sign-flip "
        f"permutation test; Holm p: adjusted over the {count(len(rows), 'comparison')} of this table, at least "
        f"{min(1.0, len(rows) / (1 + draws)):.4f} with {draws:,} draws; brackets: {percent(statistics['level'])} "
        f"bootstrap interval over {results.resampled} (templates of two roles each for itself). Significant: Holm p "
        f"below {percent(alpha)} and an interval without 0. p takes templates and seeds "
        f"({', '.join(map(str, results.seeds))}) as given, so that an interval "
        "may hold 0 where p is small: the difference is then one on these templates or seeds. drop = clean - unseen, a "
        "difference where the leaderboard has a ratio: a positive one means that A loses more. Tests with an outcome "
        "known beforehand are left out: those on unseen and drop of two methods that no unseen template moves, and on "
        "drop of one whose prompt none reaches. Against all methods that none moves a drop is tested once, as against "
        f"{NO_DROP}." + _against_note(results),
    )


def _tests(results: Results) -> Iterator[tuple[str, dict[str, FloatArray], str, str]]:
    """What is tested: quantity, its values per method ``[users, templates, seeds]``, and the two methods."""
    values = results.values(PRIMARY).transpose(0, 2, 1, 3)
    clean = dict(zip(results.methods, values[:, :, :1], strict=True))
    unseen = dict(zip(results.methods, values[:, :, results.unseen], strict=True))
    drop = {method: clean[method] - unseen[method] for method in results.methods}
    moved = {method for method in results.methods if drop[method].any()}
    pairs = _pairs(results)
    yield from (("clean", clean, a, b) for a, b in pairs)
    pairs = [pair for pair in pairs if moved.intersection(pair)]
    yield from (("unseen", unseen, a, b) for a, b in pairs)
    pairs = [pair for pair in pairs if all(map(results.reached, pair))]
    drop[NO_DROP] = np.zeros_like(unseen[results.methods[0]])
    for a, b in dict.fromkeys((a, b if b in moved else NO_DROP) if a in moved else (b, NO_DROP) for a, b in pairs):
        yield "drop", drop, a, b


def _against(results: Results) -> str:
    """The method that the suite compares all others with; empty if it is every two."""
    return str(results.statistics.get("against", ""))  # runs from before it lack it


def _pairs(results: Results) -> list[tuple[str, str]]:
    """Every two methods, or every other one with the one that the suite names."""
    against = _against(results)
    if not against or against not in (*results.methods, *results.missing):
        return list(combinations(results.methods, 2))
    return [(other, against) for other in results.methods if against in results.methods and other != against]


def _against_note(results: Results) -> str:
    """What the caption says where the suite names a method to compare with and it has no row."""
    against = _against(results)
    if not against or against in results.methods:
        return ""
    if against in results.missing:
        return f" Nothing is compared: the suite compares with {against}, which has no row."
    return f" Every two methods are compared: {against}, with which the suite compares, is not in this run."


def _compared(
    results: Results, quantity: str, values: dict[str, FloatArray], a: str, b: str, draws: int
) -> dict[str, Any]:
    found = significance.compare(
        values[a],
        values[b],
        same_templates=len({results.role(method) for method in (a, b) if method != NO_DROP} - {""}) < 2,
        draws=draws,
        resamples=results.statistics["resamples"],
        rng=generator(results.seed, "comparison", results.dataset, quantity, a, b),
        level=results.statistics["level"],
    )
    return asdict(found) | found.interval._asdict()
