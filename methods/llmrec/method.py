"""LLM-Rec as rows of the leaderboard: one per strategy, and the best of them on the validation part."""

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from data import recorded, sources
from data.prompts import library
from data.prompts.template import Role, Template
from data.types import FloatArray
from methods.base import FitReport, MethodInfo, NotRunnable, Requests, Space, Task, averaged
from methods.checks import check_least, check_positive, check_shares, check_types
from methods.llmrec.pagerank import NeighbourScore, important_neighbours
from methods.llmrec.settings import Settings
from methods.llmrec.texts import ItemTexts, Job, Ledger, Neighbours, Once
from methods.llmrec.vectors import contrasted
from methods.lm.answers import LlmError
from methods.lm.client import LlmClient, NotAnswered
from methods.lm.open import LlmChoice, open_client
from methods.lm.sentences import DEFAULT, SentenceEncoder

if TYPE_CHECKING:
    from methods.llmrec.model import Fitted

PAPER = "Lyu et al. 2023, arXiv 2307.15780"
ROLE: Role = "augment"
WALK = ("neighbours", "neighbour_score", "restart")
"""Settings that the neighbours depend on, and with them the prompts."""

AUGMENTED = (
    "basic-paraphrase",
    "basic-summarise",
    "basic-characterise",
    "rec-paraphrase",
    "rec-summarise",
    "rec-characterise",
    "eng",
    "rec-eng",
)

STRATEGIES: Mapping[str, tuple[str, ...]] = {
    "title": (),
    "original": (),
    **{prompt: (prompt,) for prompt in AUGMENTED},
    "all": AUGMENTED,
}
"""Prompts whose answers stand beside the original text, by strategy; ``title`` leaves the description out too."""


