"""One data set under one protocol: what is trained on, what is ranked, what is shown."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from data import candidates, sources
from data.candidates import Candidates
from data.dataset import Dataset
from data.fingerprint import fingerprint
from data.histories import Histories
from data.prompts.template import Role, Template
from data.random import generator
from data.split import SPLITS, Split, SplitError
from data.types import IntArray
from methods.base import Compute, Requests, Task

Natural = Annotated[int, Field(ge=1, strict=True)]
MOST_VALID = 999
"""Negatives of a validation list beside full ranking: more would cost what they tell no more about."""


@dataclass(frozen=True)
class Protocol:
    """How a data set is turned into a ranking problem.

    Args:
        split: name of the split.
        negatives: sampled negatives per list, or ``full`` for all untouched items; in validation lists, which are
            of one length, then as many as every user has, at most 999.
        history_length: how many of the latest items any method is shown at most.
        users: how many test users are judged, drawn at random and the same for all methods; None for all.
        valid_users: how many validation users methods may tune on, the judged ones first, since some methods find
            something for single users there; None for all.
        min_rating: least rating of a positive.
        min_count: least number of positives of every user and item.
        seed: seed of the sampled candidates and users, and of the seen template each user is shown.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    split: Literal["leave-one-out", "temporal"] = "leave-one-out"
    negatives: Natural | Literal["full"] = 99
    history_length: Natural = 10
    users: Natural | None = None
    valid_users: Natural | None = None
    min_rating: Annotated[float, Field(strict=True, allow_inf_nan=False)] = 4.0
    min_count: Natural = 5
    seed: Annotated[int, Field(strict=True)] = 0


@dataclass(frozen=True)
class Problem:
    """A data set, its split and its candidate lists; templates by role.

    Args:
        dataset: all interactions.
        split: train, validation and test parts.
        test: candidates of the judged users.
        valid: candidates to tune on.
        templates: seen and unseen templates by role.
        protocol: how all this was made.
    """

    dataset: Dataset
    split: Split
    test: Candidates
    valid: Candidates
    templates: Mapping[Role, tuple[Template, ...]] = field(default_factory=dict)
    protocol: Protocol = field(default_factory=Protocol)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the data (interactions, split, candidates, protocol) and of each role's templates.

        Only results whose fingerprints agree are ever compared.
        """
        lists = (self.dataset.fingerprint, self.split.fingerprint, self.test.fingerprint, self.valid.fingerprint)
        wording = {str(role): fingerprint([_identity(t) for t in group]) for role, group in self.templates.items()}
        return {"data": fingerprint(*lists, self.protocol), **wording}

    @property
    def learnable(self) -> str:
        """SHA-256 of all that :meth:`task` holds, but for where to compute; test lists and unseen templates are not."""
        lists = (self.dataset.fingerprint, self.split.fingerprint, self.valid.fingerprint)
        seen = {str(role): [_identity(template) for template in self.seen(role)] for role in self.templates}
        return fingerprint(*lists, seen, self.protocol.history_length, self.protocol.seed)

    def for_roles(self, roles: Collection[Role]) -> "Problem":
        """The same problem with the templates of some roles only."""
        return replace(self, templates={role: group for role, group in self.templates.items() if role in roles})

    def seen(self, role: Role) -> tuple[Template, ...]:
        """Templates methods may train on."""
        return tuple(template for template in self.templates.get(role, ()) if template.family == "seen")

    def unseen(self, role: Role) -> tuple[Template, ...]:
        """Templates that are shown only when judging."""
        return tuple(template for template in self.templates.get(role, ()) if template.family == "unseen")

    def task(self, compute: Compute) -> Task:
        """What a method may learn from."""
        return Task(
            catalogue=self.dataset.catalogue,
            train=self.split.train,
            valid=self._requests(self.valid, self.split.train),
            valid_positive=self.valid.positive,
            templates={role: self.seen(role) for role in self.templates},
            history_length=self.protocol.history_length,
            compute=compute,
        )

    def test_requests(self) -> Requests:
        """The clean test requests: every user worded with a seen template of their own draw."""
        return self._requests(self.test, self.split.test_histories)

    def _requests(self, lists: Candidates, histories: Histories) -> Requests:
        shown = histories.select(lists.users).last(self.protocol.history_length)
        templates = {role: self._assign(role, lists.users) for role in self.templates if self.seen(role)}
        return Requests(lists.users, shown, lists.items, self.dataset.catalogue, templates)

    def _assign(self, role: Role, users: IntArray) -> tuple[Template, ...]:
        ids, seen = self.dataset.catalogue.user_ids, self.seen(role)
        draws = (
            generator(self.protocol.seed, "template", role, ids[user]).integers(len(seen)) for user in users.tolist()
        )
        return tuple(seen[int(draw)] for draw in draws)


def _identity(template: Template) -> tuple[object, ...]:
    return template.id, template.family, template.source, template.labels, template.style, template.replaces


def prepare(dataset: str, protocol: Protocol, templates: Mapping[Role, tuple[Template, ...]]) -> Problem:
    """Read a data set and make its split and candidate lists.

    Raises:
        DataError, SplitError, CandidateError: if the data set does not admit the protocol.
    """
    loaded = sources.load(dataset, protocol.min_rating, protocol.min_count)
    split = SPLITS[protocol.split](loaded)
    for part, size in (
        ("test users", len(split.test_users)),
        ("validation users", len(split.valid_users)),
        ("training items", len(split.train.items)),
    ):
        if not size:
            raise SplitError(
                f"{loaded.name}: the {protocol.split} split leaves no {part}; use another split or more data"
            )
    test_users = _sample(split.test_users, protocol.users, protocol.seed, "test users")
    valid_users = _sample(split.valid_users, protocol.valid_users, protocol.seed, "valid users", test_users)
    if protocol.negatives == "full":
        test = candidates.full(loaded, split.test, test_users)
        # Methods rank validation lists of one length, without an item the user touched.
        negatives = max(1, min(MOST_VALID, loaded.catalogue.n_items - int(loaded.histories.lengths.max())))
    else:
        negatives = protocol.negatives
        test = candidates.sampled(loaded, split.test, test_users, "test", protocol.seed, negatives)
    valid = candidates.sampled(loaded, split.valid, valid_users, "valid", protocol.seed, negatives)
    return Problem(loaded, split, test, valid, templates, protocol)


def _sample(users: IntArray, size: int | None, seed: int, purpose: str, first: IntArray | None = None) -> IntArray:
    """Some of the users, in order, drawn at random: all of ``first`` among them before any other."""
    if size is None or size >= len(users):
        return users
    among = np.isin(users, () if first is None else first)
    certain, pool = (users[among], users[~among]) if among.sum() <= size else (users[:0], users[among])
    drawn = generator(seed, purpose).choice(pool, size - len(certain), replace=False)
    return np.sort(np.concatenate([certain, drawn]))
