"""The contract between a method and whoever runs it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from data.dataset import Catalogue
from data.histories import Histories
from data.prompts.template import Prompt, Role, Template
from data.types import FloatArray, IntArray

Need = Literal["text", "language model", "gpu", "network"]


class NotRunnable(RuntimeError):
    """A method cannot run here, for a reason the leaderboard shows instead of numbers."""


@dataclass(frozen=True)
class MethodInfo:
    """What a method is.

    Args:
        name: name on the command line and in tables.
        paper: where it is described.
        roles: roles of the prompts it shows to a model; empty if it has no prompt.
        needs: what must be there for it to run.
        cost: expected seconds on two cores with the embedded default; cheap methods run first.
    """

    name: str
    paper: str
    roles: frozenset[Role] = frozenset()
    needs: frozenset[Need] = frozenset()
    cost: float = 1.0


@dataclass(frozen=True)
class Compute:
    """Where and with which language model to compute.

    Args:
        device: torch device such as ``cpu`` or ``cuda``.
        dtype: torch floating point type of language models.
        backbone: Hugging Face id, local folder or embedded backbone; None for the method's default.
        revision: revision of a Hugging Face id.
        batch_size: prompts per forward pass; None to choose automatically.
        threads: CPU threads.
        cache: folder for what can be shared between methods and runs, such as trained backbones.
    """

    device: str = "cpu"
    dtype: str = "float32"
    backbone: str | None = None
    revision: str | None = None
    batch_size: int | None = None
    threads: int = 1
    cache: Path = Path(".cache")


@dataclass(frozen=True)
class Task:
    """All a method may learn from. It holds no test item.

    Args:
        catalogue: users and items with their texts.
        train: items to learn from, one row per user of the catalogue, oldest first.
        valid: validation requests: history, candidates and seen templates, as in the test.
        valid_positive: column of the positive in ``valid.candidates``, shape ``[rows]``.
        templates: seen templates by role.
        history_length: how many of the latest items a request shows at most.
        compute: where to compute.
    """

    catalogue: Catalogue
    train: Histories
    valid: "Requests"
    valid_positive: IntArray
    templates: Mapping[Role, tuple[Template, ...]]
    history_length: int
    compute: Compute = field(default_factory=Compute)


@dataclass(frozen=True)
class Requests:
    """Whom to rank what for, and how it is worded; one row per user.

    Args:
        users: dense user indices, shape ``[rows]``.
        histories: items each user is shown to have chosen, oldest first.
        candidates: dense item indices to score, shape ``[rows, candidates]``.
        catalogue: item texts as shown under the condition.
        templates: the template each row is worded with, by role.
    """

    users: IntArray
    histories: Histories
    candidates: IntArray
    catalogue: Catalogue
    templates: Mapping[Role, tuple[Template, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.users)

    def select(self, rows: IntArray) -> "Requests":
        """The given rows, in the given order."""
        templates = {role: tuple(row[i] for i in rows.tolist()) for role, row in self.templates.items()}
        return replace(
            self,
            users=self.users[rows],
            histories=self.histories.select(rows),
            candidates=self.candidates[rows],
            templates=templates,
        )

    def prompt(self, role: Role, row: int) -> Prompt:
        """The prompt of one row; ``{target}`` and other slots that are not the history stay open."""
        titles = [self.catalogue.titles[item] for item in self.histories[row].tolist()]
        return self.templates[role][row].fill(self.catalogue.domain, {"history": titles})


@dataclass(frozen=True)
class FitReport:
    """What fitting took, for the ledger.

    Args:
        epochs: passes over the training data.
        converged: whether training stopped by itself before its limit; None where nothing is trained.
        interactions: training interactions seen, repeated passes counted.
        tokens: tokens seen by a language model in training.
        trials: hyper-parameter settings tried on the validation part.
        note: what a reader of the row should know.
    """

    epochs: int = 0
    converged: bool | None = None
    interactions: int = 0
    tokens: int = 0
    trials: int = 0
    note: str = ""


class Method(Protocol):
    """A recommender. Constructed with its settings as keyword arguments.

    A method whose answers can be unusable keeps a dataclass of counts in an attribute ``ledger``, which is stored
    with the results. One that asks a language model may have ``estimate(task, shown) -> str``, which says without
    asking what fitting and scoring the shown requests would take.
    """

    info: MethodInfo

    def fit(self, task: Task, seed: int) -> FitReport:
        """Learn from the task.

        Raises:
            NotRunnable: if something it needs is not there.
        """
        ...

    def score(self, requests: Requests) -> FloatArray:
        """Score every candidate of every row, higher is better, shape ``[rows, candidates]``."""
        ...


def valid_targets(task: Task) -> IntArray:
    """The validation item of every row of ``task.valid``, shape ``[rows]``."""
    return np.take_along_axis(task.valid.candidates, task.valid_positive[:, None], axis=1)[:, 0]
