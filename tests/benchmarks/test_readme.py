"""What the README says of the methods and of the paper is what the suite and the files hold."""

import re
from dataclasses import asdict

from benchmarks import suite
from benchmarks.protocol import Protocol
from benchmarks.report.leaderboard import LEADERBOARD, short
from benchmarks.report.readme import beside, impossible, published
from benchmarks.report.table import Table
from tests.conftest import ROOT

PAPER = published()
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_ordering_is_that_of_the_run():
    standings = [{"method": "sasrec", "unseen": 0.4}, {"method": "ganprompt", "unseen": 0.32}]
    text = beside([*standings, {"method": "llm-rank", "note": "not run: no model"}], PAPER)
    assert "The order here: sasrec > ganprompt." in text and "| 2 of 2 |" in text and "| +25.00 % |" in text
    assert "| not in this run |" in beside([{"method": m, "unseen": u} for m, u in (("a", 0.4), ("b", 0.3))], PAPER)


def test_the_readmes_leaderboard_has_few_columns_and_the_reasons_of_rows_without_numbers():
    row = {"unseen_low": 0.2, "unseen_high": 0.5, "clean": 0.4, "clean_low": 0.3, "clean_high": 0.5, "worst": 0.1}
    row |= {"drop": 0.0, "rbo": 1.0, "clean_auc": 0.9, "clean_hit@10": 0.5, "note": "many words"}
    rows = [{"method": "a", "unseen": 0.4, **row}, {"method": "b", "unseen": 0.3, **row}]
    text = short(Table(LEADERBOARD, rows, "Of 3 users. P(first): share of wins. Bold: best.")).markdown()
    assert "| **0.400 [0.200, 0.500]** |" in text and "many words" not in text
    assert text.endswith("\nOf 3 users. Bold: best.\n")
    text = short(Table(LEADERBOARD, [*rows, {"method": "c", "note": "not run: no model"}], "Of 3 users.")).markdown()
    assert text.splitlines()[0].endswith("| Note |") and "not run: no model" in text and "many words" not in text
    unreached = {"method": "d", **row, "unseen": 0.3, "drop": None, "rbo": None}
    text = short(Table(LEADERBOARD, [*rows, unreached, {**unreached, "clean": 0.3}], "Of 3 users.")).markdown()
    assert "| unseen templates change some fits |" in text and "| unseen templates change none of its scores |" in text
    nothing = {"method": "e", **row, "unseen": 0.3, "clean": 0.0, "drop": None}  # a drop from 0 there is none of
    assert "Note" not in short(Table(LEADERBOARD, [*rows, nothing], "Of 3 users.")).markdown()


def test_first_places_are_those_of_the_papers_figures():
    standings = [{"method": "sasrec", "unseen": 0.4}, {"method": "ganprompt", "unseen": 0.32}]
    hits = {**PAPER["hit_1"], "Toys": {"ganprompt": 0.1, "other": 0.128, "improvement": -21.88}}
    text = beside(standings, {**PAPER, "hit_1": hits})
    assert "| GANPrompt on Beauty, Sports |" in text and "| 1 on 2 of 3 data sets |" in text


def test_quoted_bounds_say_what_they_rest_on():
    lines = impossible(PAPER).splitlines()[2:]
    assert [("quoted" in line) for line in lines] == ["missing" in figure for figure in PAPER["impossible"]]


def test_every_column_of_the_leaderboard_is_explained():
    section = README.partition("## What is measured")[2].partition("\n## ")[0]
    heads = {title for row in section.splitlines() for title in row.split("|")[1:2] for title in title.split(",")}
    titles = {column.title for column in LEADERBOARD if not column.detail and column.key != "method"}
    assert not titles.difference(map(str.strip, heads))
    assert all(f"`{column.key}`" in section for column in LEADERBOARD if column.detail)


def test_suite_holds_every_baseline_of_the_readme():
    section = README.partition("## Methods")[2].partition("\n## ")[0]
    named = [re.findall(r"`([^`]+)`", row.split("|")[1]) for row in section.splitlines() if row.startswith("| `")]
    rows = {name for names in named for name in names if "/" not in name}
    assert rows - {"llm-rank"} == set(suite.load("robustness").methods)  # that one needs a model from elsewhere


def test_table_of_suite_keys_has_every_key_with_its_default():
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Write a suite")[2]
    rows = re.findall(r"^\| `([\w.]+)` \|.*\| (.*?) ?\|$", section.partition("\n## ")[0], re.MULTILINE)
    default = suite.Suite(name="x", methods=("random",)).model_dump(mode="json", exclude={"protocol", "statistics"})
    default |= {f"protocol.{key}": value for key, value in asdict(Protocol()).items()}
    default |= {f"statistics.{key}": value for key, value in suite.Statistics().model_dump().items()}
    keys = {"conditions": "conditions.FAMILY", "settings": "settings.METHOD"}
    assert sorted(key for key, _ in rows) == sorted(keys.get(key, key) for key in default)
    written = {key: suite.typed(text.strip("`")) for key, text in rows if text.startswith("`")}
    assert written == {key: default[key] for key in written} and len(written) == 13
