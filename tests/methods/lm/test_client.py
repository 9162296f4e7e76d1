import json
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from methods.base import Compute
from methods.lm.answers import Generation, LlmError
from methods.lm.batch import export_batch, import_batch
from methods.lm.budget import BudgetSpent, LlmBudget, Meter
from methods.lm.client import LlmClient, NotAnswered
from methods.lm.endpoint import Endpoint
from methods.lm.open import LlmChoice, open_client
from methods.lm.recorded import Recorded
from methods.lm.store import Store
from tests.methods.lm.servers import FaultServer, completion

SECRET = "sk-very-secret-0123456789"
PROMPTS = [f"prompt {n}" for n in range(6)]
ANSWERS = [f"Answer to prompt {n}" for n in range(6)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    with FaultServer() as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        yield running


def client(
    tmp_path: Path, budget: str = "", run: str = "", retries: int = 4, parallel: int = 2, timeout: float = 30.0
) -> LlmClient:
    backend = Endpoint("m", parallel=parallel, retries=retries, timeout=timeout)
    return LlmClient(backend, cache=tmp_path / "answers.sqlite", budget=LlmBudget.parse(budget), run=run)


def test_answers_come_in_the_order_of_the_prompts_and_are_asked_once(tmp_path: Path, server: FaultServer) -> None:
    doubled = [*PROMPTS, *PROMPTS]
    assert client(tmp_path).ask(doubled) == [*ANSWERS, *ANSWERS]
    assert client(tmp_path).ask(PROMPTS) == ANSWERS
    assert sorted(server.prompts) == PROMPTS


def test_another_model_or_other_arguments_are_asked_anew(tmp_path: Path, server: FaultServer) -> None:
    first = client(tmp_path)
    first.ask(["p"])
    LlmClient(Endpoint("other"), cache=first.cache).ask(["p"])
    LlmClient(Endpoint("m"), cache=first.cache, generation=Generation(max_tokens=7)).ask(["p"])
    assert server.prompts == ["p", "p", "p"]


@pytest.mark.parametrize("message", ["text", ["text"], None])
def test_a_message_that_is_no_object_is_tried_again(tmp_path: Path, server: FaultServer, message: object) -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    server.faults = [completion("") | {"choices": [choice]}]
    assert client(tmp_path).ask(["p"]) == ["Answer to p"]


@pytest.mark.parametrize("usage", [None, "unknown", {}, {"prompt_tokens": None}])
def test_tokens_that_are_not_counted_are_estimated(tmp_path: Path, server: FaultServer, usage: object) -> None:
    server.answer = lambda prompt: completion("Yes.") | {"usage": usage}
    client(tmp_path, run="run").ask(["p" * 400])
    spent = Meter(LlmBudget(), tmp_path / "spent.sqlite", "run").spent
    assert (spent.tokens_in, spent.tokens_out) == (101, 2)


@pytest.mark.parametrize("fault", ["500", "malformed", "html", "no choice", "slow", "cut-off"])
def test_a_fault_is_tried_again(tmp_path: Path, server: FaultServer, fault: str) -> None:
    server.faults = [fault]
    timeout = 0.5 if fault == "slow" else 30.0
    assert client(tmp_path, run="r", timeout=timeout).ask(["p"]) == ["Answer to p"]
    assert server.prompts == ["p", "p"]


def test_retry_after_is_respected(tmp_path: Path, server: FaultServer) -> None:
    server.faults = ["429"]
    assert client(tmp_path).ask(["p"]) == ["Answer to p"]
    assert server.times[1] - server.times[0] >= 1.0


def test_requests_under_way_reach_the_limit_and_never_pass_it(tmp_path: Path, server: FaultServer) -> None:
    server.pause = 0.2
    client(tmp_path, parallel=3).ask([f"p{n}" for n in range(12)])
    assert server.most_at_once == 3


def test_a_lasting_fault_stops_with_what_to_do_and_the_rest_is_asked_later(tmp_path: Path, server: FaultServer) -> None:
    server.faults = [completion("first"), "500", "500"]
    with pytest.raises(LlmError, match="run the same command again"):
        client(tmp_path, retries=1, parallel=1).ask(PROMPTS)
    asked_before = len(server.prompts)
    assert client(tmp_path).ask(PROMPTS) == ["first", *ANSWERS[1:]]
    assert sorted(server.prompts[asked_before:]) == PROMPTS[1:]


def test_malformed_answers_stop_in_the_end(tmp_path: Path, server: FaultServer) -> None:
    server.faults = ["malformed"] * 2
    with pytest.raises(LlmError, match="no valid chat completions, 2 times"):
        client(tmp_path, retries=1).ask(["p"])


@pytest.mark.parametrize(("fault", "words"), [("401", "OPENAI_API_KEY"), ("404", "no model 'm'")])
def test_what_cannot_succeed_is_not_tried_again(tmp_path: Path, server: FaultServer, fault: str, words: str) -> None:
    server.faults = [fault] * 9
    with pytest.raises(LlmError, match=words):
        client(tmp_path).ask(["p"])
    assert len(server.prompts) == 1


def test_key_and_url_are_neither_shown_nor_logged_nor_stored(
    tmp_path: Path, server: FaultServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    server.faults = ["500"] * 2
    with pytest.raises(LlmError) as failure:
        client(tmp_path, retries=1).ask(["p"])
    asked = client(tmp_path)
    asked.ask(["q"])
    assert any(SECRET in header.get("authorization", "") for header in server.headers)
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir()) + pickle.dumps(asked)
    shown = str(failure.value) + repr(failure.value.__cause__) + caplog.text + "".join(capfd.readouterr())
    for secret in (SECRET, server.url):
        assert secret not in shown
        assert secret.encode() not in files


def test_no_endpoint_is_said_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(LlmError, match="OPENAI_BASE_URL"):
        client(tmp_path).ask(["p"])


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (completion(""), "empty"),
        (completion("I'm sorry, but I can't help."), "refused"),
        (completion(None, refusal="No."), "refused"),
        ("400", "refused"),
        (completion("A film that", "length"), "truncated"),
        (completion("..."), "non-text"),
        (completion(None, "tool_calls"), "non-text"),
    ],
)
def test_an_unusable_answer_is_asked_once_more(tmp_path: Path, server: FaultServer, bad: object, problem: str) -> None:
    server.faults = [bad]  # type: ignore[list-item]
    asked = client(tmp_path)
    assert asked.ask(["p"]) == ["Answer to p"]
    assert [(entry.prompt, entry.attempt, entry.problem) for entry in asked.ledger] == [("p", 1, problem)]


