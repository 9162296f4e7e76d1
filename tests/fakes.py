"""Methods for testing the harness, named on the command line as ``tests.fakes:Name``."""

import hashlib
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from data.types import FloatArray
from methods.base import FitReport, MethodInfo, NotRunnable, Requests, Space, Task, valid_targets


def _hashed(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


@dataclass
class Prompted:
    """Scores by a hash of the whole prompt: deterministic, and changed by any change of the prompt.

    Fitting takes some seconds, and waits while a file exists, into which it writes that it does.
    """

    seconds: float = 0.0
    hold: str = ""
    info = MethodInfo("prompted", "a hash of the prompt", roles=frozenset({"recommend"}))

    def fit(self, task: Task, seed: int) -> FitReport:
        time.sleep(self.seconds)
        if self.hold and Path(self.hold).exists():
            Path(self.hold).write_text("waiting")
        while self.hold and Path(self.hold).exists():
            time.sleep(0.05)
        return FitReport(epochs=1, converged=True, interactions=len(task.train.items))

    def score(self, requests: Requests) -> FloatArray:
        return np.array([[self._score(requests, row, item) for item in items] for row, items in self._rows(requests)])

    def _rows(self, requests: Requests):
        return enumerate(requests.candidates.tolist())

    def _score(self, requests: Requests, row: int, item: int) -> float:
        return _hashed(requests.prompt("recommend", row).with_value("target", requests.catalogue.titles[item]).text)


class Seeded(Prompted):
    """Another one for every seed."""

    def fit(self, task: Task, seed: int) -> FitReport:
        self._seed = seed
        return FitReport(epochs=10 * seed, converged=seed == 3, note=f"fitted with seed {seed}")

    def _score(self, requests: Requests, row: int, item: int) -> float:
        return _hashed(f"{self._seed} {super()._score(requests, row, item)}")


@dataclass
class Asked:
    """How often something was asked."""

    prompts: int = 0


class Narrow(Prompted):
    """Shortens one prompt of every user, and counts that it asked."""

    info = MethodInfo("narrow", "none", roles=frozenset({"recommend"}))

    def fit(self, task: Task, seed: int) -> FitReport:
        self.scorer, self.ledger = SimpleNamespace(encoder=SimpleNamespace(shortened=7)), Asked()
        return FitReport(note="fitted")

    def score(self, requests: Requests) -> FloatArray:
        self.scorer.encoder.shortened += len(requests)
        self.ledger.prompts += len(requests)
        return super().score(requests)


class Deaf(Prompted):
    """Has a prompt and does not look at it."""

    info = MethodInfo("deaf", "none", roles=frozenset({"recommend"}))

    def fit(self, task: Task, seed: int) -> FitReport:
        return FitReport(note="hears no unseen prompt")

    def score(self, requests: Requests) -> FloatArray:
        return np.sin(1.0 + requests.users[:, None] * 7 + requests.candidates)


class Faint(Deaf):
    """Hears its prompt, but hardly."""

    info = MethodInfo("faint", "none", roles=frozenset({"recommend"}))

    def score(self, requests: Requests) -> FloatArray:
        return super().score(requests) + 1e-5 * Prompted.score(self, requests)


class Forgetful(Prompted):
    """Keeps scores that depend on how many users are scored together."""

    info = MethodInfo("forgetful", "none")

    def fit(self, task: Task, seed: int) -> FitReport:
        self.forget()
        return FitReport()

    def forget(self) -> None:
        self._known: dict[int, FloatArray] = {}

    def score(self, requests: Requests) -> FloatArray:
        for user, row in zip(requests.users.tolist(), requests.candidates, strict=True):
            self._known.setdefault(user, np.sin(len(requests) * row.astype(float)))
        return np.stack([self._known[user] for user in requests.users.tolist()])


@dataclass
class Noted(Prompted):
    """Counts its fits in one file, and does not score while another is there."""

    log: str = ""
    stop: str = ""

    def fit(self, task: Task, seed: int) -> FitReport:
        with Path(self.log).open("a") as file:
            file.write("fit\n")
        self._seed = seed
        return FitReport(epochs=3, note="fitted")

    def score(self, requests: Requests) -> FloatArray:
        if Path(self.stop).exists():
            raise RuntimeError("the current has failed")
        return super().score(requests) + self._seed


@dataclass
class Closed(Prompted):
    """Holds what cannot be stored."""

    lock: Any = field(default_factory=threading.Lock, init=False)


class Refused(Prompted):
    """Asks somebody who does not answer for a single user."""

    info = MethodInfo("refused", "none")

    def score(self, requests: Requests) -> FloatArray:
        if len(requests) == 1:
            raise ConnectionError("nobody\nanswers")
        return requests.candidates.astype(float)


class Cheater(Prompted):
    """Says that it has no prompt and looks at wording all the same."""

    info = MethodInfo("cheater", "none", roles=frozenset())
    calls = 0

    def score(self, requests: Requests) -> FloatArray:
        Cheater.calls += 1
        return np.random.default_rng(Cheater.calls).random(requests.candidates.shape)


class Demonstrating(Prompted):
    """Scores by a hash of what each user demonstrates: two of the user's own training items, one by one."""

    info = MethodInfo("demonstrating", "none", roles=frozenset({"demonstrate"}))

    def fit(self, task: Task, seed: int) -> FitReport:
        self._train = task.train
        return FitReport()

    def demonstrated(self, requests: Requests) -> list[tuple[SimpleNamespace, ...]]:
        return [self._shown(requests, user) for user in requests.users.tolist()]

    def _shown(self, requests: Requests, user: int) -> tuple[SimpleNamespace, ...]:
        items = self._train[user][:2].tolist()[: requests.showing.count]
        own = [SimpleNamespace(user=user, items=frozenset({item})) for item in items]
        return requests.showing.ordered(own, requests.catalogue.user_ids[user])

    def _score(self, requests: Requests, row: int, item: int) -> float:
        return _hashed(f"{self._shown(requests, int(requests.users[row]))} {item}")


class Leaking(Demonstrating):
    """Demonstrates a candidate: sooner or later the test item, or one the user never chose."""

    def _shown(self, requests: Requests, user: int) -> tuple[SimpleNamespace, ...]:
        row = requests.users.tolist().index(user)
        return (SimpleNamespace(user=user, items=frozenset(requests.candidates[row].tolist())),)


class Missing(Prompted):
    """Needs what is not there."""

    info = MethodInfo("missing", "none", needs=frozenset({"network"}))

    def fit(self, task: Task, seed: int) -> FitReport:
        raise NotRunnable("no endpoint; set OPENAI_BASE_URL")


class Broken(Prompted):
    """Raises an error of its own."""

    info = MethodInfo("broken", "none")

    def fit(self, task: Task, seed: int) -> FitReport:
        raise RuntimeError("the loss is not a number")


class Moody(Prompted):
    """Fits with the seed 0 alone."""

    def fit(self, task: Task, seed: int) -> FitReport:
        if seed:
            raise RuntimeError("not today")
        return super().fit(task, seed)


@dataclass
class Listener(Prompted):
    """Can be told of an LLM and of the run, but of no budget."""

    llm: str = ""
    llm_run: str = ""


class Leaver(Prompted):
    """Ends the program."""

    info = MethodInfo("leaver", "none")

    def fit(self, task: Task, seed: int) -> FitReport:
        raise SystemExit(3)


class Undefined(Prompted):
    """Returns a score that is not a number."""

    info = MethodInfo("undefined", "none")

    def score(self, requests: Requests) -> FloatArray:
        return np.full(requests.candidates.shape, np.nan)


class Distant(Prompted):
    """Adds to all scores what makes them alike in single precision."""

    info = MethodInfo("distant", "none", roles=frozenset({"recommend"}))

    def score(self, requests: Requests) -> FloatArray:
        return 1e9 + 50 * super().score(requests)


class Faded(Prompted):
    """Multiplies probabilities until nothing is left of them."""

    info = MethodInfo("faded", "none", roles=frozenset({"recommend"}))

    def score(self, requests: Requests) -> FloatArray:
        return 1e-60 * super().score(requests)


class Untidy(Prompted):
    """Has lost the file that it wants to keep."""

    info = MethodInfo("untidy", "none", roles=frozenset({"recommend"}))

    @property
    def artifacts(self) -> dict[str, str]:
        return {"kept.txt": Path("/nowhere/kept.txt").read_text()}


class Garbled(Prompted):
    """Fails with the name of a file that is no text."""

    info = MethodInfo("garbled", "none")

    def fit(self, task: Task, seed: int) -> FitReport:
        raise RuntimeError("bad file \udcff")


class Unreported(Prompted):
    """Does not say what fitting took."""

    info = MethodInfo("unreported", "none")

    def fit(self, task: Task, seed: int) -> FitReport:
        return 3


class Uncounted(Prompted):
    """Does not know how many interactions it has seen."""

    info = MethodInfo("uncounted", "none")

    def fit(self, task: Task, seed: int) -> FitReport:
        return FitReport(interactions=None)


@dataclass
class Tunable(Prompted):
    """Knows the validation items, and says so as loudly as ``skill``; some of its settings do not work."""

    skill: float = 0.1
    flaw: str = "none"
    info = MethodInfo("tunable", "none")
    space: ClassVar[Space] = {"skill": (0.0, 0.1, 0.3, 1.0), "flaw": ("none", "nan", "missing")}

    def fit(self, task: Task, seed: int) -> FitReport:
        if self.flaw == "missing":
            raise NotRunnable("no tool for this setting")
        self._chosen = dict(zip(task.valid.users.tolist(), valid_targets(task).tolist(), strict=True))
        return FitReport(epochs=2, converged=False, loss="none to speak of", negatives="3")

    def score(self, requests: Requests) -> FloatArray:
        chosen = np.array([self._chosen[user] for user in requests.users.tolist()])
        noise = np.sin(1.0 + requests.users[:, None] * 7 + requests.candidates)
        return noise + (np.nan if self.flaw == "nan" else self.skill) * (requests.candidates == chosen[:, None])


@dataclass
class Undecided(Tunable):
    """Has a setting that is None unless somebody chooses."""

    skill: float | None = None
    space: ClassVar[Space] = {"skill": (0.1, None)}


class Suicidal(Prompted):
    """Dies as a process that ran out of memory does."""

    info = MethodInfo("suicidal", "none")

    def fit(self, task: Task, seed: int) -> FitReport:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError
