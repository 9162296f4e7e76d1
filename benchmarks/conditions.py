"""A condition: one named way of showing the requests."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.perturbations.base import Perturbation
from benchmarks.provenance import source
from data.errors import InputError
from data.prompts.template import Template
from methods.base import Requests


class ConditionError(InputError):
    """The conditions that were asked for do not exist."""


@dataclass(frozen=True)
class Condition:
    """One way of showing the requests.

    Args:
        name: what users see, unique in a run: ``clean``, ``typos@0.1``, ``register/polite``.
        perturbation: what is done to the requests.
    """

    name: str
    perturbation: Perturbation

    def apply(self, requests: Requests, seed: int) -> Requests:
        """The requests as shown under the condition.

        Raises:
            RuntimeError: if a user's own perturbation cannot read a file, which is none of the run folder's.
            ValueError: if it changes whom to rank what for.
        """
        try:
            shown = self.perturbation.apply(requests, seed)
        except OSError as error:
            raise RuntimeError(f"{self.name}: {error}") from error
        for what in ("users", "candidates"):
            if not np.array_equal(getattr(shown, what), getattr(requests, what)):
                raise ValueError(f"{self.name}: a perturbation leaves the {what} of requests as they are")
        return shown

    def describe(self) -> dict[str, Any]:
        """What is stored with the scores; JSON types only, templates by their ids.

        >>> from benchmarks.perturbations.typos import Typos
        >>> Condition("typos@0.1", Typos(0.1)).describe()
        {'name': 'typos@0.1', 'family': 'typos', 'reach': 'wording', 'severity': 0.1, 'parameters': {}}
        """
        parameters = {
            field.name: _plain(getattr(self.perturbation, field.name))
            for field in dataclasses.fields(self.perturbation)  # type: ignore[arg-type]
            if field.name != "severity"
        }
        module = type(self.perturbation).__module__
        own = {} if module.startswith("benchmarks.") else {"source": source(module)}
        return {
            "name": self.name,
            "family": self.perturbation.family,
            "reach": self.perturbation.reach,
            "severity": self.perturbation.severity,
            "parameters": parameters,
            **own,
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Template):
        return value.id
    return [_plain(element) for element in value] if isinstance(value, tuple) else value
