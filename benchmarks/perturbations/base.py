"""What a perturbation is, and its three kinds: of the wording, of the histories, of the titles."""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal, Protocol

import numpy as np

from data.errors import InputError
from data.histories import Histories
from data.prompts.template import Template
from data.random import generator
from data.types import IntArray
from methods.base import Requests

Reach = Literal["wording", "values", "demonstrations", "none"]


class PerturbationError(InputError):
    """A perturbation cannot be made, or cannot be applied to these requests."""


class Perturbation(Protocol):
    """A seeded change of requests; a frozen dataclass whose fields are all its parameters.

    Attributes:
        family: name shared by all grades and variants: one word, and of a user's own none that the suite has.
        reach: ``wording`` if only the templates change, ``values`` if histories or titles do, ``demonstrations``
            if only these do, ``none`` if nothing does. A method without prompt gives the same scores under
            ``wording`` and ``none``, one without demonstrations under ``demonstrations``.
    """

    family: ClassVar[str]
    reach: ClassVar[Reach]

    @property
    def severity(self) -> float | None:
        """Share of words, items or characters touched; None for a family without grades. With grades it is a field."""
        ...

    def apply(self, requests: Requests, seed: int) -> Requests:
        """The requests as shown under the perturbation; users and candidates stay as they are."""
        ...


@dataclass(frozen=True)
class Graded:
    """A perturbation with grades; grade 0 changes nothing.

    Args:
        severity: share of words, items or characters touched, in [0, 1].

    Raises:
        PerturbationError: for a severity outside [0, 1].
    """

    family: ClassVar[str]
    severity: float

    def __post_init__(self) -> None:
        if not 0 <= self.severity <= 1:
            raise PerturbationError(f"{self.family}: severity is a share between 0 and 1, not {self.severity!r}")


class Ungraded:
    """A perturbation without grades."""

    severity: ClassVar[None] = None


class WordingPerturbation:
    """Changes the words of templates; slots, and with them labels and titles, stay as they are.

    A template is changed by a generator derived from (seed, family, user id, role).
    """

    family: ClassVar[str]
    reach: ClassVar[Reach] = "wording"

    def perturb(self, text: str, rng: np.random.Generator) -> str:
        """One stretch of wording, changed."""
        raise NotImplementedError(f"{type(self).__name__} defines neither perturb nor perturb_template")

    def perturb_template(self, template: Template, rng: np.random.Generator) -> Template:
        """The template with every stretch of wording changed."""
        return template.map_wording(lambda text: self.perturb(text, rng))

    def apply(self, requests: Requests, seed: int) -> Requests:
        """The requests with every template changed."""
        user_ids = [requests.catalogue.user_ids[user] for user in requests.users.tolist()]
        templates = {
            role: tuple(
                self.perturb_template(template, generator(seed, self.family, user_id, role))
                for template, user_id in zip(row, user_ids, strict=True)
            )
            for role, row in requests.templates.items()
        }
        return replace(requests, templates=templates)


class HistoryPerturbation:
    """Changes which items a user is shown to have chosen, and in which order.

    A history is changed by a generator derived from (seed, family, user id).
    """

    family: ClassVar[str]
    reach: ClassVar[Reach] = "values"

    def perturb(self, history: IntArray, pool: IntArray, rng: np.random.Generator) -> IntArray:
        """One history, changed.

        Args:
            history: dense item indices, oldest first, shape ``[n]``.
            pool: items neither in the history nor among the row's candidates, ascending.
            rng: the row's own generator.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define perturb")

    def apply(self, requests: Requests, seed: int) -> Requests:
        """The requests with every history changed."""
        rows = []
        for user, history, candidates in zip(
            requests.users.tolist(), requests.histories, requests.candidates, strict=True
        ):
            outside = np.ones(requests.catalogue.n_items, np.bool_)
            outside[history] = outside[candidates] = False
            rng = generator(seed, self.family, requests.catalogue.user_ids[user])
            rows.append(self.perturb(history, np.flatnonzero(outside), rng))
        return replace(requests, histories=Histories.of(rows))


class TitlePerturbation:
    """Changes what items are called, in histories and candidates alike, and what is written about them.

    A title is changed by a generator derived from (seed, family, item id), so that an item has one name
    wherever it appears under the condition; a description, or a text that a method brings, by one derived from
    (seed, family, text).
    """

    family: ClassVar[str]
    reach: ClassVar[Reach] = "values"

    def perturb(self, title: str, rng: np.random.Generator) -> str:
        """One title or other text, changed; a title does not become empty."""
        raise NotImplementedError(f"{type(self).__name__} does not define perturb")

    def apply(self, requests: Requests, seed: int) -> Requests:
        """The requests with every title and description of the catalogue changed, and noise for other texts."""
        catalogue = requests.catalogue
        titles = tuple(
            self.perturb(title, generator(seed, self.family, item_id))
            for item_id, title in zip(catalogue.item_ids, catalogue.titles, strict=True)
        )
        noise = partial(self._noisy, seed)
        fields = {key: tuple(map(noise, v)) if key == "description" else v for key, v in catalogue.fields.items()}
        return replace(requests, catalogue=replace(catalogue, titles=titles, fields=fields), noise=noise)

    def _noisy(self, seed: int, text: str) -> str:
        return self.perturb(text, generator(seed, self.family, text))


def draw_touched(
    n: int, severity: float, rng: np.random.Generator, total: int | None = None, least: int = 1
) -> IntArray:
    """Positions among ``n`` that a perturbation of the given severity touches, in random order.

    The number is ``floor(severity * total + u)`` with ``u`` uniform in [0, 1): stochastic rounding, so that
    the expected share is the severity even where a single word is more than that. Order and ``u`` do not
    depend on the severity: a stronger grade touches all that a weaker one touches, and more.

    Args:
        n: positions that can be touched.
        severity: share to touch, in [0, 1].
        rng: generator; as many draws are taken from it for every severity.
        total: number the severity is a share of, where not every position can be touched; None for ``n``.
            At most ``n`` positions are touched.
        least: touch this many or none, where fewer would change nothing; the expected share stays.

    Returns:
        Distinct positions, shape ``[touched]``.

    >>> rng = np.random.default_rng(0)
    >>> float(np.mean([len(draw_touched(3, 0.1, rng)) for _ in range(10_000)]).round(1))
    0.3
    """
    order = rng.permutation(n)
    expected = severity * (n if total is None else total)
    step = least if expected < least else 1
    return order[: step * math.floor(expected / step + rng.random())]
