"""Caps on what language models may cost, kept across methods, processes and restarts of a run."""

from dataclasses import astuple, dataclass, fields
from operator import add, sub
from pathlib import Path

from data.spelling import near
from methods.lm.answers import LlmError
from methods.lm.store import connect


class BudgetSpent(LlmError):
    """The next request would go over a cap."""


@dataclass(frozen=True)
class Cost:
    """What was or would be used."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*map(add, astuple(self), astuple(other)))

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(*map(sub, astuple(self), astuple(other)))


@dataclass(frozen=True)
class LlmBudget:
    """Hard caps; None for no cap.

    Args:
        requests: HTTP requests, repeated ones counted.
        tokens: tokens of prompts and answers together.
        usd: US dollars; needs the two prices.
        usd_in: price of a million tokens of prompts.
        usd_out: price of a million tokens of answers.
    """

    requests: float | None = None
    tokens: float | None = None
    usd: float | None = None
    usd_in: float | None = None
    usd_out: float | None = None

    @classmethod
    def parse(cls, text: str) -> "LlmBudget":
        """A budget such as ``requests=1000,tokens=2e6,usd=5,usd-in=0.15,usd-out=0.6``; empty for no cap.

        Raises:
            LlmError: for an unknown or repeated cap, a value that is negative or no number, or ``usd`` without prices.

        >>> LlmBudget.parse("requests=1000,tokens=2e6").tokens
        2000000.0
        """
        values: dict[str, float] = {}
        known = [field.name.replace("_", "-") for field in fields(cls)]
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, number = (word.strip() for word in part.partition("="))
            if name not in known:
                hint = near(name, known)
                raise LlmError(
                    f"no budget {name!r}: {hint}give any of {', '.join(known)}, such as requests=1000,tokens=2e6"
                )
            if name in values:
                raise LlmError(f"budget {name!r} is given twice in {text!r}")
            values[name] = _amount(name, number)
        if "usd" in values and not {"usd-in", "usd-out"} <= values.keys():
            raise LlmError("a budget in usd needs the prices of a million tokens: usd=5,usd-in=0.15,usd-out=0.6")
        return cls(**{name.replace("-", "_"): value for name, value in values.items()})

    def price(self, cost: Cost) -> float:
        """US dollars of a cost, 0 without prices."""
        return (cost.tokens_in * (self.usd_in or 0.0) + cost.tokens_out * (self.usd_out or 0.0)) / 1e6


def _amount(name: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise LlmError(f"budget {name}={number!r} is not a number of at least 0")
    return value


class Meter:
    """What a run has spent, in a file that all its processes share.

    Spending is reserved before a request and settled after it: a process that dies leaves its reservation
    behind, so that the caps hold whatever happens.
    """

    def __init__(self, budget: LlmBudget, path: Path, run: str) -> None:
        self.budget = budget
        self._run = run
        table = "spent (run TEXT PRIMARY KEY, requests INTEGER, tokens_in INTEGER, tokens_out INTEGER)"
        self._connection = connect(path, table)
        self._connection.execute("INSERT OR IGNORE INTO spent VALUES (?, 0, 0, 0)", (run,))

    @property
    def spent(self) -> Cost:
        """Spent and reserved so far."""
        query = "SELECT requests, tokens_in, tokens_out FROM spent WHERE run = ?"
        return Cost(*self._connection.execute(query, (self._run,)).fetchone())

    def reserve(self, cost: Cost, attempts: int = 1) -> Cost:
        """Set aside the cost of one call that may be attempted several times.

        Args:
            cost: tokens of the call; its ``requests`` are what one attempt takes.
            attempts: attempts wanted.

        Returns:
            What was set aside: as many requests as the cap still allows, at least one attempt's.

        Raises:
            BudgetSpent: if the cap does not allow one attempt.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            spent = self.spent
            left = float("inf") if self.budget.requests is None else self.budget.requests - spent.requests
            granted = Cost(int(max(1, min(attempts, left))), cost.tokens_in, cost.tokens_out)
            self._check(spent + granted)
            self._add(granted)
        finally:
            self._connection.execute("COMMIT")
        return granted

    def settle(self, reserved: Cost, used: Cost) -> None:
        """Replace a reservation by what was used."""
        self._add(used - reserved)

    def _add(self, cost: Cost) -> None:
        self._connection.execute(
            "UPDATE spent SET requests = requests + ?, tokens_in = tokens_in + ?, tokens_out = tokens_out + ? "
            "WHERE run = ?",
            (*astuple(cost), self._run),
        )

    def _check(self, total: Cost) -> None:
        tokens, usd = total.tokens_in + total.tokens_out, self.budget.price(total)
        for name, amount, cap in (
            ("requests", total.requests, self.budget.requests),
            ("tokens", tokens, self.budget.tokens),
            ("usd", usd, self.budget.usd),
        ):
            if cap is not None and amount > cap:
                raise BudgetSpent(
                    f"the next request could take {name} to {amount:g}, over the cap of {cap:g}; all answers so far "
                    "are kept: raise --llm-budget and run the same command again"
                )