@dataclass
class LlmRec(Settings):
    """One strategy, and the settings of the recommender behind it.

    Args:
        strategy: one of :data:`STRATEGIES`.
        llm: who answers: ``recorded``, ``recorded:FILE``, ``endpoint:MODEL`` or ``local:MODEL``.
        llm_budget: hard caps such as ``requests=1000,tokens=2e6,usd=5,usd-in=0.15,usd-out=0.6``.
        llm_run: what the caps hold for: methods of the same name share them; empty for this method alone.
        encoder: Hugging Face id or folder of the sentence encoder.
        neighbours: important neighbours per item.
        neighbour_score: ``ppr/degree``, or ``ppr`` as in the paper.
        restart: restart probability of the random walk.
    """

    strategy: str = "original"
    llm: str = "recorded"
    llm_budget: str = ""
    llm_run: str = ""
    encoder: str = DEFAULT
    neighbours: int = 3
    neighbour_score: NeighbourScore = "ppr/degree"
    restart: float = 0.15

    space: ClassVar[Space] = {"rate": (1e-3, 2e-3, 5e-3), "dropout": (0.5, 0.8), "negatives": (1, 4)}

    def __post_init__(self) -> None:
        check_types(self)
        if self.strategy not in STRATEGIES:
            raise ValueError(f"no strategy {self.strategy!r}; strategies are {', '.join(STRATEGIES)}")
        check_least(self, dict.fromkeys(("size", "hidden", "negatives", "batch", "epochs", "patience"), 1))
        check_least(self, {"neighbours": 0, "decay": 0})
        check_positive(self, ("rate",))
        check_shares(self, ("restart",), zero=False)
        check_shares(self, ("dropout",), one=False)
        self.prompts = STRATEGIES[self.strategy]
        self.info = MethodInfo(
            name=f"llmrec/{self.strategy}",
            paper=PAPER,
            roles=frozenset({ROLE}) if self.prompts else frozenset(),
            needs=frozenset({"text"}),
            cost=40.0 + 20.0 * len(self.prompts),
        )

    def fit(self, task: Task, seed: int) -> FitReport:
        """Collect the texts, encode them, train the recommender."""
        return self.train(task, self.prepare(task, self.open_encoder(task), self.open_neighbours(task)), seed)

    def estimate(self, task: Task, shown: Iterable[Requests]) -> str:
        """What the texts would take, with those of the unseen wordings that are shown."""
        if self.strategy == "title":
            return "asks nothing"
        try:
            texts = self._open_texts(task, self.open_neighbours(task))
        except NotRunnable as reason:
            return str(reason)
        worded = dict.fromkeys(template for requests in shown for template in requests.templates.get(ROLE, ()))
        trained = [self._templates[prompt] for prompt in self.prompts]
        asked = dict.fromkeys([*trained, *chain.from_iterable(map(self._wording, worded))])
        return str(Job(texts, tuple(asked)).estimate())

    def open_encoder(self, task: Task) -> SentenceEncoder:
        """The sentence encoder; it is loaded when a text is not in its cache."""
        return SentenceEncoder(self.encoder, device=task.compute.device, cache=task.compute.cache / "embeddings")

    def open_neighbours(self, task: Task) -> Neighbours:
        """The important neighbours of every item; they are computed when a prompt asks for them."""
        walk = (self.neighbours, self.restart, self.neighbour_score)
        return Once(partial(important_neighbours, task.train, task.catalogue.n_items, *walk))

    def prepare(self, task: Task, encoder: SentenceEncoder, neighbours: Neighbours) -> npt.NDArray[np.float32]:
        """Collect the texts, without training; their vectors, shape ``[items, width]``.

        Raises:
            NotRunnable: if nobody answers the prompts or the encoder is not there.
        """
        self._encoder = encoder
        self._items: dict[tuple[Hashable, ...], npt.NDArray[np.float32]] = {}
        self._texts = None if self.strategy == "title" else self._open_texts(task, neighbours)
        try:
            return self._encode(task.valid, [self._templates[prompt] for prompt in self.prompts])
        except NotAnswered as error:
            raise NotRunnable(f"{error}; {self._how_to_fill(task)}") from error

    def train(self, task: Task, vectors: npt.NDArray[np.float32], seed: int) -> FitReport:
        """Train on what :meth:`prepare` has made."""
        from methods.llmrec import model

        valid = model.Validation(task.valid.users, task.valid.candidates, task.valid_positive)
        self.fitted: Fitted = model.fit(vectors, task.train, valid, self, seed, task.compute.device)
        return FitReport(
            epochs=self.fitted.epochs,
            converged=self.fitted.converged,
            interactions=self.fitted.epochs * len(task.train.items),
            note="; ".join(filter(None, (self._note(), averaged(int((task.train.lengths == 0).sum()))))),
            loss="binary cross-entropy",
            negatives=str(self.negatives),
        )

    def score(self, requests: Requests) -> FloatArray:
        """Logits of the candidates; rows worded with an unseen template rest on the unseen wordings' answers."""
        from methods.llmrec import model

        templates = requests.templates.get(ROLE, ())
        wordings = [self._wording(template) for template in templates] or [()] * len(requests)
        scores = np.empty(requests.candidates.shape)
        for wording in dict.fromkeys(wordings):
            rows = np.array([row for row, other in enumerate(wordings) if other == wording])
            items = self._item_vectors(requests, wording)
            scores[rows] = model.scores(self.fitted.model, items, requests.users[rows], requests.candidates[rows])
        return scores

    @property
    def ledger(self) -> Ledger:
        """How many items have their original text instead of an answer."""
        return Ledger() if self._texts is None else self._texts.ledger

    @property
    def artifacts(self) -> dict[str, str]:
        """The answers that could not be used, if there are any."""
        unusable = [] if self._texts is None else self._texts.client.ledger
        lines = "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in unusable)
        return {"unusable-answers.jsonl": lines} if lines else {}

    def _wording(self, template: Template) -> tuple[Template, ...]:
        """Whose answers a row with this template rests on; empty for the trained wordings.

        An unseen template stands for the whole unseen family: every prompt is worded as the suite's unseen
        template for it, but for the one that the given template replaces.
        """
        if template.family == "seen" or not self.prompts:
            return ()
        unseen = self._unseen | ({template.replaces: template} if template.id not in self._templates else {})
        return tuple(unseen.get(prompt, self._templates[prompt]) for prompt in self.prompts)

    def _open_texts(self, task: Task, neighbours: Neighbours) -> ItemTexts:
        choice = LlmChoice(self.llm, self.llm_budget, self.llm_run)
        given = {template.id: template for template in task.templates.get(ROLE, ())}
        templates = {template.id: template for template in library.templates(ROLE)} | given
        self._unseen = {t.replaces: t for t in templates.values() if t.family == "unseen" and t.replaces}
        self._templates = templates
        texts = ItemTexts(LlmClient(), task.catalogue, templates, neighbours)
        if texts.described and not self.prompts:
            return texts
        try:
            return replace(texts, client=open_client(choice, task.catalogue.name, task.compute))
        except LlmError as error:
            raise NotRunnable(f"{error}; {self._how_to_fill(task)}") from error

    def _encode(self, requests: Requests, templates: Sequence[Template]) -> npt.NDArray[np.float32]:
        """Text vectors side by side: the original text, then the augmentations, all as the requests show them."""
        parts = [self._encoder.encode(self._original(requests))]
        for template in templates:
            assert self._texts is not None
            parts.append(self._encoder.encode([requests.noise(text) for text in self._texts.augmented(template)]))
        return np.concatenate([contrasted(part) for part in parts], axis=1)

    def _original(self, requests: Requests) -> list[str]:
        """Title and description of every item; the catalogue shows its own with their noise."""
        titles = requests.catalogue.titles
        if self._texts is None:
            return list(titles)
        if self._texts.described:
            descriptions: Sequence[str] = requests.catalogue.fields["description"]
        else:
            descriptions = [requests.noise(text) for text in self._texts.descriptions()]
        return [f"{title}. {text}" if text else title for title, text in zip(titles, descriptions, strict=True)]

    def _item_vectors(self, requests: Requests, wording: tuple[Template, ...]) -> npt.NDArray[np.float32]:
        """Item vectors under a condition, kept for the next users of the same condition."""
        from methods.llmrec import model

        shown = wording or tuple(self._templates[prompt] for prompt in self.prompts)
        own = requests.catalogue.fields.get("description", ())
        key = requests.catalogue.titles, own, tuple(template.id for template in shown), requests.noise
        if key not in self._items:
            try:
                vectors = self._encode(requests, shown)
            except LlmError as error:
                raise NotRunnable(f"wording {', '.join(t.id for t in shown)}: {error}") from error
            self._items = dict(list(self._items.items())[-3:])
            self._items[key] = model.item_vectors(self.fitted.model, vectors)
        return self._items[key]

    def _how_to_fill(self, task: Task) -> str:
        name = task.catalogue.name
        where = name if name in sources.NAMED else f"FOLDER-OF-{name}"
        own = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        walk = "".join(f" --{key.replace('_', '-')} {own[key]}" for key in WALK if key in own)
        said = (
            "to have a language model write them: OPENAI_BASE_URL=... OPENAI_API_KEY=... "
            f"python -m methods.llmrec.fill --dataset {where} --llm endpoint:MODEL{walk}, "
            "with the --split, --min-rating, --min-count and --cache-dir of the run where these are not the defaults"
        )
        if recorded.path(name):
            said += f"; {name} comes with answers, so name the new ones: --llm recorded:"
            said += str(task.compute.cache / "recorded" / f"{name}.jsonl")
        return said

    def _note(self) -> str:
        if not self.prompts or any(prompt in self._unseen for prompt in self.prompts):
            return ""
        return "no unseen wording recorded: unseen prompts do not reach this row"


