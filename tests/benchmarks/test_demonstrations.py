"""What is done to demonstrations, and what an audit finds in them."""

from collections import Counter
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import audits
from benchmarks.families import expand
from benchmarks.perturbations.base import PerturbationError
from benchmarks.perturbations.demonstrations import DemonstrationCount, DemonstrationOrder
from benchmarks.protocol import Problem, Protocol, prepare
from data.prompts.library import templates
from methods.base import MethodInfo, Requests, Showing
from tests.fakes import Cheater, Demonstrating

ALL = {"demonstration-order": None, "demonstration-count": None}


@pytest.fixture
def problem(atomic) -> Problem:
    return prepare(str(atomic), Protocol(negatives=5), {"demonstrate": templates("demonstrate")})


def test_an_order_is_the_methods_own_unless_a_condition_changes_it(toy: Requests):
    assert toy.showing.ordered("abc", "u1") == ("a", "b", "c")
    assert DemonstrationOrder("reversed").apply(toy, 0).showing.ordered("abc", "u1") == ("c", "b", "a")


def test_a_shuffle_is_drawn_for_every_user_and_seed_and_reaches_every_order(toy: Requests):
    shuffled = DemonstrationOrder("shuffled")
    orders = [shuffled.apply(toy, seed).showing.ordered("abc", f"u{n}") for n in range(20) for seed in range(5)]
    assert len(Counter(orders)) == 6
    assert orders[7] == shuffled.apply(toy, 7 % 5).showing.ordered("abc", f"u{7 // 5}")


def test_number_and_order_go_together_and_leave_the_rest_alone(toy: Requests):
    shown = DemonstrationOrder("reversed").apply(DemonstrationCount(2).apply(toy, 0), 0)
    assert shown.showing == Showing(count=2, order="reversed")
    assert all(getattr(shown, part.name) is getattr(toy, part.name) for part in fields(toy) if part.name != "showing")
    assert shown.select(np.array([1])).showing == shown.showing


def test_an_unknown_order_and_a_negative_number_are_refused():
    with pytest.raises(PerturbationError, match="one of reversed, shuffled, not 'sorted'"):
        DemonstrationOrder("sorted")
    with pytest.raises(PerturbationError, match="not -1"):
        DemonstrationCount(-1)


def watched(method, problem: Problem) -> list[audits.Audit]:
    watch = audits.Demonstrations(problem, method)
    method.fit(problem.task(None), 0)
    for condition in expand(ALL, {}):
        watch.see(condition, condition.apply(problem.test_requests(), 0))
    return list(watch.audits())


class Leaking(Demonstrating):
    """Shows one item too many of one user, and only where eight demonstrations are asked for."""

    def __init__(self, problem: Problem, part: str) -> None:
        self.leaked = int(getattr(problem.split, part)[2])

    def demonstrated(self, requests: Requests) -> list[tuple[SimpleNamespace, ...]]:
        rows = super().demonstrated(requests)
        if requests.showing.count == 8:
            rows[1] = (*rows[1], SimpleNamespace(user=2, items=frozenset({self.leaked})))
        return rows


class Silent(Demonstrating):
    demonstrated = property()


def test_training_items_may_be_shown(problem):
    (audit,) = watched(Demonstrating(), problem)
    assert audit.passed and audit.detail == f"{len(problem.test) * (2 + 2 + 2 + 0 + 1 + 2 + 2 + 2)} demonstrations"


@pytest.mark.parametrize("part", ["valid", "test"])
def test_a_validation_or_test_item_in_a_demonstration_is_found(problem, part):
    (audit,) = watched(Leaking(problem, part), problem)
    assert not audit.passed
    assert audit.detail.startswith("demonstration-count/8") and problem.dataset.catalogue.user_ids[2] in audit.detail


def test_a_method_that_does_not_say_what_it_demonstrates_is_found(problem):
    (audit,) = watched(Silent(), problem)
    assert not audit.passed and "does not say" in audit.detail


def test_a_method_without_demonstrations_is_not_asked(problem):
    assert watched(Cheater(), problem) == []


class Nosy(Demonstrating):
    """Says that it has no demonstrations and looks at how many are asked for all the same."""

    info = MethodInfo("nosy", "none", roles=frozenset({"recommend"}))

    def score(self, requests: Requests) -> np.ndarray:
        return requests.candidates + float(requests.showing.count == 4)


@pytest.mark.parametrize("kind, expected", [(Demonstrating, []), (Nosy, [False]), (Cheater, [False])])
def test_without_demonstrations_their_order_and_number_change_nothing(problem, kind, expected):
    method, requests = kind(), problem.test_requests()
    method.fit(problem.task(None), 0)
    watch = audits.Invariance(method.info.roles)
    for condition in expand(ALL, {}):
        watch.see(condition, method.score(condition.apply(requests, 0)))
    found = list(watch.audits())
    assert [audit.passed for audit in found] == expected
    if kind is Nosy:
        assert found[0].detail == "changed under demonstration-count/4"


def test_the_seed_of_a_run_shuffles_the_demonstrations_of_one_user(toy: Requests):
    shuffled = DemonstrationOrder("shuffled")
    assert len({shuffled.apply(toy, seed).showing.ordered("abc", "u1") for seed in range(20)}) > 1
