"""The contract between a method and whoever runs it."""

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args

import numpy as np

from data.dataset import Catalogue
from data.histories import Histories
from data.prompts.template import Prompt, Role, Template
from data.random import generator
from data.types import FloatArray, IntArray

T = TypeVar("T")
Need = Literal["text", "language model", "gpu", "network"]
Space = Mapping[str, tuple[Any, ...]]
"""Settings of a method by name, and the values to choose from: numbers, strings, booleans, the default among them.

None is one of them only where it is the default: files of tuned settings leave it out.
"""


class NotRunnable(RuntimeError):
    """A method cannot run here, for a reason the leaderboard shows instead of numbers."""


@dataclass(frozen=True)
class MethodInfo:
    """What a method is.

    Args:
        name: what it is called where a row is spoken of; rows have the names of the command line.
        paper: where it is described.
        roles: roles of the prompts it shows to a model when it ranks; empty if it has no prompt.
        learns: roles of further prompts it learns from.
        needs: what must be there for it to run.
        cost: expected seconds on two cores with the embedded default; cheap methods run first.

    Raises:
        ValueError: for roles or needs that are no set of known ones, or a cost that is no positive number.
    """

    name: str
    paper: str
    roles: frozenset[Role] = frozenset()
    learns: frozenset[Role] = field(default=frozenset(), kw_only=True)
    needs: frozenset[Need] = frozenset()
    cost: float = 1.0

    def __post_init__(self) -> None:
        for what, known in (("roles", get_args(Role)), ("learns", get_args(Role)), ("needs", get_args(Need))):
            value = getattr(self, what)
            if not isinstance(value, Set) or not value <= set(known):
                raise ValueError(f"{what} is a set of some of {', '.join(known)}, not {value!r}")
        if not 0 < self.cost < math.inf:
            raise ValueError(f"cost is a positive number of seconds, not {self.cost!r}")


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

    def with_valid(self, rows: IntArray) -> "Task":
        """The task with the given rows of the validation requests alone."""
        return replace(self, valid=self.valid.select(rows), valid_positive=self.valid_positive[rows])


@dataclass(frozen=True)
class Showing:
    """How a method is to show its demonstrations; it chooses which by itself, and may have none.

    Args:
        count: how many, the best ones; None for the method's own number.
        order: ``own``, the method's; ``reversed``; or ``shuffled``, drawn for every user.
        seed: of the shuffled order.
    """

    count: int | None = None
    order: Literal["own", "reversed", "shuffled"] = "own"
    seed: int = 0

    def ordered(self, demonstrations: Sequence[T], user_id: str) -> tuple[T, ...]:
        """Some demonstrations of a user, given in the method's order, in the order to show them in."""
        places = np.arange(len(demonstrations))
        if self.order == "reversed":
            places = places[::-1]
        elif self.order == "shuffled":
            places = generator(self.seed, "demonstration-order", user_id).permutation(len(demonstrations))
        return tuple(demonstrations[place] for place in places.tolist())


@dataclass(frozen=True)
class Requests:
    """Whom to rank what for, and how it is worded; one row per user.

    Args:
        users: dense user indices, shape ``[rows]``.
        histories: items each user is shown to have chosen, oldest first.
        candidates: dense item indices to score, shape ``[rows, candidates]``.
        catalogue: item texts as shown under the condition.
        templates: the template each row is worded with, by role.
        showing: how demonstrations are shown.
        noise: what the condition makes of a text about an item that the catalogue does not hold, such as one that a
            language model has written; the text itself by default.
    """

    users: IntArray
    histories: Histories
    candidates: IntArray
    catalogue: Catalogue
    templates: Mapping[Role, tuple[Template, ...]] = field(default_factory=dict)
    showing: Showing = Showing()
    noise: Callable[[str], str] = str

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
        """The prompt of one row; ``{target}`` and other slots that are not the history stay open.

        Raises:
            LookupError: for a role that these requests have no templates of.
        """
        if role not in self.templates:
            raise LookupError(f"no templates of role {role!r} here: a method names its roles in its MethodInfo")
        titles = self.catalogue.named(self.histories[row])
        return self.templates[role][row].fill(self.catalogue.domain, {"history": titles})


@dataclass(frozen=True)
class FitReport:
    """What fitting took, for the ledger.

    Args:
        epochs: passes over the training data, or rounds of so many of its prompts as come between two looks at the
            validation part.
        converged: whether training stopped by itself before its limit; None where nothing is trained, or for a fixed
            number of steps.
        interactions: training interactions seen, repeated passes counted.
        tokens: tokens seen by a language model in training.
        trials: hyper-parameter settings tried on the validation part while fitting.
        note: what a reader of the row should know.
        loss: what training minimised; empty where nothing is trained.
        negatives: items beside each positive, a number or such as ``all items``.
        reused: seconds of training that had been done before, for another row or run, and came from the cache.
    """

    epochs: int = 0
    converged: bool | None = None
    interactions: int = 0
    tokens: int = 0
    trials: int = 0
    note: str = ""
    loss: str = ""
    negatives: str = ""
    reused: float = 0.0


class Method(Protocol):
    """A recommender. Constructed with its settings as keyword arguments.

    What else the harness reads of one that has it, such as a space of settings to search, is in
    :mod:`methods.hooks`.
    """

    info: MethodInfo

    def fit(self, task: Task, seed: int) -> FitReport:
        """Learn from the task.

        Raises:
            NotRunnable: if something it needs is not there.
        """
        ...

    def score(self, requests: Requests) -> FloatArray:
        """Score every candidate of every row, higher is better, shape ``[rows, candidates]``.

        Raises:
            NotRunnable: if something it needs is not there, such as an answer of a language model.
        """
        ...


def count(number: int, what: str) -> str:
    """A number of things.

    >>> count(1, "epoch"), count(3, "epoch")
    ('1 epoch', '3 epochs')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def require_templates(info: "MethodInfo", task: Task) -> None:
    """See that there are seen templates of every role that a method is asked in or learns from.

    Raises:
        NotRunnable: naming the first role without.
    """
    for role in sorted(info.roles | info.learns):
        if not task.templates.get(role):
            raise NotRunnable(f"{info.name} needs seen templates of role {role!r}")


def averaged(users: int) -> str:
    """Note of a fit that gives users without training rows the mean vector of the others; empty where all have rows.

    >>> averaged(1)
    'the mean vector of the others stands for 1 user without training rows'
    """
    return f"the mean vector of the others stands for {count(users, 'user')} without training rows" if users else ""


def valid_targets(task: Task) -> IntArray:
    """The validation item of every row of ``task.valid``, shape ``[rows]``."""
    return np.take_along_axis(task.valid.candidates, task.valid_positive[:, None], axis=1)[:, 0]