def test_parameters_that_a_model_refuses_are_left_out_or_go_by_another_name(
    tmp_path: Path, server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.refuses = {"max_tokens", "temperature"}
    assert client(tmp_path, parallel=1).ask(PROMPTS) == ANSWERS
    assert len(server.bodies) == len(PROMPTS) + 2
    assert server.bodies[-1].keys() == {"model", "messages", "max_completion_tokens", "seed"}
    assert server.bodies[-1]["max_completion_tokens"] == server.bodies[0]["max_tokens"]
    assert [record.getMessage() for record in caplog.records] == [
        "m does not take max_tokens: asked with max_completion_tokens instead",
        "m does not take temperature: asked with what it takes by default instead",
    ]


def test_another_parameter_that_is_refused_is_named(tmp_path: Path, server: FaultServer) -> None:
    server.refuses = {"max_tokens", "max_completion_tokens"}
    with pytest.raises(LlmError, match="max_completion_tokens is not supported"):
        client(tmp_path, parallel=1).ask(["p"])


def test_after_two_unusable_answers_there_is_none_and_the_ledger_survives(tmp_path: Path, server: FaultServer) -> None:
    server.faults = [completion(""), completion("I cannot help you.")]
    for _ in range(2):
        asked = client(tmp_path)
        assert asked.ask(["p"]) == [None]
        assert [(entry.attempt, entry.problem) for entry in asked.ledger] == [(1, "empty"), (2, "refused")]
    assert server.prompts == ["p", "p"]


def test_request_cap_counts_attempts_and_is_never_passed(tmp_path: Path, server: FaultServer) -> None:
    server.faults = ["500"]
    with pytest.raises(BudgetSpent, match="cap of 4"):
        client(tmp_path, "requests=4", "run").ask(PROMPTS)
    assert len(server.prompts) <= 4
    assert client(tmp_path, "requests=100", "run").ask(PROMPTS) == ANSWERS
    assert len(server.prompts) == len(PROMPTS) + 1


def test_requests_before_a_refusal_count(tmp_path: Path, server: FaultServer) -> None:
    server.faults = ["500", "400", "500", "400"]
    with pytest.raises(BudgetSpent, match="cap of 4"):
        client(tmp_path, "requests=4", "run", parallel=1).ask(PROMPTS)
    assert len(server.prompts) == 4


def test_a_client_alone_keeps_its_cap_over_all_it_asks(tmp_path: Path, server: FaultServer) -> None:
    server.faults = [completion("")] * 4
    alone = client(tmp_path, "requests=4")
    for prompts in (PROMPTS[:4], PROMPTS):
        with pytest.raises(BudgetSpent, match="cap of 4"):
            alone.ask(prompts)
    assert len(server.prompts) == 4
    assert client(tmp_path, "requests=9").ask(PROMPTS[4:]) == ANSWERS[4:]


def test_a_fault_with_one_request_left_is_not_tried_again(tmp_path: Path, server: FaultServer) -> None:
    server.faults = ["500"]
    with pytest.raises(LlmError):
        client(tmp_path, "requests=1").ask(["p"])
    assert len(server.prompts) == 1


@pytest.mark.parametrize("budget", ["tokens=600", "usd=0.00066,usd-in=1,usd-out=1"])
def test_token_and_money_caps_hold_before_asking(tmp_path: Path, server: FaultServer, budget: str) -> None:
    # a request is set aside with 36 + 200 tokens and settled at 15: of 600 the 25th finds too few left
    with pytest.raises(BudgetSpent):
        client(tmp_path, budget, parallel=1).ask([f"p{n:02}" for n in range(60)])
    assert 20 < len(server.prompts) < 35


def test_clients_of_one_run_share_its_caps(tmp_path: Path, server: FaultServer) -> None:
    client(tmp_path, "requests=4", "run").ask(PROMPTS[:3])
    with pytest.raises(BudgetSpent):
        client(tmp_path, "requests=4", "run").ask(PROMPTS)
    assert len(server.prompts) == 4
    assert client(tmp_path, "requests=4", "another").ask(PROMPTS[4:]) == ANSWERS[4:]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("request=3", "did you mean 'requests'"),
        ("tokens=many", "not a number"),
        ("tokens=-1", "not a number"),
        ("tokens=1,tokens=2", "twice"),
        ("usd=5", "prices"),
    ],
)
def test_a_wrong_budget_is_refused(text: str, words: str) -> None:
    with pytest.raises(LlmError, match=words):
        LlmBudget.parse(text)


