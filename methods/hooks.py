"""What a method may have beside ``info``, ``fit`` and ``score``: each function reads one thing if it is there."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from methods.base import Method, Requests, Space, Task


class Demonstrated(Protocol):
    """A demonstration as the audit sees it.

    Attributes:
        user: whose behaviour it shows.
        items: all items it shows.
    """

    @property
    def user(self) -> int: ...  # noqa: D102
    @property
    def items(self) -> frozenset[int]: ...  # noqa: D102


def space(method: Method) -> Space:
    """``space: Space``: the settings that ``--tune`` shall choose."""
    found: Space = getattr(method, "space", {})
    return found


def tuned_as(name: str, method: Method) -> str:
    """``tuned_as: str``: the row whose tuned settings a row runs with; by default that of its family.

    Rows of one family differ by what they vary alone; nothing of it is in the family's space.
    """
    return str(getattr(method, "tuned_as", name.partition("/")[0]))


def llm(method: Method) -> str:
    """``llm: str``: which language model it asks for text."""
    return str(getattr(method, "llm", ""))


def estimate(method: Method) -> Callable[[Task, Iterable[Requests]], str] | None:
    """``estimate(task, shown) -> str``: what fitting and scoring would ask a language model; it asks nothing yet."""
    found: Callable[[Task, Iterable[Requests]], str] | None = getattr(method, "estimate", None)
    return found


def flags(method: Method) -> list[str]:
    """``flags: Sequence[str]``: what was wrong with each row it has scored last; they stand in the records."""
    return list(getattr(method, "flags", ()))


def ledger(method: Method) -> dict[str, Any] | None:
    """``ledger``, a dataclass: how many of its answers could be used, and how many not; it is stored."""
    return asdict(method.ledger) if hasattr(method, "ledger") else None


def unusable(method: Method) -> str:
    """``ledger.note: str``: the same in words for the note of its row, empty if all could be used."""
    return str(getattr(getattr(method, "ledger", None), "note", ""))


def shortened(method: Method) -> int:
    """``scorer.encoder.shortened: int``: prompts cut to the window of its model so far; its note says how many."""
    encoder = getattr(getattr(method, "scorer", None), "encoder", None)
    return getattr(encoder, "shortened", 0)


def demonstrated(method: Method, requests: Requests) -> Iterable[Sequence[Demonstrated]] | None:
    """``demonstrated(requests)``: what it shows in every row of these requests; needed with the role ``demonstrate``.

    An audit sees that all of it is of the training part.
    """
    return method.demonstrated(requests) if hasattr(method, "demonstrated") else None


def forget(method: Method) -> None:
    """``forget()``: drop scores that it keeps to give them again, so that an audit can score anew."""
    if hasattr(method, "forget"):
        method.forget()


def artifacts(method: Method) -> Mapping[str, str | bytes]:
    """``artifacts``: texts or bytes to look at by plain file name, for files beside its results, of other names."""
    found: Mapping[str, str | bytes] = getattr(method, "artifacts", {})
    return found
