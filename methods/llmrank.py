"""Zero-shot listwise ranking: a language model reads the candidates and writes them down in order.

Source: Hou et al., "Large language models are zero-shot rankers for recommender systems", 2024. Runs only
with an endpoint or a local model; every user is one request per different prompt.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from data.prompts.template import ListStyle, Role
from data.random import generator
from data.types import FloatArray, IntArray
from methods.base import FitReport, MethodInfo, NotRunnable, Requests, Task, require_templates
from methods.checks import check_least
from methods.lm.answers import Generation
from methods.lm.client import LlmClient
from methods.lm.open import LlmChoice, open_client

ROLE: Role = "rank"
LISTED = re.compile(r"[\d\s,;.)\[\]>*`]*")
"""Numbers and what stands between them in lists."""
NUMBERED = ListStyle(separator="\n", before="{n}. ")
"""How candidates are listed whatever the style of a template: answers name their numbers."""


@dataclass
class ListLedger:
    """What was wrong with answers, counted over all requests so far.

    Args:
        lists: answers asked for.
        unusable: lists that were empty, refused or not text, asked once more in vain.
        out_of_catalogue: entries that are no candidate.
        duplicates: entries named before.
        missing: candidates not named.
        candidates: candidates asked about.
    """

    lists: int = 0
    unusable: int = 0
    out_of_catalogue: int = 0
    duplicates: int = 0
    missing: int = 0
    candidates: int = 0

    def add(self, other: "ListLedger") -> None:
        """Count what another has counted, too."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def flags(self) -> str:
        """What is wrong, if anything.

        >>> ListLedger(lists=1, duplicates=2, missing=3, candidates=100).flags
        'duplicates=2 missing=3'
        """
        wrong = {name: value for name, value in asdict(self).items() if name not in ("lists", "candidates")}
        return " ".join(f"{name}={value}" for name, value in wrong.items() if value)

    @property
    def note(self) -> str:
        """Which share of the candidates the answers leave out, if any.

        >>> ListLedger(missing=3, candidates=2000).note
        'answers leave out 0.15 % of the candidates, which share the last place'
        """
        share = 100 * self.missing / max(self.candidates, 1)
        return f"answers leave out {share:.3g} % of the candidates, which share the last place" if share else ""


@dataclass
class LlmRank:
    """One request per user and different prompt; candidates in an order drawn per user.

    Args:
        llm: ``endpoint:MODEL`` or ``local:MODEL``.
        llm_budget: hard caps such as ``requests=1000,tokens=2e6``.
        llm_run: what the caps hold for; empty for this method alone.
        reverse: show the candidates in the opposite order, to measure position bias.
        max_tokens: most tokens of an answer.
    """

    llm: str = ""
    llm_budget: str = ""
    llm_run: str = ""
    reverse: bool = False
    max_tokens: int = 1000
    ledger: ListLedger = field(default_factory=ListLedger, init=False)
    flags: list[str] = field(default_factory=list, init=False)

    info = MethodInfo(
        name="llm-rank",
        paper="Hou et al. 2024, arXiv 2305.08845",
        roles=frozenset({ROLE}),
        needs=frozenset({"text", "language model"}),
        cost=1000.0,
    )

    def __post_init__(self) -> None:
        check_least(self, {"max_tokens": 1})

    def fit(self, task: Task, seed: int) -> FitReport:
        """Open the client; nothing is trained.

        Raises:
            NotRunnable: if there is no seen template, no language model is named, or what is named is not there.
        """
        require_templates(self.info, task)
        if self.llm.partition(":")[0] not in ("endpoint", "local"):
            raise NotRunnable(
                "no language model to ask: give --llm endpoint:MODEL (with OPENAI_BASE_URL and OPENAI_API_KEY) or "
                "--llm local:MODEL"
            )
        choice = LlmChoice(self.llm, self.llm_budget, self.llm_run)
        self._client: LlmClient = open_client(choice, task.catalogue.name, task.compute)
        self._client.generation = Generation(max_tokens=self.max_tokens)
        self._seed = seed
        return FitReport(note="zero-shot" + (", candidates reversed" if self.reverse else ""))

    def estimate(self, task: Task, shown: Iterable[Requests]) -> str:
        """What scoring the requests would take: one request per user and different prompt."""
        try:
            self.fit(task, 0)
        except NotRunnable as reason:
            return str(reason)
        prompts = [
            self._prompt(requests, row, self._order(requests, row))
            for requests in shown
            for row in range(len(requests))
        ]
        return str(self._client.estimate(list(dict.fromkeys(prompts))))

    def score(self, requests: Requests) -> FloatArray:
        """Minus the position in the answer; candidates that it leaves out share the last place.

        A reader of the scores gets both bounds from that tie: the positive first or last of those left out.
        """
        orders = [self._order(requests, row) for row in range(len(requests))]
        prompts = [self._prompt(requests, row, order) for row, order in enumerate(orders)]
        answers = self._client.ask(prompts, what="rank")
        scores, self.flags = np.empty(requests.candidates.shape), []
        for row, (order, answer) in enumerate(zip(orders, answers, strict=True)):
            titles = requests.catalogue.named(requests.candidates[row, order])
            counted = ListLedger(unusable=int(answer is None))
            found = order[read_ranking(answer or "", titles, counted)]
            self.ledger.add(counted)
            self.flags.append(counted.flags)
            scores[row] = -len(order)
            scores[row, found] = -np.arange(len(found))
        return scores

    def _order(self, requests: Requests, row: int) -> IntArray:
        """Columns of the candidates in the order shown: drawn per user from what is ranked, not where it stands."""
        user = requests.catalogue.user_ids[int(requests.users[row])]
        by_item = np.argsort(requests.candidates[row], kind="stable")
        order = by_item[generator(self._seed, "llm-rank", user).permutation(len(by_item))]
        return order[::-1] if self.reverse else order

    def _prompt(self, requests: Requests, row: int, order: IntArray) -> str:
        candidates = NUMBERED.join(requests.catalogue.named(requests.candidates[row, order]))
        return requests.prompt(ROLE, row).with_value("candidates", candidates).text