@dataclass
class BestLlmRec(LlmRec):
    """Every strategy is trained; the one with the best validation result is the row.

    Its estimate is an upper bound: of the unseen wordings only those of the best strategy are asked for.
    """

    strategy: str = field(default="all", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.info = MethodInfo("llmrec", PAPER, frozenset({ROLE}), frozenset({"text"}), cost=600.0)

    def fit(self, task: Task, seed: int) -> FitReport:
        """Train all strategies, keep the best."""
        rows = {name: self._row(name) for name in STRATEGIES if name != "title"}
        encoder, neighbours = self.open_encoder(task), self.open_neighbours(task)
        reports = {}
        for name, row in rows.items():
            reports[name] = row.train(task, row.prepare(task, encoder, neighbours), seed)
        quality = {name: row.fitted.quality for name, row in rows.items()}
        best = max(quality, key=lambda name: quality[name])
        self._best = rows[best]
        tried = ", ".join(f"{name} {value:.3f}" for name, value in sorted(quality.items(), key=lambda i: -i[1]))
        notes = [f"{best}, best on validation (ndcg@10: {tried})", reports[best].note]
        if not self._best.prompts:
            notes.append("its texts come from no prompt: unseen prompts do not reach this row")
        return FitReport(
            epochs=sum(report.epochs for report in reports.values()),
            converged=all(report.converged for report in reports.values()),
            interactions=sum(report.interactions for report in reports.values()),
            trials=len(rows),
            note="; ".join(filter(None, notes)),
            loss=reports[best].loss,
            negatives=reports[best].negatives,
        )

    def score(self, requests: Requests) -> FloatArray:
        """Scores of the best strategy."""
        return self._best.score(requests)

    @property
    def ledger(self) -> Ledger:
        """That of the best strategy."""
        return self._best.ledger

    @property
    def artifacts(self) -> dict[str, str]:
        """Those of the best strategy."""
        return self._best.artifacts

    def _row(self, strategy: str) -> LlmRec:
        settings = {own.name: getattr(self, own.name) for own in fields(LlmRec)}
        return LlmRec(**(settings | {"strategy": strategy}))
