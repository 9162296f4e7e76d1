"""Negative controls and leakage checks. A failed audit fails the run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.conditions import Condition
from benchmarks.protocol import Problem
from data.prompts.library import check_disjoint
from data.prompts.template import TemplateError
from data.random import generator
from data.types import FloatArray
from methods import hooks
from methods.base import Compute, Method, Requests

SAMPLE = 24
"""Users that are scored again."""
Score = Callable[[Requests], FloatArray]
RANK_FLIPS = 0.01
"""Largest share of pairwise orders that may change when the same users are scored in other batches."""


@dataclass(frozen=True)
class Audit:
    """One check and what it found.

    Args:
        name: what must hold.
        passed: whether it holds.
        detail: numbers or the first offender.
    """

    name: str
    passed: bool
    detail: str = ""


def of_problem(problem: Problem) -> list[Audit]:
    """Checks of the data every method gets, before anything is fitted."""
    return [_no_touched_candidate(problem), _no_test_item(problem), _no_valid_item(problem), _disjoint(problem)]


def _no_touched_candidate(problem: Problem) -> Audit:
    """Competing candidates, but for the positive, are items that no part has of the user."""
    name = "only the positive is in a part of the user"
    for lists in (problem.test, problem.valid):
        competes = np.ones(lists.items.shape, np.bool_) if lists.mask is None else lists.mask.copy()
        competes[np.arange(len(lists)), lists.positive] = False
        for row, user in enumerate(lists.users.tolist()):
            touched = np.isin(lists.items[row], problem.dataset.histories[user]) & competes[row]
            if touched.any():
                return Audit(name, False, _user(problem, user))
    return Audit(name, True, f"{len(problem.test)} + {len(problem.valid)} lists")


def _no_test_item(problem: Problem) -> Audit:
    """Neither a training history, nor a validation request, nor what is shown in the test holds the test item."""
    name = "no test item in any training input"
    task, test = problem.task(Compute()), problem.split.test
    requests = (task.valid, problem.test_requests())
    shown = [dict(zip(asked.users.tolist(), asked.histories, strict=True)) for asked in requests]
    for user in range(problem.dataset.catalogue.n_users):
        histories = [rows[user] for rows in shown if user in rows]
        inputs = np.concatenate([task.train[user], problem.split.valid[[user]], *histories])
        if test[user] >= 0 and test[user] in inputs:
            return Audit(name, False, _user(problem, user))
    return Audit(name, True, f"{problem.dataset.catalogue.n_users} users")


def _no_valid_item(problem: Problem) -> Audit:
    """Neither a training history nor the request that asks for it holds the validation item."""
    name, task = "no validation item in what it is predicted from", problem.task(Compute())
    shown = dict(zip(task.valid.users.tolist(), task.valid.histories, strict=True))
    for user, item in enumerate(problem.split.valid.tolist()):
        if item >= 0 and item in np.concatenate([task.train[user], shown.get(user, ())]):
            return Audit(name, False, _user(problem, user))
    return Audit(name, True, f"{len(task.valid)} lists")


def _disjoint(problem: Problem) -> Audit:
    """No unseen template of a role is a seen one under another name."""
    name = "seen and unseen templates are disjoint"
    try:
        for group in problem.templates.values():
            check_disjoint(group)
    except TemplateError as error:
        return Audit(name, False, str(error))
    return Audit(name, True, f"{sum(map(len, problem.templates.values()))} templates")


def _user(problem: Problem, user: int) -> str:
    return f"{problem.dataset.name}: user {problem.dataset.catalogue.user_ids[user]!r}"


class Invariance:
    """Watches a cell's scores: what a method does not show cannot change them, not by one bit."""

    def __init__(self, roles: frozenset[str]) -> None:
        self._names: dict[str, str] = {}
        if not roles:
            self._names["wording"] = "wording changes nothing for a method without prompt"
        if "demonstrate" not in roles:
            self._names["demonstrations"] = "demonstrations change nothing for a method without any"
        self._clean: FloatArray | None = None
        self._seen: list[tuple[Condition, bool]] = []

    def see(self, condition: Condition, scores: FloatArray) -> None:
        """Compare the scores under a condition with those under the first, which is clean."""
        if self._clean is None:
            self._clean = scores
        elif condition.perturbation.reach in self._names:
            self._seen.append((condition, not np.array_equal(scores, self._clean)))

    def audits(self) -> Iterator[Audit]:
        """One audit for a method without prompt, one for a method without demonstrations, where it was put to it."""
        for reach, name in self._names.items():
            seen = [(c.name, changed) for c, changed in self._seen if c.perturbation.reach == reach]
            moved = ", ".join(condition for condition, changed in seen if changed)
            if seen:
                yield Audit(name, not moved, f"changed under {moved}" if moved else f"{len(seen)} conditions")


class Demonstrations:
    """Watches what a method demonstrates: training items of the user whose behaviour it is, and nothing else.

    The training part holds neither validation nor test items of its users. An item that is one user's test item
    may be another's training item, and may then be shown as such.
    """

    def __init__(self, problem: Problem, method: Method) -> None:
        self._problem, self._method = problem, method
        self._applies = "demonstrate" in method.info.roles
        self._training = [frozenset(row.tolist()) for row in problem.split.train] if self._applies else []
        self._shown, self._fault = 0, ""

    def see(self, condition: Condition, requests: Requests) -> None:
        """Look at what is shown under a condition."""
        if not self._applies or self._fault:
            return
        if (demonstrated := hooks.demonstrated(self._method, requests)) is None:
            self._fault = "the method does not say what it demonstrates"
            return
        for row in demonstrated:
            for shown in row:
                self._shown += 1
                if not shown.items <= self._training[shown.user]:
                    self._fault = f"{condition.name}: {_user(self._problem, shown.user)}"

    def audits(self) -> Iterator[Audit]:
        """One audit for a method with demonstrations, none for others."""
        if self._applies:
            detail = self._fault or f"{self._shown} demonstrations"
            yield Audit("demonstrations show training items only", not self._fault, detail)


def rescoring(score: Score, requests: Requests, conditions: Sequence[Condition], seed: int) -> Iterator[Audit]:
    """Score a sample of users again: under perturbations of severity 0, and one user at a time."""
    size = min(SAMPLE, len(requests))
    sample = requests.select(np.sort(generator(seed, "audit").choice(len(requests), size, replace=False)))
    clean = score(sample)

    same = sample
    graded = {c.perturbation.family: c for c in conditions if c.perturbation.severity is not None}
    for condition in graded.values():
        nothing = replace(condition.perturbation, severity=0.0)  # type: ignore[type-var]
        same = replace(condition, perturbation=nothing).apply(same, seed)
    changed = int((score(same) != clean).any(axis=1).sum())
    families = f" ({', '.join(graded)})" if graded else ""
    yield Audit("severity 0 changes nothing", changed == 0, f"{changed} of {size} users changed{families}")

    alone = np.concatenate([score(sample.select(np.array([row]))) for row in range(size)])
    share = _order_flips(clean, alone)
    yield Audit(
        "batching changes no order", share <= RANK_FLIPS, f"{share:.2%} of orders changed, {RANK_FLIPS:.0%} allowed"
    )


def _order_flips(first: FloatArray, second: FloatArray) -> float:
    """Share of pairs of a row's first hundred candidates that the two score arrays order differently."""
    signs = [np.sign(s[:, :100, None] - s[:, None, :100]) for s in (first, second)]
    pairs = signs[0].size - signs[0].shape[0] * signs[0].shape[1]
    return float((signs[0] != signs[1]).sum() / max(1, pairs))
