"""The speed comparison compares like with like."""

import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from benchmarks import throughput
from benchmarks.random_models import tiny_llama
from benchmarks.throughput import (
    CASES,
    HEAD,
    Case,
    Effort,
    Row,
    each,
    harness,
    line,
    main,
    matrix_rate,
    measure,
    sharing,
)
from data.prompts.template import Template, parse
from tests.methods.lm.small import make_task

SMALL = (*(case for case in CASES if not case.large), Case("tokenised as large ones", tiny_llama, large=True))


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_all_ways_score_the_same_prompts(tmp_path, case, monkeypatch):
    monkeypatch.setattr(throughput, "harness_installed", lambda: False)
    requests = make_task(tmp_path, users=5).valid
    row = measure(case, requests, Effort(3, 2, 2), "cpu", torch.float32, 1e9)
    assert min(row.own, row.plain, row.share) > 0
    assert math.isnan(row.harness)
    assert row.difference < 1e-4 or (case.form == "decoded_odds" and math.isnan(row.difference))
    assert line(row).count("|") == HEAD.splitlines()[0].count("|")


def test_templates_that_name_the_target_first_share_nothing():
    def rows(*sources):
        made = tuple(Template(str(n), "recommend", "seen", parse(source)) for n, source in enumerate(sources))
        return SimpleNamespace(templates={"recommend": made}, select=lambda rows: rows.tolist())

    assert sharing(rows("{history}, then {target}?", "{target} after {history}?", "Is {history} {target}")) == [0, 2]


def test_every_template_has_the_same_number_of_users():
    templates = tuple(Template(name, "recommend", "seen", ()) for name in "aabacb")
    requests = SimpleNamespace(templates={"recommend": templates}, select=lambda rows: rows.tolist())
    assert each(requests, 2) == [0, 1, 2, 4, 5]


def test_without_the_harness_its_column_is_empty(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert not throughput.harness_installed()
    with pytest.raises(ImportError):
        harness(None, None, [], [])


def test_matrix_rate_is_a_rate():
    assert matrix_rate("cpu", torch.float32) > 1e6


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
        (["--device", "nope"], "no device 'nope'"),
        (["--device", "cuda"], "sees no GPU here"),
        (["--device", "cuda:2"], "device 'cuda:2': the last GPU that torch sees here is cuda:1"),
        (["--users", "0"], "--users: at least 1 is needed, not 0"),
        (["--threads", "-1"], "--threads: at least 1 is needed, not -1"),
    ],
)
def test_types_and_devices_that_are_not_there_are_refused(capsys, monkeypatch, arguments, sentence):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda:2" in arguments)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SystemExit):
        main(arguments)
    assert sentence in capsys.readouterr().err


def test_a_gpu_is_waited_for_and_given_more_to_do_in_whole_turns(monkeypatch):
    waited, efforts = [], []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    throughput._timed(lambda: None, "cuda:1")
    assert waited == ["cuda:1", "cuda:1"]
    monkeypatch.setattr(throughput, "choose_device", str)
    monkeypatch.setattr(throughput, "matrix_rate", lambda *_: 1e9)
    monkeypatch.setattr(throughput, "problem_requests", lambda: None)
    monkeypatch.setattr(throughput, "line", lambda _: "")
    monkeypatch.setattr(torch.cuda, "get_device_name", str)
    monkeypatch.setattr(throughput, "measure", lambda case, requests, effort, *_: efforts.append(effort))
    main(["--device", "cuda:1", "--users", "30", "--large"])
    assert efforts == [replace(throughput.GPU, users=30)] * len(CASES)


def test_what_is_measured_is_shown_before_a_later_case_fails(monkeypatch, capsys):
    def measured(case, *_):
        if case.large:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Row(case.name, 3.0, 2.0, 1.0, 0.5, 0.0)

    monkeypatch.setattr(throughput, "matrix_rate", lambda *_: 1e9)
    monkeypatch.setattr(throughput, "problem_requests", lambda: None)
    monkeypatch.setattr(throughput, "measure", measured)
    with pytest.raises(torch.OutOfMemoryError):
        main(["--large"])
    shown = capsys.readouterr().out
    assert all(f"| {case.name} | 3 | 2 | 1.5 |" in shown for case in CASES if not case.large)


def test_a_warm_turn_is_a_whole_one(tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "harness_installed", lambda: False)
    asked, plain = [], throughput.plain_loop
    monkeypatch.setattr(throughput, "plain_loop", lambda *given: asked.append(len(given[2])) or plain(*given))
    monkeypatch.setattr(throughput, "BATCH", 2)
    requests = make_task(tmp_path, users=5).valid
    measure(CASES[0], requests, Effort(1, 2, 1, warm=True), "cpu", torch.float32, 1e9)
    measure(CASES[0], requests, Effort(1, 2, 1), "cpu", torch.float32, 1e9)
    assert asked == [6, 6, 2, 6]
