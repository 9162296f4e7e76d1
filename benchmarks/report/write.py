"""Write everything a run folder's records say."""

import html
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

from benchmarks.report import ranks
from benchmarks.report.comparisons import comparisons
from benchmarks.report.conditions import by_condition, by_family
from benchmarks.report.fits import fits
from benchmarks.report.leaderboard import banner, cold_items, leaderboard, short
from benchmarks.report.ledger import ledger
from benchmarks.report.results import Results
from benchmarks.report.table import Column, Table, in_markdown
from benchmarks.store import RunFolder, StoreError, component, disk_errors, to_json

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 96rem; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: 13px }}
caption {{ caption-side: bottom; text-align: left; color: #555; padding-top: .4rem; max-width: 70rem }}
th, td {{ padding: .25rem .6rem; text-align: left; border-bottom: 1px solid #ddd }}
thead th {{ border-bottom: 2px solid #444 }}
th.number, td.number {{ text-align: right }} td.number {{ white-space: nowrap }}
img {{ max-width: 100%; margin: 1rem 0 }}
details {{ margin: 1rem 0 }} summary {{ cursor: pointer; font-weight: 600 }}
td details {{ margin: 0; min-width: 18rem }} td summary {{ font-weight: inherit }}
td details[open] summary {{ color: #999 }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


MAKERS = {
    "cold-items": cold_items,
    "significance": comparisons,
    "families": by_family,
    "conditions": by_condition,
    "ledger": ledger,
    "fits": fits,
}


def clear(folder: RunFolder) -> None:
    """Remove the tables, figures and page of the run that the manifest is of; files of others stay.

    Raises:
        StoreError: if they cannot be removed.
    """
    from benchmarks.report import figures

    try:
        manifest = folder.read_manifest()
    except StoreError:  # no run, or none that says which figures it has
        return
    tables = [f"{name}.{ending}" for name in ("leaderboard", *MAKERS, "ranks") for ending in ("md", "tex", "csv")]
    drawn = [f"figures/{name}" for name in figures.names(manifest, folder)]
    with disk_errors(folder.path):
        for name in (*tables, "leaderboard.json", "index.html", *drawn):
            (folder.path / name).unlink(missing_ok=True)


def write_leaderboard(folder: RunFolder, found: Sequence[Results]) -> dict[str, Table]:
    """Write leaderboard.md, .csv, .json and, shorter, .tex, by data set; cheap enough to repeat after every cell."""
    boards = {results.dataset: leaderboard(results) for results in found}
    _write(folder, "leaderboard", boards, short)
    folder.write("leaderboard.json", to_json({name: table.values() for name, table in boards.items()}))
    return boards


def write_all(folder: RunFolder, found: Sequence[Results]) -> None:
    """Write all tables, figures and the page."""
    from benchmarks.report import figures

    made = {"leaderboard": write_leaderboard(folder, found)}
    for name, make in MAKERS.items():
        made[name] = {results.dataset: _marked(make(results), found=[results]) for results in found}
        _write(folder, name, made[name])
    drawn = {results.dataset: figures.draw(results, folder.path / "figures") for results in found}
    folder.write("index.html", _page(found, made, drawn, _across(found, folder)))


def _across(found: Sequence[Results], folder: RunFolder) -> str:
    """What is written of a run with several data sets: average ranks; their part of the page."""
    from benchmarks.report import figures

    across = ranks.ranks(found)
    if across is None:  # ranks of an earlier run of this folder are none of this one
        drawn = folder.path / "figures" / figures.CRITICAL_DIFFERENCE
        for path in (*folder.path.glob("ranks.*"), drawn, drawn.with_suffix(".pdf")):
            with disk_errors(path):
                path.unlink(missing_ok=True)
        return ""
    table = _marked(ranks.table(across), found)
    for ending, render in (("md", table.markdown), ("tex", partial(table.latex, "ranks")), ("csv", table.csv)):
        folder.write(f"ranks.{ending}", render())
    picture = figures.critical_difference(across, folder.path / "figures")
    return f"<h2>across data sets</h2>\n{table.html()}\n{_image(picture)}"


def _image(path: Path) -> str:
    """An HTML image element of a figure, whatever characters the data set has in its name."""
    return f'<img src="{quote(f"figures/{path.name}", safe="/:")}" alt="{html.escape(f"figures/{path.name}")}">'


def _marked(table: Table, found: Sequence[Results]) -> Table:
    """The table with the banners of the data sets that its numbers are of."""
    return replace(table, caption=(table.caption + "".join(dict.fromkeys(map(banner, found)))).strip())


def _write(
    folder: RunFolder, name: str, by_dataset: dict[str, Table], printed: Callable[[Table], Table] = lambda table: table
) -> None:
    """One file per format; with several data sets, one section each, and a first column in CSV.

    Args:
        folder: of the run.
        name: of the files.
        by_dataset: a table of each data set.
        printed: what of a table is for LaTeX.
    """
    heads = [f"## {in_markdown(dataset)}\n\n" * (len(by_dataset) > 1) for dataset in by_dataset]
    sections = [head + table.markdown() for head, table in zip(heads, by_dataset.values(), strict=True)]
    folder.write(f"{name}.md", "\n".join(sections))
    labels = {dataset: f"{name}-{component(dataset)}" for dataset in by_dataset}
    folder.write(f"{name}.tex", "\n".join(printed(t).latex(labels[dataset]) for dataset, t in by_dataset.items()))
    rows = [{"dataset": dataset, **row} for dataset, table in by_dataset.items() for row in table.rows]
    columns = next(iter(by_dataset.values())).columns
    folder.write(f"{name}.csv", Table((Column("dataset", "Data set"), *columns), rows).csv())


def _page(
    found: Sequence[Results], made: dict[str, dict[str, Table]], drawn: dict[str, list[Path]], across: str
) -> str:
    suite = found[0].manifest["suite"]
    parts = [f"<p>{html.escape(suite['description'])}</p>", across]
    for results in found:
        parts.append(f"<h2>{html.escape(results.dataset)}</h2>")
        parts += [made[name][results.dataset].html() for name in ("leaderboard", "ledger")]
        parts += map(_image, drawn[results.dataset])
        for name in ("fits", "cold-items", "families", "significance", "conditions"):
            table = made[name][results.dataset].html()
            parts.append(f"<details><summary>{name}</summary>\n{table}</details>")
    return PAGE.format(title=f"promptrec-bench: {html.escape(suite['name'])}", body="\n".join(parts))
