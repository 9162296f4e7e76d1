import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from benchmarks.report.leaderboard import leaderboard
from benchmarks.report.results import load
from benchmarks.store import RunFolder
from data.prompts import library
from data.prompts.template import ListStyle, Template
from methods.base import NotRunnable, Requests, Task
from methods.llmrank import ListLedger, LlmRank, read_ranking
from methods.registry import MethodError, create
from tests.methods.lm.servers import FaultServer, completion
from tests.methods.lm.small import make_task

SEEN = tuple(template for template in library.templates("rank") if template.family == "seen")
TITLES = ["Alien", "Brazil", "2001: A Space Odyssey", "M"]


@pytest.mark.parametrize(
    ("answer", "expected", "faults"),
    [
        ("4, 2, 1, 3", [3, 1, 0, 2], (0, 0, 0)),
        ("4\n2\n1\n3", [3, 1, 0, 2], (0, 0, 0)),
        ("[4>2>1>3]", [3, 1, 0, 2], (0, 0, 0)),
        ("1. Brazil\n2. Alien\n3. M\n4. 2001: A Space Odyssey", [1, 0, 3, 2], (0, 0, 0)),
        ("- brazil\n- ALIEN.", [1, 0], (0, 0, 2)),
        ("2, 2, 17, 0", [1], (2, 1, 3)),
        ("**4**, **2**, `1`, 3", [3, 1, 0, 2], (0, 0, 0)),
        ("4, 2, 1, 3\n\nI put M first.", [3, 1, 0, 2], (1, 0, 0)),
        ("Here is the ranking: 4, 2, 1, 3", [3, 1, 0, 2], (0, 0, 0)),
        ("02, " + 5000 * "1", [1], (1, 0, 3)),
        ("1. Jaws\n2. Alien", [0], (1, 0, 3)),
        ("", [], (0, 0, 4)),
    ],
)
def test_answers_are_read_and_their_faults_counted(
    answer: str, expected: list[int], faults: tuple[int, int, int]
) -> None:
    ledger = ListLedger()
    assert read_ranking(answer, TITLES, ledger).tolist() == expected
    assert (ledger.out_of_catalogue, ledger.duplicates, ledger.missing) == faults
    said = f"answers leave out {100 * faults[2] / len(TITLES):.3g} % of the candidates, which share the last place"
    assert ledger.note == (said if faults[2] else "")