def read_ranking(answer: str, titles: Sequence[str], ledger: ListLedger) -> IntArray:
    """Positions in ``titles`` in the order of the answer, which may give numbers, titles or both.

    Args:
        answer: one entry per line, or several numbers in one, which are those of candidates before they are titles.
        titles: candidates as numbered from 1 in the prompt.
        ledger: where entries that are no candidate, entries named twice and candidates not named are counted.

    >>> read_ranking("2, 1, 2, 9", ["Alien", "Brazil", "Cube"], ledger := ListLedger()).tolist()
    [1, 0]
    >>> ledger.duplicates, ledger.out_of_catalogue, ledger.missing
    (1, 1, 1)
    """
    position = {_plain(title): n for n, title in reversed(list(enumerate(titles)))}
    numbered = {str(n): n - 1 for n in range(1, len(titles) + 1)}  # int() refuses endless digits
    ranked: dict[int, None] = {}
    for entry, is_number in _entries(answer, position):
        named = _named(entry, position)
        place = numbered.get(entry.rstrip(".):").lstrip("0"))
        first, second = (place, named) if is_number else (named, place)
        found = second if first is None else first
        if found is None:
            ledger.out_of_catalogue += 1
        elif found in ranked:
            ledger.duplicates += 1
        else:
            ranked[found] = None
    ledger.lists += 1
    ledger.candidates += len(titles)
    ledger.missing += len(titles) - len(ranked)
    return np.array(list(ranked), np.int64)


def _entries(answer: str, position: Mapping[str, int]) -> Iterator[tuple[str, bool]]:
    """What an answer lists, and whether that is a number before it is a title: where numbers stand side by side."""
    whole = LISTED.fullmatch(answer) is not None
    for line in answer.split("\n"):
        listed = LISTED.fullmatch(line.rpartition(":")[2])
        numbers = re.findall(r"\d+", listed[0]) if listed else []
        entry = line.strip(" \t.,;[]()>*-`")
        if whole or (len(numbers) > 1 and _named(entry, position) is None):
            yield from ((number, True) for number in numbers)
        elif entry:
            yield entry, False


def _named(entry: str, position: Mapping[str, int]) -> int | None:
    """The candidate whose title an entry is, perhaps behind a number."""
    title = re.sub(r"^\d*[.):]?\s*", "", entry)
    return position.get(_plain(entry), position.get(_plain(title)) if title else None)


def _plain(title: str) -> str:
    return "".join(character for character in title.lower() if character.isalnum())
