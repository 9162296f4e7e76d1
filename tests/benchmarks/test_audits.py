"""Audits catch what they are there for."""

import dataclasses

import numpy as np
import pytest

from benchmarks import audits
from benchmarks.families import expand
from benchmarks.protocol import Problem, Protocol, prepare
from data.candidates import Candidates
from data.prompts.library import templates
from tests.fakes import Cheater, Prompted


@pytest.fixture
def problem(atomic) -> Problem:
    return prepare(str(atomic), Protocol(negatives=5), {"recommend": templates("recommend")})


def failed(problem: Problem) -> list[str]:
    return [audit.name for audit in audits.of_problem(problem) if not audit.passed]


def test_sound_problem_passes(problem):
    assert failed(problem) == []


@pytest.mark.parametrize("part", ["test", "valid"])
def test_touched_candidate_is_found(problem, part):
    lists = getattr(problem, part)
    items = lists.items.copy()
    touched = problem.dataset.histories[int(lists.users[3])][0]
    items[3, (lists.positive[3] + 1) % items.shape[1]] = touched
    spoiled = Candidates(lists.users, items, lists.positive)
    assert failed(dataclasses.replace(problem, **{part: spoiled})) == ["only the positive is in a part of the user"]


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize(
    ("part", "name"),
    [("test", "no test item in any training input"), ("valid", "no validation item in what it is predicted from")],
)
def test_judged_item_in_a_training_history_is_found(problem, judged, part, name):
    if not judged:
        others = np.flatnonzero(problem.test.users != 2)
        problem = dataclasses.replace(problem, test=problem.test.select(others), valid=problem.valid.select(others))
    rows = list(problem.split.train)
    rows[2] = np.append(rows[2], getattr(problem.split, part)[2])
    split = dataclasses.replace(problem.split, train=type(problem.split.train).of(rows))
    assert failed(dataclasses.replace(problem, split=split)) == [name]


def test_test_item_as_validation_item_is_found(problem):
    split = dataclasses.replace(problem.split, valid=problem.split.test)
    assert "no test item in any training input" in failed(dataclasses.replace(problem, split=split))


class Leaky(Problem):
    """Shows everything a user has chosen when it asks for the validation item."""

    def task(self, compute):
        task = super().task(compute)
        rows = self.dataset.histories.select(task.valid.users)
        return dataclasses.replace(task, valid=dataclasses.replace(task.valid, histories=rows))


def test_judged_item_in_a_validation_request_is_found(problem):
    names = ["no test item in any training input", "no validation item in what it is predicted from"]
    assert failed(Leaky(**vars(problem))) == names


def test_unseen_template_that_repeats_a_seen_one_is_found(problem):
    seen = problem.seen("recommend")[0]
    copied = dataclasses.replace(seen, id="copy", family="unseen").map_wording(str.upper)
    spoiled = {"recommend": (*problem.templates["recommend"], copied)}
    assert failed(dataclasses.replace(problem, templates=spoiled)) == ["seen and unseen templates are disjoint"]


def test_templates_of_different_roles_may_have_one_id(problem):
    one = dataclasses.replace(problem.unseen("recommend")[0], id="mine-01")
    other = dataclasses.replace(templates("sequential")[0], id="mine-01")
    assert failed(dataclasses.replace(problem, templates={"recommend": (one,), "sequential": (other,)})) == []


def test_method_without_prompt_that_moves_under_wording_is_found(problem):
    conditions = expand({"typos": [0.3], "history-drop": [0.3]}, {})
    requests = problem.test_requests()
    for method, passed in ((Cheater(), False), (RandomLike(), True)):
        watch = audits.Invariance(method.info.roles)
        for condition in conditions:
            watch.see(condition, method.score(condition.apply(requests, 0)))
        assert [audit.passed for audit in watch.audits()] == [passed]


class RandomLike(Cheater):
    def score(self, requests):
        return requests.candidates.astype(float)


class Batched(Prompted):
    """Scores that depend on how many users are scored together."""

    def score(self, requests):
        return np.random.default_rng(len(requests)).random(requests.candidates.shape)


def test_scores_that_depend_on_the_batch_are_found(problem):
    conditions = expand({"typos": [0.3]}, {})
    found = {a.name: a.passed for a in audits.rescoring(Batched().score, problem.test_requests(), conditions, 0)}
    assert found == {"severity 0 changes nothing": True, "batching changes no order": False}
    sound = audits.rescoring(Prompted().score, problem.test_requests(), conditions, 0)
    assert all(audit.passed for audit in sound)
