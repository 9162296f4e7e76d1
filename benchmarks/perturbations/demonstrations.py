"""Demonstrations in another order, or another number of them."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from benchmarks.perturbations.base import PerturbationError, Reach, Ungraded
from methods.base import Requests

ORDERS = ("reversed", "shuffled")


@dataclass(frozen=True)
class DemonstrationOrder(Ungraded):
    """Shows the demonstrations a method chose in another order; ``shuffled`` is drawn for every user.

    >>> import numpy as np
    >>> from data.histories import Histories
    >>> none = np.empty((1, 0), np.int64)
    >>> requests = Requests(np.arange(1), Histories.of(none), none, None)
    >>> DemonstrationOrder("reversed").apply(requests, seed=1).showing.ordered(("first", "second"), "u1")
    ('second', 'first')

    Args:
        order: ``reversed`` or ``shuffled``.

    Raises:
        PerturbationError: for another order.
    """

    order: Literal["reversed", "shuffled"]
    family: ClassVar[str] = "demonstration-order"
    reach: ClassVar[Reach] = "demonstrations"

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise PerturbationError(f"an order is one of {', '.join(ORDERS)}, not {self.order!r}")

    def apply(self, requests: Requests, seed: int) -> Requests:
        """The requests with demonstrations in another order."""
        return replace(requests, showing=replace(requests.showing, order=self.order, seed=seed))


@dataclass(frozen=True)
class DemonstrationCount(Ungraded):
    """Shows another number of demonstrations: as many as the method has to offer, its best, up to a number.

    Args:
        count: how many.

    Raises:
        PerturbationError: for a negative number.
    """

    count: int
    family: ClassVar[str] = "demonstration-count"
    reach: ClassVar[Reach] = "demonstrations"

    def __post_init__(self) -> None:
        if self.count < 0:
            raise PerturbationError(f"a number of demonstrations is 0, 1, 2, ..., not {self.count!r}")

    def apply(self, requests: Requests, seed: int) -> Requests:
        """The requests with another number of demonstrations."""
        return replace(requests, showing=replace(requests.showing, count=self.count))
