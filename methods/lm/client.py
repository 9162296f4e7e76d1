"""Asking a language model: recorded answers and a cache first, then an endpoint or a local model.

Every answer is stored the moment it arrives, so an interrupted command goes on where it was. Answers that
are not usable are stored too, asked once more, and listed in the ledger.
"""

import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from methods.lm.answers import Answer, Backend, Generation, LlmError, Problem, judge, key
from methods.lm.budget import BudgetSpent, Cost, LlmBudget, Meter
from methods.lm.recorded import Recorded
from methods.lm.store import Store


class NotAnswered(LlmError):
    """There is nobody to ask: no recorded answer and no model."""


@dataclass(frozen=True)
class LedgerEntry:
    """An answer that could not be used.

    Args:
        prompt: what was asked.
        attempt: 1 for the first answer, 2 for that after asking once more.
        problem: what was wrong with it.
        text: the answer.
    """

    prompt: str
    attempt: int
    problem: Problem
    text: str


@dataclass(frozen=True)
class Estimate:
    """What asking would take, not counting answers that have to be asked once more.

    Args:
        known: prompts whose answers are recorded or cached.
        cost: requests and tokens of the others; the answers are counted at their greatest length.
        usd: price, 0 where the budget gives no prices.
    """

    known: int
    cost: Cost
    usd: float

    def __str__(self) -> str:
        return (
            f"{self.cost.requests} requests ({self.known} answers known), about {self.cost.tokens_in} tokens of "
            f"prompts and at most {self.cost.tokens_out} of answers"
            + (f", at most {self.usd:.2f} usd" if self.usd else "")
        )