def test_estimate_counts_and_asks_nothing(tmp_path: Path, server: FaultServer) -> None:
    assert client(tmp_path).estimate(PROMPTS).cost.requests == len(set(PROMPTS)) and not list(tmp_path.iterdir())
    client(tmp_path).ask(PROMPTS[:2])
    estimate = client(tmp_path, "usd-in=1,usd-out=2").estimate([*PROMPTS, *PROMPTS])
    assert estimate.cost.requests == 4 and estimate.cost.tokens_out == 800
    assert estimate.usd == pytest.approx((estimate.cost.tokens_in + 2 * 800) / 1e6)
    assert len(server.prompts) == 2
    assert "4 requests" in str(estimate)


def test_recorded_answers_come_first_and_the_item_decides_between_equal_prompts(tmp_path: Path) -> None:
    import hashlib

    digest = hashlib.sha256(b"p").hexdigest()
    file = tmp_path / "recorded.jsonl"
    lines = [{"item_id": item, "request_sha256": digest, "response": f"Text of {item}"} for item in ("1", "2")]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = LlmClient(recorded=Recorded.read(file))
    assert asked.ask(["p", "p", "p"], ["2", "1", "3"]) == ["Text of 2", "Text of 1", "Text of 1"]
    with pytest.raises(NotAnswered, match="no answer is known to 1 prompts"):
        asked.ask(["p", "q"])
    for wrong in ({"item_id": "1"}, lines[0] | {"item_id": 1}, lines[0] | {"response": None}):
        file.write_text(json.dumps(wrong) + "\n")
        with pytest.raises(LlmError, match=r"recorded\.jsonl:1"):
            Recorded.read(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(LlmError, match=r"recorded\.jsonl: recorded answers cannot be read"):
        Recorded.read(file)


@pytest.mark.parametrize("llm", ["gpt", "endpoint:", "recorded:/no/such/file", "recorded"])
def test_an_unknown_model_choice_is_refused(tmp_path: Path, llm: str) -> None:
    with pytest.raises(LlmError):
        open_client(LlmChoice(llm), "no-data-set", Compute(cache=tmp_path))


@pytest.mark.parametrize(("llm", "model"), [("endpoint:m", "m"), ("local:m", "m in bfloat16 on cuda")])
def test_answers_are_filed_under_what_they_depend_on(tmp_path: Path, llm: str, model: str) -> None:
    asked = open_client(LlmChoice(llm), "d", Compute(device="cuda:1", dtype="bfloat16", cache=tmp_path))
    assert asked.backend is not None and asked.backend.model == model


@pytest.mark.parametrize("torn", ['{"custom_id": "to', '{"text": "é'], ids=["text", "character"])
def test_batch_export_and_import_take_the_place_of_asking(tmp_path: Path, server: FaultServer, torn: str) -> None:
    asked = client(tmp_path)
    asked.ask(PROMPTS[:1])
    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    assert export_batch(asked, PROMPTS, requests) == 5
    lines = [json.loads(line) for line in requests.read_text().splitlines()]
    assert {line["url"] for line in lines} == {"/v1/chat/completions"} and lines[0]["body"]["model"] == "m"
    answered = [
        {"custom_id": line["custom_id"], "error": None, "response": {"status_code": 200, "body": completion("Batch.")}}
        for line in lines
    ]
    answered[0]["response"]["body"] = completion("")
    answered[1] = {"custom_id": "x", "error": {"code": "batch_expired"}, "response": None}
    results.write_bytes("\n".join([*map(json.dumps, answered), torn]).encode()[:-1])
    imported = import_batch(asked, results)
    assert imported.answers == 4
    assert imported.failed == {"batch_expired": 1, "torn line": 1}
    assert export_batch(asked, PROMPTS, requests) == 2  # the empty one once more, the expired one
    assert asked.ask(PROMPTS) == [ANSWERS[0], ANSWERS[1], ANSWERS[2], "Batch.", "Batch.", "Batch."]
    assert len(server.prompts) == 3


@pytest.mark.parametrize("line", ["[]", '{"response": null}', '{"response": {"status_code": 200, "body": "no"}}'])
def test_a_line_that_is_no_batch_result_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text(f"{line}\n")
    with pytest.raises(LlmError, match=r"results\.jsonl:1: not a result"):
        import_batch(client(tmp_path), file)


def fill_store(path: Path, start: int, ready: Barrier) -> None:
    ready.wait()
    store = Store(path)
    for n in range(start, start + 200):
        store.put({f"k{n}": f"{start} {n}".encode()})


def test_two_processes_write_one_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path, ready = tmp_path / "s.sqlite", context.Barrier(2, timeout=60)
    writers = [context.Process(target=fill_store, args=(path, start, ready)) for start in (0, 100)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(Store(path).get(f"k{n}" for n in range(300))) == 300


def open_stores(folder: Path, ready: Barrier) -> None:
    for n in range(20):
        ready.wait()
        Store(folder / f"{n}.sqlite")
        Meter(LlmBudget(), folder / f"spent{n}.sqlite", "run")


def test_processes_that_start_together_open_one_new_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(3, timeout=60)
    others = [context.Process(target=open_stores, args=(tmp_path, ready)) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0, 0]


def test_a_torn_last_record_is_dropped_and_asked_again(tmp_path: Path, server: FaultServer) -> None:
    script = (
        "import os, sys; from pathlib import Path; from methods.lm.answers import Answer, Generation, key;"
        "from methods.lm.store import Store; store = Store(Path(sys.argv[1]));"
        "value = Answer('Answer to prompt 0').to_json().encode();"
        "[store.put({key('m', f'prompt {n}', Generation()): value}) for n in (0, 1)]; os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "answers.sqlite"
    subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=60)
    journal = path.with_name(path.name + "-wal")
    torn = journal.read_bytes()[:-1000]
    path.with_name(path.name + "-shm").unlink()
    journal.write_bytes(torn)
    assert client(tmp_path).ask(PROMPTS[:2]) == ANSWERS[:2]
    assert server.prompts == ["prompt 1"]


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, server: FaultServer) -> None:
    server.pause = 0.1
    script = (
        "import sys; from pathlib import Path; from methods.lm.client import LlmClient;"
        "from methods.lm.endpoint import Endpoint; c = LlmClient(Endpoint('m', parallel=1), cache=Path(sys.argv[1]));"
        "c.ask([f'prompt {n}' for n in range(6)])"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "answers.sqlite")])
    deadline = time.monotonic() + 60
    while len(server.prompts) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.2)
    before = len(server.prompts)
    assert client(tmp_path).ask(PROMPTS) == ANSWERS
    assert len(server.prompts) - before <= len(PROMPTS) - 3
