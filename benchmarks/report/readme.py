"""Take the README's numbers from the reference run: ``python -m benchmarks.report.readme``."""

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from benchmarks.report.leaderboard import LEADERBOARD, short
from benchmarks.report.table import Table

RUN = Path("results", "reference", "unseen")
DATASET = "ml-100k"


def with_section(readme: str, name: str, text: str) -> str:
    r"""The README with the text between the two markers of a section replaced.

    Raises:
        ValueError: if the README lacks a marker.

    >>> with_section("a <!-- rows -->old<!-- /rows --> b", "rows", "new")
    'a <!-- rows -->\nnew\n<!-- /rows --> b'
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, opened, rest = readme.partition(start)
    _, closed, after = rest.partition(end)
    if not (opened and closed):
        raise ValueError(f"the README needs the markers {start} and {end}")
    return f"{before}{start}\n{text.strip()}\n{end}{after}"


def filled(readme: str, run: Path) -> str:
    """The README with the numbers of a run folder."""
    caption = (run / "leaderboard.md").read_text(encoding="utf-8").strip().rpartition("\n")[2]
    standings = json.loads((run / "leaderboard.json").read_text(encoding="utf-8"))[DATASET]
    readme = with_section(readme, "leaderboard", short(Table(LEADERBOARD, standings, caption)).markdown())
    return with_section(readme, "beside the paper", f"{beside(standings, published())}\n\n{impossible(published())}")


def published() -> dict[str, Any]:
    """The figures of the GANPrompt paper."""
    path = resources.files("benchmarks") / "published" / "ganprompt.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def beside(standings: list[dict[str, Any]], paper: dict[str, Any]) -> str:
    """Who is first, and by how much, in the paper and in a leaderboard; Markdown."""
    ranked = [row for row in standings if row.get("unseen") is not None]
    order = [row["method"] for row in ranked]
    place = f"{order.index('ganprompt') + 1} of {len(order)}" if "ganprompt" in order else "not in this run"
    lead = 100 * (ranked[0]["unseen"] / ranked[1]["unseen"] - 1)
    leads = ", ".join(f"{dataset} {row['improvement']:+g} %" for dataset, row in paper["hit_1"].items())
    ahead = [dataset for dataset, row in paper["hit_1"].items() if row["ganprompt"] > row["other"]]
    lines = [
        ("", paper["paper"], "this suite"),
        ("---", "---", "---"),
        ("Data", ", ".join(paper["users"]), DATASET),
        ("By", "hit@1, prompts as trained", "ndcg@10, mean over unseen prompts"),
        ("First", f"GANPrompt on {', '.join(ahead)}", order[0]),
        ("Ahead of the next", leads, f"{lead:+.2f} %"),
        ("GANPrompt's place", f"1 on {len(ahead)} of {len(paper['hit_1'])} data sets", place),
    ]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", f"The order here: {' > '.join(order)}."])


def impossible(paper: dict[str, Any]) -> str:
    """The paper's figures that cannot be right, and why; Markdown."""
    lines = ["| Data set | Row | Printed | Possible | Why |", "| --- | --- | --- | --- | --- |"]
    for figure in paper["impossible"]:
        limit = f"at most {figure['most']}" if "most" in figure else f"at least {figure['least']}"
        printed = f"{figure['metric']} = {figure['printed']}"
        quoted = f" (quoted: rests on the row's {figure['missing']})" if "missing" in figure else ""
        lines.append(f"| {figure['dataset']} | {figure['row']} | {printed} | {limit} | {figure['why']}{quoted} |")
    return "\n".join(lines)


def main(root: Path = Path()) -> None:
    """Rewrite README.md below ``root``."""
    readme = root / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8"), root / RUN), encoding="utf-8")


if __name__ == "__main__":
    main()