def test_numbers_are_those_of_the_candidates_though_a_title_is_a_number() -> None:
    titles = ["Alien", "Brazil", "1", "300"]
    ledger = ListLedger()
    assert read_ranking("3, 1, 2, 300", titles, ledger).tolist() == [2, 0, 1, 3]
    assert read_ranking("1. 300\n2. Alien\n3. 1\n4. Brazil", titles, ledger).tolist() == [3, 0, 2, 1]
    assert read_ranking("So: 300, 3, 1, 2\nEnd", titles, ListLedger()).tolist() == [3, 2, 0, 1]
    assert read_ranking("300\nBrazil\n1\nAlien", titles, ledger).tolist() == [3, 1, 2, 0]
    assert (ledger.out_of_catalogue, ledger.duplicates, ledger.missing) == (0, 0, 0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    with FaultServer() as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        yield running


@pytest.fixture
def task(tmp_path: Path) -> Task:
    own = make_task(tmp_path, users=8)
    worded = {"rank": tuple(SEEN[user % len(SEEN)] for user in range(8))}
    return replace(own, valid=replace(own.valid, templates=worded), templates={"rank": SEEN})


def alphabetical(prompt: str) -> dict[str, object]:
    """An assistant that ranks by title."""
    numbered = re.findall(r"^(\d+)\. (.+)$", prompt, re.MULTILINE)
    return completion(", ".join(number for number, _ in sorted(numbered, key=lambda pair: pair[1])))


def test_scores_follow_the_answer_whatever_the_order_shown(task: Task, server: FaultServer) -> None:
    server.answer = alphabetical
    forward, reverse = (
        create("llm-rank", {"llm": "endpoint:m"}),
        create("llm-rank", {"llm": "endpoint:m", "reverse": True}),
    )
    for method in (forward, reverse):
        method.fit(task, seed=0)
        scores = method.score(task.valid)
        for row, candidates in enumerate(task.valid.candidates):
            best_first = candidates[np.argsort(-scores[row])]
            titles = [task.catalogue.titles[item] for item in best_first.tolist()]
            assert titles == sorted(titles)
    assert len(set(server.prompts)) == 16


def test_reversed_shows_the_same_list_backwards_and_columns_tell_nothing(task: Task) -> None:
    forward, reverse = LlmRank("endpoint:m"), LlmRank("endpoint:m", reverse=True)
    forward.fit(task, 0)
    reverse.fit(task, 0)
    assert np.array_equal(forward._order(task.valid, 3)[::-1], reverse._order(task.valid, 3))
    swapped = replace(task.valid, candidates=task.valid.candidates[:, ::-1])
    shown = task.valid.candidates[3][forward._order(task.valid, 3)]
    assert np.array_equal(shown, swapped.candidates[3][forward._order(swapped, 3)])


def test_candidates_left_out_share_the_last_place(task: Task, server: FaultServer) -> None:
    server.answer = lambda prompt: completion("2, 1, 77")
    method = LlmRank("endpoint:m")
    method.fit(task, 0)
    scores = method.score(task.valid)
    assert sorted(scores[0].tolist(), reverse=True) == [0, -1, -6, -6, -6, -6]
    assert (method.ledger.lists, method.ledger.out_of_catalogue, method.ledger.missing) == (8, 8, 32)
    assert method.flags == ["out_of_catalogue=1 missing=4"] * 8


@pytest.mark.parametrize("template", library.templates("rank"), ids=lambda template: template.id)
def test_every_wording_shows_all_candidates_by_their_numbers(task: Task, template: Template) -> None:
    method = LlmRank("endpoint:m")
    method.fit(task, 0)
    shown = task.valid.select(np.array([3]))
    numbered = [f"{n}. {title}" for n, title in enumerate(_titles(method, shown), start=1)]
    styled = replace(template, style=ListStyle(separator=" | "))
    for one in (template, styled):
        asked = replace(shown, templates={"rank": (one,)})
        prompt = method._prompt(asked, 0, method._order(asked, 0))
        assert "\n".join(["", *numbered, ""]) in prompt
        assert one.style.join(shown.catalogue.named(shown.histories[0])) in prompt


def _titles(method: LlmRank, shown: Requests) -> list[str]:
    return shown.catalogue.named(shown.candidates[0, method._order(shown, 0)])


def test_unseen_wordings_reach_it_and_what_they_cost_is_in_the_table(
    suite_file: Path, tmp_path: Path, run_suite: Callable[..., CompletedProcess[str]], server: FaultServer
) -> None:
    server.answer = lambda prompt: completion("1") if "annotators" in prompt else alphabetical(prompt)
    llm = ("--llm", "endpoint:m", "--cache-dir", tmp_path)
    dry = run_suite("--suite", suite_file, "--methods", "llm-rank", *llm, "--output-dir", tmp_path / "r", "--dry-run")
    assert not server.prompts and " requests" in dry.stdout
    answer = run_suite("--suite", suite_file, "--methods", "llm-rank", *llm, "--output-dir", tmp_path / "r")
    assert answer.returncode == 0, answer.stderr
    (results,) = load(RunFolder(tmp_path / "r"))
    (row,) = leaderboard(results).rows
    assert row["worst_template"] == "unseen/recommend-unseen-09" and row["worst"] < row["clean"]
    assert row["drop"] == pytest.approx(1 - row["unseen"] / row["clean"], abs=1e-4) and row["rbo"] < 1
    means = results.values("ndcg@10")[0].mean(axis=(1, 2))
    assert np.delete(means[results.unseen], 8) == pytest.approx(means[0])
    (records,) = (tmp_path / "r").rglob("records.csv")
    with records.open(newline="") as file:
        found = {(record["template"], record["flags"]) for record in csv.DictReader(file)}
    assert ("rank-unseen-09", "missing=20") in found and ("rank-unseen-08", "") in found


def test_without_a_language_model_it_is_not_run(task: Task) -> None:
    with pytest.raises(NotRunnable, match="endpoint:MODEL"):
        create("llm-rank").fit(task, 0)


def test_without_a_wording_it_is_not_run(task: Task) -> None:
    with pytest.raises(NotRunnable, match="llm-rank needs seen templates of role 'rank'"):
        create("llm-rank", {"llm": "endpoint:m"}).fit(replace(task, templates={}), 0)


def test_an_answer_of_no_length_is_refused() -> None:
    with pytest.raises(MethodError, match="max_tokens is at least 1, not 0"):
        create("llm-rank", {"max_tokens": 0})


def test_the_ledger_is_no_setting() -> None:
    with pytest.raises(MethodError, match="no setting 'ledger'"):
        create("llm-rank", {"ledger": 3})


def test_a_run_in_which_nothing_could_run_does_not_end_well(suite_file: Path, tmp_path: Path, run_suite) -> None:
    answer = run_suite("--suite", suite_file, "--methods", "llm-rank", "--output-dir", tmp_path / "r")
    assert answer.returncode == 1 and "not run: no language model to ask: give --llm endpoint:MODEL" in answer.stdout
