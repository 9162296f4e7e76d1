"""The speed comparison compares like with like."""

import math
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks.throughput import CASES, Effort, each, harness, main, matrix_rate, measure, sharing, table
from data.prompts.template import Template, parse
from tests.methods.lm.small import make_task


@pytest.mark.parametrize("case", [case for case in CASES if not case.large], ids=lambda case: case.name)
def test_all_ways_score_the_same_prompts(tmp_path, case, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    requests = make_task(tmp_path, users=5).valid
    row = measure(case, requests, Effort(3, 2, 2), "cpu", torch.float32, 1e9)
    assert min(row.own, row.plain, row.rate) > 0
    assert math.isnan(row.harness)
    assert row.difference < 1e-4 or (case.form == "decoded_odds" and math.isnan(row.difference))
    assert table([row]).count("\n") == 2


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
    with pytest.raises(ImportError):
        harness(None, None, [], [])


def test_matrix_rate_is_a_rate():
    assert matrix_rate("cpu", torch.float32, size=64, seconds=0.01) > 1e6


def test_an_unknown_type_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--dtype", "int8"])
    assert "no floating point type 'int8'" in capsys.readouterr().err
