"""From a suite to the cells that have to be run."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import eq
from pathlib import Path
from typing import Any

from benchmarks import audits, tuned_settings
from benchmarks.cells import Cell
from benchmarks.conditions import Condition
from benchmarks.families import SHARED, expand
from benchmarks.perturbations.base import PerturbationError
from benchmarks.perturbations.history import HistoryInject
from benchmarks.protocol import Problem, Protocol, prepare
from benchmarks.store import SCHEMA, CellId
from benchmarks.suite import Suite
from data.prompts.library import templates
from data.prompts.template import Role, Template
from data.sources.build import DataError
from methods.base import Compute, Method
from methods.lm.open import LlmChoice, checked_budget
from methods.registry import create, names, settings_of

INJECT = HistoryInject.family
CHEAP = 30.0
"""Expected seconds up to which a method counts as cheap."""


@dataclass(frozen=True)
class Plan:
    """What a suite amounts to.

    Args:
        suite: the suite with all overrides.
        problems: by name of the data set.
        conditions: clean first; the same for all cells.
        cells: in the order they are started.
        audits: what was checked of the data before anything is fitted.
        costs: expected seconds per method, for the progress bar.
        tuned: tuned settings in use, by data set and method.
        part: which of how many parts is run here, such as ``(1, 8)``.
    """

    suite: Suite
    problems: Mapping[str, Problem]
    conditions: tuple[Condition, ...]
    cells: tuple[Cell, ...]
    audits: tuple[audits.Audit, ...]
    costs: Mapping[str, float]
    tuned: Mapping[str, Mapping[str, tuned_settings.Best]]
    part: tuple[int, int] = (1, 1)

    @property
    def own(self) -> tuple[Cell, ...]:
        """The cells of the part, which costs about as much as the others."""
        number, parts = self.part
        return self.cells[number - 1 :: parts]

    def manifest(self) -> dict[str, Any]:
        """The plan as JSON values, for the run folder."""
        return {
            "schema": SCHEMA,
            "suite": self.suite.model_dump(mode="json"),
            "datasets": {name: self.facts(problem) for name, problem in self.problems.items()},
            "conditions": [condition.describe() for condition in self.conditions],
            "cells": [
                {"dataset": c.id.dataset, "method": c.id.method, "seed": c.id.seed, "key": c.key} for c in self.cells
            ],
            "audits": [asdict(audit) for audit in self.audits],
        }

    def facts(self, problem: Problem) -> dict[str, Any]:
        """Counts of a data set, its fingerprints, and notes on what was left out."""
        dataset, full = problem.dataset, problem.test.mask is not None
        notes = [*dataset.notes, *problem.split.notes]
        if full and INJECT in self.suite.families:
            notes.append(f"{INJECT} left out: with full ranking every item is a candidate")
        return {
            "users": dataset.catalogue.n_users,
            "items": dataset.catalogue.n_items,
            "untitled": sum(map(eq, dataset.catalogue.titles, dataset.catalogue.item_ids)),
            "interactions": len(dataset.histories.items),
            "train": len(problem.split.train.items),
            "judged_users": len(problem.test),
            "test_users": len(problem.split.test_users),
            "candidates": "full" if full else problem.test.items.shape[1],
            "fingerprints": problem.fingerprints,
            "tuned": {name: best.model_dump() for name, best in self.tuned[dataset.name].items()},
            "notes": notes,
        }


def make_plan(
    suite: Suite,
    compute: Compute,
    run: Path,
    tuned: Sequence[Path] = (),
    keep_fits: bool = False,
    part: tuple[int, int] = (1, 1),
) -> Plan:
    """Read the data, draw the candidates, expand conditions, and list the cells.

    Args:
        suite: the suite with all overrides.
        compute: where to compute.
        run: the run folder.
        tuned: folders with tuned settings, which go below those of the suite.
        keep_fits: whether fits are kept in the cache, and those kept there are used.
        part: which of how many parts is run here.

    Raises:
        TuningError, MethodError, ConditionError, TemplateError, DataError, SplitError, CandidateError,
            PerturbationError: as the names or the data give cause.
    """
    suite = suite.model_copy(update={"protocol": _limited(suite)})
    methods = {name: create(name, suite.settings.get(name)) for name in names(suite.methods)}
    roles = [role for method in methods.values() for role in method.info.roles | method.info.learns]
    wording = {role: templates(role, suite.templates) for role in dict.fromkeys((SHARED, *sorted(roles)))}
    problems = [prepare(dataset, suite.protocol, wording) for dataset in suite.datasets]
    _check_names(problems, suite.datasets)
    shared = _conditions(suite, {SHARED: wording[SHARED]})
    for problem in problems:
        _check_pools(problem, shared, suite.seeds)
    found = {problem.dataset.name: _tuned(problem, methods, suite, compute, tuned) for problem in problems}
    cells = []
    for name, method in sorted(methods.items(), key=lambda item: _turn(item[1].info.cost)):
        shown = method.info.roles | {SHARED}
        own = {role: group for role, group in wording.items() if role in shown | method.info.learns}
        conditions = _conditions(suite, {role: group for role, group in own.items() if role in shown})
        for problem in problems:
            best = found[problem.dataset.name].get(name)
            settings = {**(best.settings if best else {}), **suite.settings.get(name, {})}
            for seed in suite.seeds:
                cell = CellId(problem.dataset.name, name, seed)
                cells.append(Cell(cell, settings, problem.for_roles(own), conditions, compute, run, keep_fits))
    return Plan(
        suite,
        {problem.dataset.name: problem for problem in problems},
        shared,
        tuple(cells),
        tuple(audit for problem in problems for audit in audits.of_problem(problem)),
        {name: method.info.cost for name, method in methods.items()},
        found,
        part,
    )


def _check_names(problems: Sequence[Problem], datasets: Sequence[str]) -> None:
    """See that no two data sets would have their results in one place."""
    first: dict[str, str] = {}
    for problem, dataset in zip(problems, datasets, strict=True):
        name = problem.dataset.name
        if first.setdefault(name, dataset) != dataset:
            raise DataError(f"{first[name]} and {dataset} are both called {name!r}: rename the files of one")


def _check_pools(problem: Problem, conditions: Sequence[Condition], seeds: Sequence[int]) -> None:
    """See that there are items to inject for every judged user, before methods are fitted for nothing.

    Raises:
        PerturbationError: naming the data set, if there are too few.
    """
    left = problem.dataset.catalogue.n_items - problem.test.items.shape[1]
    if left >= 2 * problem.protocol.history_length:  # room for a history and as many items more
        return
    requests = problem.for_roles(()).test_requests()
    for condition in conditions:
        if condition.perturbation.family == INJECT:
            try:
                for seed in seeds:
                    condition.apply(requests, seed)
            except PerturbationError as error:
                raise PerturbationError(f"{problem.dataset.name}: {error}") from error


def _tuned(
    problem: Problem, methods: Mapping[str, Method], suite: Suite, compute: Compute, places: Sequence[Path]
) -> dict[str, tuned_settings.Best]:
    """Tuned settings that hold for the rows of these data."""
    files = tuned_settings.read(problem, places)
    found = {
        name: tuned_settings.choose(files, name, method, compute, suite.settings.get(name, {}))
        for name, method in methods.items()
    }
    return {name: best for name, best in found.items() if best}


def _turn(cost: float) -> tuple[bool, float]:
    """Cheap methods first, so that first rows come soon; then the dearest first, so that none is waited for alone."""
    return cost > CHEAP, -cost if cost > CHEAP else cost


def with_llm(
    suite: Suite, llm: str | None, budget: str | None, run: str, line: Mapping[str, Collection[str]] | None = None
) -> Suite:
    """The suite with the same language model, and one budget for all, for every method that asks one.

    Args:
        suite: the suite with all overrides.
        llm: ``--llm``; it wins over the suite file.
        budget: ``--llm-budget``, likewise.
        run: what a budget holds for.
        line: settings that --set gives, by method or pattern; they win over both.

    Raises:
        LlmError: for a language model or a budget in none of the known forms.
    """
    checked_budget(LlmChoice("recorded" if llm is None else llm, budget or ""))
    given = {key: value for key, value in (("llm", llm), ("llm_budget", budget)) if value is not None}
    settings = dict(suite.settings)
    for name in (name for name in names(suite.methods) if "llm" in settings_of(name)):
        fixed = {setting for key, own in (line or {}).items() if name in names([key]) for setting in own}
        known = given.keys() & settings_of(name)
        own = {**settings.get(name, {}), **{key: given[key] for key in known - fixed}}
        if known or own.get("llm_budget"):
            settings[name] = {"llm_run": run, **own}
    return suite.model_copy(update={"settings": settings})


def _conditions(suite: Suite, wording: Mapping[Role, tuple[Template, ...]]) -> tuple[Condition, ...]:
    """Conditions for a method with templates of these roles; names are the same for all methods.

    With full ranking every untouched item is a candidate, and none can be injected.
    """
    full = suite.protocol.negatives == "full"
    return expand({name: grades for name, grades in suite.families.items() if not (full and name == INJECT)}, wording)


def _limited(suite: Suite) -> Protocol:
    users = [size for size in (suite.protocol.users, suite.limit) if size is not None]
    return replace(suite.protocol, users=min(users, default=None))