@dataclass
class LlmClient:
    """Prompts to texts.

    Args:
        backend: what to ask; None to use what is known only.
        recorded: read-only answers that come before everything.
        cache: file of the answers of ``backend``.
        generation: arguments of the answers.
        budget: hard caps.
        run: what the caps hold for; clients of one run share its spending. Empty for this client alone.
    """

    backend: Backend | None = None
    recorded: Recorded | None = None
    cache: Path = Path(".cache/answers.sqlite")
    generation: Generation = field(default_factory=Generation)
    budget: LlmBudget = field(default_factory=LlmBudget)
    run: str = ""
    ledger: list[LedgerEntry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.run = self.run or uuid.uuid4().hex

    def ask(self, prompts: Sequence[str], subjects: Sequence[str] | None = None, what: str = "ask") -> list[str | None]:
        """The answer to every prompt; None where the model gave no usable one, twice.

        Args:
            prompts: what to ask.
            subjects: ids that recorded answers are filed under, one per prompt.
            what: words for the progress bar.

        Raises:
            NotAnswered: if an answer is not known and there is no model.
            BudgetSpent: before the request that would go over a cap.
            LlmError: if the model cannot be asked. All answers so far are kept.
        """
        recorded = self._recorded(prompts, subjects)
        unknown = list(dict.fromkeys(p for p, text in zip(prompts, recorded, strict=True) if text is None))
        first = self._answers(unknown, self.generation, what)
        again = self._answers([p for p in unknown if first[p].problem], self.generation.again(), f"{what} once more")
        for attempt, answers in enumerate((first, again), start=1):
            self._note(attempt, answers.items())
        judged = [None if text is None else Answer(*judge(text)) for text in recorded]
        self._note(1, [(prompt, answer) for prompt, answer in zip(prompts, judged, strict=True) if answer])
        final = (answer or again.get(prompt) or first[prompt] for prompt, answer in zip(prompts, judged, strict=True))
        return [None if answer.problem else answer.text for answer in final]

    def estimate(self, prompts: Sequence[str], subjects: Sequence[str] | None = None) -> Estimate:
        """What :meth:`ask` would take; asks nothing."""
        found = self._recorded(prompts, subjects)
        unknown = [p for p, answer in zip(prompts, found, strict=True) if answer is None]
        missing = self.open_requests(unknown)
        tokens_in = sum(len(prompt) // 4 + 8 for prompt, _ in missing)
        cost = Cost(len(missing), tokens_in, sum(generation.max_tokens for _, generation in missing))
        return Estimate(len(prompts) - len(missing), cost, self.budget.price(cost))

    def open_requests(self, prompts: Sequence[str]) -> list[tuple[str, Generation]]:
        """What is still to be asked: prompts without an answer, and those whose first answer was unusable."""
        distinct = list(dict.fromkeys(prompts))
        again = self.generation.again()
        first = self._cached(distinct, self.generation)
        second = self._cached([prompt for prompt, answer in first.items() if answer.problem], again)
        return [
            (prompt, self.generation if prompt not in first else again)
            for prompt in distinct
            if prompt not in first or (first[prompt].problem and prompt not in second)
        ]

    def _note(self, attempt: int, answers: Iterable[tuple[str, Answer]]) -> None:
        """Enter the unusable answers into the ledger."""
        entries = [LedgerEntry(prompt, attempt, a.problem, a.text) for prompt, a in answers if a.problem]
        self.ledger += [entry for entry in dict.fromkeys(entries) if entry not in self.ledger]

    def _recorded(self, prompts: Sequence[str], subjects: Sequence[str] | None) -> list[str | None]:
        if self.recorded is None:
            return [None] * len(prompts)
        ids: Sequence[str | None] = subjects or [None] * len(prompts)
        return [self.recorded.get(prompt, subject) for prompt, subject in zip(prompts, ids, strict=True)]

    def _cached(self, prompts: Sequence[str], generation: Generation) -> dict[str, Answer]:
        if self.backend is None or not prompts or not self.cache.exists():
            return {}
        prompt_of = {key(self.backend.model, prompt, generation): prompt for prompt in prompts}
        with closing(Store(self.cache)) as store:
            return {prompt_of[k]: Answer.from_json(value.decode()) for k, value in store.get(prompt_of).items()}

    def _answers(self, prompts: Sequence[str], generation: Generation, what: str) -> dict[str, Answer]:
        """Answers from the cache, and from the model where there is none."""
        if not prompts:
            return {}
        if self.backend is None:
            raise NotAnswered(f"no answer is known to {len(prompts)} prompts, the first being {prompts[0]!r}")
        from tqdm import tqdm

        known = self._cached(prompts, generation)
        missing = [prompt for prompt in prompts if prompt not in known]
        with (
            closing(Store(self.cache)) as store,
            tqdm(total=len(missing), desc=what, unit="answer", delay=2, leave=False) as bar,
        ):
            for chunk, answers in self._dispatch(self.backend, missing, generation):
                named = dict(zip(chunk, answers, strict=True))
                store.put({key(self.backend.model, p, generation): a.to_json().encode() for p, a in named.items()})
                known |= named
                bar.update(len(chunk))
        return {prompt: known[prompt] for prompt in prompts}

    def _dispatch(
        self, backend: Backend, prompts: Sequence[str], generation: Generation
    ) -> Iterator[tuple[tuple[str, ...], list[Answer]]]:
        """Answers as they arrive; after a failure those under way are still waited for, since they are paid for."""
        starts = range(0, len(prompts), backend.batch_size)
        waiting = deque(tuple(prompts[start : start + backend.batch_size]) for start in starts)
        meter = Meter(self.budget, self.cache.with_name("spent.sqlite"), self.run)
        under_way: dict[Future[tuple[list[Answer], int]], tuple[tuple[str, ...], Cost]] = {}
        failure: LlmError | None = None
        with ThreadPoolExecutor(backend.parallel) as pool:
            while True:
                while failure is None and waiting and len(under_way) < backend.parallel:
                    chunk = waiting[0]
                    try:
                        reserved = meter.reserve(_most(chunk, generation), 1 + backend.retries)
                    except BudgetSpent as error:
                        # those under way may take less than was set aside for them
                        failure = None if under_way else error
                        break
                    waiting.popleft()
                    future = pool.submit(backend.answers, chunk, generation, reserved.requests)
                    under_way[future] = chunk, reserved
                if not under_way:
                    break
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    chunk, reserved = under_way.pop(future)
                    try:
                        answers, requests = future.result()
                    except LlmError as error:
                        failure = failure or error
                        continue
                    tokens = (sum(a.tokens_in for a in answers), sum(a.tokens_out for a in answers))
                    meter.settle(reserved, Cost(requests, *tokens))
                    yield chunk, answers
        if failure is not None:
            raise failure


def _most(prompts: Sequence[str], generation: Generation) -> Cost:
    """The most a call may take: two bytes per token is fewer than any text has in practice."""
    tokens_in = sum(len(prompt.encode()) // 2 + 32 for prompt in prompts)
    return Cost(1, tokens_in, len(prompts) * generation.max_tokens)
