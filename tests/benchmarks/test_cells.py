"""What a method says of its fit, and what it gives as scores."""

import numpy as np
import pytest

from benchmarks import contract, metrics, suite
from benchmarks.conditions import Condition
from benchmarks.contract import checked, score
from benchmarks.plan import make_plan
from methods.base import Compute, FitReport, MethodInfo
from methods.registry import create


def test_numbers_of_numpy_in_a_report_become_pythons():
    report = checked(FitReport(epochs=np.int64(3), converged=np.bool_(False), reused=np.float32(0.5)))
    assert report == FitReport(epochs=3, converged=False, reused=0.5)
    assert [type(value) for value in (report.epochs, report.converged, report.reused)] == [int, bool, float]


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("interactions", None, "a whole number"),
        ("epochs", 2.5, "a whole number"),
        ("epochs", True, "a whole number"),
        ("converged", "no", "true or false"),
        ("note", None, "a text"),
        ("reused", float("nan"), "a number"),
    ],
)
def test_field_of_another_type_in_a_report_is_refused(field, value, kind):
    with pytest.raises(TypeError, match=f"{field} in a FitReport is {kind}, not {value!r}"):
        checked(FitReport(**{field: value}))


class Complex:
    """Scores without an order."""

    info = MethodInfo("complex", "none")

    def fit(self, task, seed):
        """Nothing to learn."""

    def score(self, requests):
        """Complex numbers."""
        return np.ones(requests.candidates.shape) * 1j


def test_scores_without_an_order_are_refused(toy):
    with pytest.raises(ValueError, match="complex: scores are complex numbers"):
        score(Complex(), toy)


class Flagging(Complex):
    """Says of every row whose it is."""

    def score(self, requests):
        """Zeros."""
        self.flags = [f"user {user}" for user in requests.users]
        return np.zeros(requests.candidates.shape)


def test_flags_of_all_calls_stand_at_their_rows(toy, monkeypatch):
    monkeypatch.setattr(contract, "USERS_PER_CALL", 2)
    assert contract.scored(Flagging(), toy)[1] == [f"user {user}" for user in toy.users]
    monkeypatch.setattr(Flagging, "flags", ["of one row"], raising=False)
    monkeypatch.setattr(Flagging, "score", lambda self, requests: np.zeros(requests.candidates.shape))
    with pytest.raises(ValueError, match="complex: flags holds a text of every row"):
        score(Flagging(), toy)


def test_conditions_are_applied_for_an_estimate_that_looks_at_them_alone(suite_file, tmp_path, monkeypatch):
    (cell,) = make_plan(suite.load(str(suite_file), {"methods": ["random"]}), Compute(), tmp_path).cells
    applied, apply = [], Condition.apply
    monkeypatch.setattr(Condition, "apply", lambda *given: applied.append(given[0].name) or apply(*given))
    _, shown = cell.shown(create("random"))
    assert not applied
    assert len(list(shown)) == len(cell.conditions) == len(applied)


def test_metrics_that_cannot_be_together_fail_the_cell(suite_file, tmp_path, run_suite, monkeypatch):
    monkeypatch.setitem(metrics.METRICS, "ndcg@5", lambda rank, _: np.ones(len(rank)))
    answer = run_suite("--suite", suite_file, "--methods", "random", "--output-dir", tmp_path / "r")
    assert answer.returncode == 1 and "ndcg@5 = 1 exceeds hit@5 = 0." in answer.stderr


def test_a_prompt_of_a_role_that_the_method_has_not_is_an_error_that_says_so(toy):
    with pytest.raises(LookupError, match="no templates of role 'choose' here: a method names its roles"):
        toy.prompt("choose", 0)
