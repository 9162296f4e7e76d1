"""The figures of a run."""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.report.conditions import severity_curve
from benchmarks.report.ranks import Ranks
from benchmarks.report.results import PRIMARY, Results
from benchmarks.robustness import performance_drop_rate
from benchmarks.store import CellId, RunFolder, disk_errors, write_atomically
from data.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
"""Okabe and Ito, 2008: told apart with any colour vision."""
MARKERS = "os^Dv<>Pph*"
CRITICAL_DIFFERENCE = "critical-difference.png"
STYLE: Any = {"text.parse_math": False, "pdf.fonttype": 42}
"""Names as they are, and outlines that publishers take."""


def draw(results: Results, folder: Path) -> list[Path]:
    """Write the figures of one data set as PNG; returns their paths."""
    if not results.methods:
        return []
    import matplotlib

    matplotlib.use("Agg")
    paths = []
    with matplotlib.rc_context(STYLE):
        for name, drawing in _drawings().items():
            figure = drawing(results)
            if figure is not None:
                paths.append(_saved(figure, folder / f"{results.dataset}-{name}.png"))
    return paths + _kept(results, folder)


def _saved(figure: "Figure", path: Path) -> Path:
    """Write a figure as PNG and, beside it, as PDF.

    Raises:
        StoreError: if it cannot be written.
    """
    undated = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
    for ending, metadata in undated.items():
        picture = io.BytesIO()
        figure.savefig(picture, format=ending, dpi=150, bbox_inches="tight", metadata=metadata)
        with disk_errors(path):
            write_atomically(path.with_suffix(f".{ending}"), picture.getvalue())
    return path


def names(manifest: dict[str, Any], folder: RunFolder) -> Iterator[str]:
    """File names of all figures that a run may have."""
    drawn = [CRITICAL_DIFFERENCE, *(f"{data}-{name}.png" for data in manifest["datasets"] for name in _drawings())]
    yield from (name for png in drawn for name in (png, f"{png.removesuffix('.png')}.pdf"))
    for cell in manifest["cells"]:
        pictures = folder.cell(CellId(cell["dataset"], cell["method"], cell["seed"])).glob("*.png")
        yield from (_kept_name(cell["dataset"], cell["method"], picture) for picture in pictures)


def _drawings() -> dict[str, "Callable[[Results], Figure | None]"]:
    """What is drawn of every data set."""
    return {"drop": _drop, "severity": _severity, "clean-unseen": _clean_unseen}


def critical_difference(ranks: Ranks, folder: Path) -> Path:
    """Draw average ranks across data sets: methods differ if their bars, one critical difference long, do not touch.

    Returns:
        Path of the PNG.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        return _saved(_average_ranks(ranks), folder / CRITICAL_DIFFERENCE)


def _average_ranks(ranks: Ranks) -> "Figure":
    from matplotlib.figure import Figure

    test, labels = next(iter(ranks.tests.values())), _labels(ranks.methods)
    order = np.argsort(test.average_ranks, kind="stable")
    figure = Figure(figsize=(5.6, 1.2 + 0.25 * len(order)))
    axes = figure.subplots()
    half = ranks.critical_difference / 2
    axes.errorbar(test.average_ranks[order], range(len(order)), xerr=half, fmt="o", color=COLOURS[0], capsize=3)
    axes.set_yticks(range(len(order)), [labels[m] for m in order])
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.grid(alpha=0.3, axis="x")
    axes.set_xlabel(f"average {next(iter(ranks.tests))} rank over {', '.join(ranks.datasets)}")
    axes.set_title("methods differ where bars do not touch (Nemenyi)", fontsize=10)
    return figure


def _kept(results: Results, folder: Path) -> list[Path]:
    """Pictures that methods keep beside their results, those of the first seed."""
    paths = []
    for method in results.methods:
        cell = results.folder.cell(CellId(results.dataset, method, results.seeds[0]))
        for picture in sorted(cell.glob("*.png")):
            paths.append(folder / _kept_name(results.dataset, method, picture))
            with disk_errors(paths[-1]):
                write_atomically(paths[-1], picture.read_bytes())
    return paths


def _kept_name(dataset: str, method: str, picture: Path) -> str:
    return f"{dataset}-{method.replace('/', '-')}-{picture.name}"


def _labels(methods: Sequence[str]) -> list[str]:
    """The names of methods, without the module of one's own where that is clear and no legend leaves it out."""
    short = [method.rpartition(":")[2] for method in methods]
    return [m if n.startswith("_") or short.count(n) > 1 else n for m, n in zip(methods, short, strict=True)]


