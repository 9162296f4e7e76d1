"""No perturbation: what all others are compared with."""

from dataclasses import dataclass
from typing import ClassVar

from benchmarks.perturbations.base import Reach, Ungraded
from methods.base import Requests


@dataclass(frozen=True)
class Identity(Ungraded):
    """Shows the requests as they are.

    >>> Identity().apply("requests", seed=1)
    'requests'
    """

    family: ClassVar[str] = "clean"
    reach: ClassVar[Reach] = "none"

    def apply(self, requests: Requests, seed: int) -> Requests:
        """The requests themselves."""
        return requests
