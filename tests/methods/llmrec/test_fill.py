import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.protocol import Protocol, prepare
from data import recorded
from data.prompts import library
from methods.base import Compute, NotRunnable
from methods.llmrec.fill import main
from methods.llmrec.method import LlmRec
from tests.conftest import write_atomic
from tests.methods.lm.servers import FaultServer, completion

PROMPTS = 1 + len([template for template in library.templates("augment") if template.strategy != "original"])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    with FaultServer() as running:
        running.answer = lambda prompt: completion(f"Said of {prompt[-30:]}")
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        yield running


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    folder = write_atomic(tmp_path / "tiny", users=20, items=12)
    arguments = ["--dataset", str(folder), "--llm", "endpoint:m", "--cache-dir", str(tmp_path / "cache")]
    return [*arguments, "--min-count", "1", "--parallel", "2"]


def n_items(command: list[str]) -> int:
    return prepare(command[1], Protocol(negatives=1, min_count=1), {}).dataset.catalogue.n_items


def test_dry_run_counts_every_request_and_asks_nothing(
    command: list[str], server: FaultServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--dry-run", "--llm-budget", "usd-in=1,usd-out=1"]) == 0
    assert f"tiny: {n_items(command) * PROMPTS} requests (0 answers known)" in (shown := capsys.readouterr().out)
    assert "usd" in shown and server.prompts == []


def test_filled_answers_make_the_rows_run(
    command: list[str], server: FaultServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults = [completion("first description"), completion("")]
    assert main(command) == 0
    assert "1 unusable answers" in capsys.readouterr().out
    asked = len(server.prompts)
    assert main([*command, "--dry-run"]) == 0
    assert "tiny: 0 requests" in capsys.readouterr().out
    assert main(command) == 0 and len(server.prompts) == asked
    records = [json.loads(line) for line in (tmp_path / "cache/recorded/tiny.jsonl").read_text().splitlines()]
    assert len(records) == n_items(command) * PROMPTS
    problem = prepare(command[1], Protocol(negatives=2, min_count=1), {"augment": library.templates("augment")})
    method = LlmRec("rec-eng", epochs=1)
    assert method.fit(problem.task(Compute(cache=tmp_path / "cache")), seed=0).note == ""
    assert method.score(problem.test_requests()).shape == (20, 3)


def test_a_row_that_asked_an_endpoint_can_be_kept_without_its_key(
    command: list[str], server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-to-be-kept")
    problem = prepare(command[1], Protocol(negatives=2, min_count=1), {"augment": library.templates("augment")})
    method = LlmRec("basic-paraphrase", llm="endpoint:m", epochs=1)
    method.fit(problem.task(Compute(cache=tmp_path / "cache")), seed=0)
    kept, requests = pickle.dumps(method), problem.test_requests()
    assert b"not-to-be-kept" not in kept
    assert np.array_equal(pickle.loads(kept).score(requests), method.score(requests))


def test_answers_beside_those_of_the_suite_are_said_to_need_their_name(
    command: list[str],
    server: FaultServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main(command) == 0
    assert "--llm recorded:" not in capsys.readouterr().out
    monkeypatch.setattr(recorded, "path", lambda dataset: tmp_path / "shipped.jsonl")
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"tiny has recorded answers already, {tmp_path / 'shipped.jsonl'}" in said
    assert f"--llm recorded:{tmp_path / 'cache/recorded/tiny.jsonl'}\n" in said


def test_rows_with_other_neighbours_run_on_what_is_filled_as_their_message_says(
    command: list[str], server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(command) == 0
    problem = prepare(command[1], Protocol(negatives=2, min_count=1), {"augment": library.templates("augment")})
    task = problem.task(Compute(cache=tmp_path / "cache"))
    for settings, options in (
        ({"neighbours": 2}, "--neighbours 2"),
        (
            {"neighbours": 4, "neighbour_score": "ppr", "restart": 0.5},
            "--neighbours 4 --neighbour-score ppr --restart 0.5",
        ),
    ):
        row = LlmRec("eng", epochs=1, **settings)  # type: ignore[arg-type]
        with pytest.raises(NotRunnable, match=f"--llm endpoint:MODEL {options}, with the --split") as said:
            row.fit(task, seed=0)
        assert "--llm recorded:" not in str(said.value)
        assert main([*command, *options.split()]) == 0
        assert row.fit(task, seed=0).epochs == 1
    monkeypatch.setattr(recorded, "path", lambda dataset: tmp_path / "cache/recorded/tiny.jsonl")
    with pytest.raises(
        NotRunnable, match=rf"endpoint:MODEL, .*; tiny comes with answers.*recorded:{tmp_path}/cache/recorded/"
    ):
        LlmRec("eng").fit(task, seed=0)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--neighbours", "-1", "neighbours is at least 0, not -1"),
        ("--restart", "0", "restart is more than 0 and at most 1, not 0.0"),
        ("--neighbour-score", "rank", "invalid choice: 'rank'"),
    ],
)
def test_neighbours_that_make_no_sense_are_refused(
    command: list[str], option: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*command, option, value])
    assert said in capsys.readouterr().err


def test_a_spent_budget_stops_and_a_larger_one_goes_on(
    command: list[str], server: FaultServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--llm-budget", "requests=20"]) == 1
    assert "raise --llm-budget" in capsys.readouterr().err and len(server.prompts) == 20
    assert main(command) == 0
    assert len(server.prompts) == len(set(server.prompts))


def test_batches_take_two_rounds_descriptions_first(command: list[str], server: FaultServer, tmp_path: Path) -> None:
    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    counts = []
    for _ in range(3):
        assert main([*command, "--batch-export", str(requests)]) == 0
        lines = [json.loads(line) for line in requests.read_text().splitlines()]
        counts.append(len(lines))
        said = [completion(f"Batch {line['body']['messages'][0]['content'][-30:]}") for line in lines]
        results.write_text(
            "".join(
                json.dumps({"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}}) + "\n"
                for line, body in zip(lines, said, strict=True)
            )
        )
        assert main([*command, "--batch-import", str(results)]) == 0
    assert counts == [n_items(command), n_items(command) * (PROMPTS - 1), 0]
    assert main(command) == 0 and server.prompts == []


def test_errors_are_sentences(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--llm-budget", "request=2"]) == 1
    assert "did you mean 'requests'" in capsys.readouterr().err
    assert main([*command, "--parallel", "0"]) == 1
    assert "at least 1 request" in capsys.readouterr().err
    assert main([*command[:2], "--llm", "gpt"]) == 1
    assert "endpoint:MODEL" in capsys.readouterr().err