def _style(method: int) -> dict[str, Any]:
    return {"color": COLOURS[method % len(COLOURS)], "marker": MARKERS[method % len(MARKERS)], "markersize": 5}


def _best_first(means: FloatArray) -> list[int]:
    """Methods by clean quality, the order in which legends name them."""
    order: list[int] = np.argsort(-means[:, 0], kind="stable").tolist()
    return order


def _drop(results: Results) -> "Figure | None":
    """Heat map: share of clean quality lost, by method and family."""
    from matplotlib.figure import Figure

    if not results.families:
        return None
    means, labels = results.means, _labels(results.methods)
    by_family = np.stack([means[:, results.family(f)].mean(axis=1) for f in results.families], axis=1)
    drop = performance_drop_rate(means[:, :1], by_family)
    reached = [[results.reached(method, family) for family in results.families] for method in results.methods]
    drop[~np.array(reached)] = np.nan
    order = np.argsort(-means[:, results.unseen].mean(axis=1)) if len(results.unseen) else np.arange(len(drop))
    figure = Figure(figsize=(1.5 + 0.75 * len(results.families), 1.4 + 0.32 * len(results.methods)))
    axes = figure.subplots()
    limit = max(0.05, float(np.nanmax(np.abs(drop), initial=0.0)))
    image = axes.imshow(drop[order], cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xticks(range(len(results.families)), results.families, rotation=35, ha="right")
    axes.set_yticks(range(len(order)), [labels[m] for m in order])
    for (row, column), value in np.ndenumerate(drop[order]):
        colour = "white" if abs(value) > 0.6 * limit else "black"
        text = "" if np.isnan(value) else f"{round(float(value), 2) + 0.0:+.2f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set_title(f"{results.dataset}: share of clean {PRIMARY} lost (blank: not reached)")
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def _severity(results: Results) -> "Figure | None":
    """Severity curves: one panel per graded family, one line per method."""
    from matplotlib.figure import Figure

    means, labels = results.means, _labels(results.methods)
    graded = [f for f in results.families if len(severity_curve(results, means[0], f)[0]) > 1]
    if not graded:
        return None
    columns = min(3, len(graded))
    rows = math.ceil(len(graded) / columns)
    figure = Figure(figsize=(3.6 * columns, 2.8 * rows))
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for panel, family in zip(panels.flat, graded, strict=False):
        for m in _best_first(means):
            curve = severity_curve(results, means[m], family)
            panel.plot(*curve, label=labels[m], linewidth=1, **_style(m))
        panel.set_title(family, fontsize=10)
        panel.set_xlabel("severity")
        panel.grid(alpha=0.3)
    for panel in panels.flat[len(graded) :]:
        panel.set_visible(False)
    for row in panels:
        row[0].set_ylabel(PRIMARY)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.tight_layout()
    figure.legend(handles, labels, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
    return figure


def _clean_unseen(results: Results) -> "Figure | None":
    """Clean quality against quality under unseen templates, with the spread over templates."""
    from matplotlib.figure import Figure

    if not len(results.unseen):
        return None
    means, labels = results.means, _labels(results.methods)
    figure = Figure(figsize=(5.6, 4.2))
    axes = figure.subplots()
    for m in _best_first(means):
        clean, unseen, name = means[m, 0], means[m, results.unseen], labels[m]
        spread = np.maximum(0, [[unseen.mean() - unseen.min()], [unseen.max() - unseen.mean()]])
        axes.errorbar(clean, unseen.mean(), yerr=spread, label=name, linestyle="none", capsize=3, **_style(m))
    top = float(means[:, [0, *results.unseen.tolist()]].max()) * 1.08
    axes.plot([0, top], [0, top], color="grey", linewidth=0.8, linestyle="--", zorder=0)
    axes.set_xlabel(f"clean {PRIMARY}")
    axes.set_ylabel(f"{PRIMARY} under unseen templates (mean, range)")
    axes.set_title(results.dataset)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
