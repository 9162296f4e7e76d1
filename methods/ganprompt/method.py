"""GANPrompt as a row of the leaderboard; the registry has those without or with other parts of it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from data.prompts.template import Role, Template
from data.types import FloatArray
from methods.base import FitReport, MethodInfo, NotRunnable, Requests, Space, Task, require_templates
from methods.checks import check_least, check_positive, check_shares, check_types
from methods.ganprompt.choices import Adversarial, AttributeSource, DistanceName, Scoring, TargetSide

if TYPE_CHECKING:
    from methods.ganprompt.attributes import Source
    from methods.ganprompt.prompts import Attributes
    from methods.ganprompt.separation import Separation
    from methods.ganprompt.stage1 import Game
    from methods.ganprompt.stage2 import Answers, EncDecAnswers
    from methods.ganprompt.training import Lessons
    from methods.lm.backbone import Backbone
    from methods.lm.tuning import Outcome

LOSS = "binary cross-entropy"
PAPER = "Li et al. 2024, arXiv 2408.09671"
ROLE: Role = "attribute"
DEFAULT_BACKBONE = "tiny-t5"
LEAST: Mapping[str, int] = {
    **dict.fromkeys(("count", "attribute_users", "stage1_batch", "hidden", "rank", "max_prompts", "negatives"), 1),
    **dict.fromkeys(("batch", "patience", "valid_users", "valid_negatives", "shortest"), 1),
    **{"stage1_steps": 0, "epochs": 0, "least_epochs": 0, "shown_users": 2},
}
RATES = ("stage1_rate", "discriminator_rate", "rate", "projection_rate")
WEIGHTS = ("alpha", "beta", "gamma", "adversarial_weight")


class Pace(NamedTuple):
    """Learning rate and batch of a stage."""

    rate: float
    batch: int


STAGE1: Mapping[bool, Pace] = {False: Pace(5e-5, 256 // 6), True: Pace(1e-3, 16)}
"""In histories, six prompts each, for backbones that come trained (paper) and, True, embedded ones: models made from
scratch need larger rates."""
STAGE2: Mapping[bool, Pace] = {False: Pace(1e-5, 128), True: Pace(3e-3, 64)}
"""In questions, likewise."""


@dataclass
class GanPrompt:
    """A generator of diverse prompt embeddings (stage 1), and a decoder tuned behind it (stage 2).

    Args:
        row: name of the row behind ``ganprompt/``; empty for the whole method.
        attributes: ``lexicon``, ``llm`` or ``masked``.
        attribute_model: masked language model, Hugging Face id or folder; where it is given, attributes are ``masked``.
        llm: who names attributes for ``llm``: ``recorded:FILE``, ``endpoint:MODEL`` or ``local:MODEL``.
        llm_budget: hard caps such as ``requests=1000,tokens=2e6``.
        llm_run: what the caps hold for; empty for this method alone.
        count: attributes (paper: 5).
        attribute_users: users whose histories the attributes are asked for.
        gan: False for plain yes/no tuning, without attributes and stage 1.
        joint: one stage, in which encoder and adapters learn together.
        alpha: weight of the cosine term of ``cosine-js``; other distances have none.
        beta: weight of its Jensen-Shannon term.
        gamma: weight of the diversity.
        distance: ``cosine-js`` (paper), ``euclidean`` or ``mmd``.
        literal_sign: the printed formula, whose Jensen-Shannon term pulls embeddings together.
        adversarial: ``cooperative``, ``zero-sum`` or ``none``.
        adversarial_weight: weight of the discriminator's term in the generator's loss.
        stage1_steps: steps of the generator; 0 for no stage 1; ``joint`` has as many as stage 2.
        stage1_batch: histories per step, each in all classes; 42, which is 252 prompts (paper: 256), for trained
            backbones, 16 for embedded ones.
        stage1_rate: learning rate of the encoder; 5e-5 (paper) for trained backbones, 1e-3 for embedded ones.
        discriminator_rate: learning rate of the discriminator.
        hidden: width of the discriminator.
        target_side: where the target stands, ``encoder`` or ``decoder``; by default ``encoder`` (the paper's template)
            for trained backbones, and ``decoder`` for embedded ones and behind soft prompts.
        decoder_backbone: decoder-only language model behind soft prompts; empty for the encoder's own decoder.
        projection_rate: learning rate of the projection in front of it.
        scoring: ``plain`` prompts, or the ``mean`` of the log-odds over the attributes.
        rank: rank of the adapters.
        lora_alpha: scale of the adapters.
        dropout: dropout of the adapters.
        rate: learning rate of the adapters; 1e-5 (paper) if the model that answers came trained, 3e-3 if embedded.
        epochs: most passes of stage 2.
        least_epochs: passes before the first weights that may be kept; with 0 early stopping may leave stage 2 out.
        max_prompts: most questions per pass.
        negatives: negatives asked about beside each next item.
        batch: questions per step; 128 (paper) if the model that answers came trained, 64 if embedded.
        patience: evaluations without a better validation AUC before stage 2 stops.
        valid_users: validation users asked after every pass.
        valid_negatives: negatives of each of them.
        shortest: least number of history items in training (paper: 3).
        shown_users: users whose embeddings are drawn before and after stage 1.
        backbone_steps: optimiser steps of embedded backbones; their recipes' own if None.
    """

    row: str = ""
    attributes: AttributeSource = "lexicon"
    attribute_model: str = ""
    llm: str = "recorded"
    llm_budget: str = ""
    llm_run: str = ""
    count: int = 5
    attribute_users: int = 200
    gan: bool = True
    joint: bool = False
    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 1.0
    distance: DistanceName = "cosine-js"
    literal_sign: bool = False
    adversarial: Adversarial = "cooperative"
    adversarial_weight: float = 1.0
    stage1_steps: int = 100
    stage1_batch: int | None = None
    stage1_rate: float | None = None
    discriminator_rate: float = 3e-3
    hidden: int = 128
    target_side: TargetSide | None = None
    decoder_backbone: str = ""
    projection_rate: float = 1e-3
    scoring: Scoring = "plain"
    rank: int = 8
    lora_alpha: int = 16
    dropout: float = 0.05
    rate: float | None = None
    epochs: int = 6
    least_epochs: int = 0
    max_prompts: int = 3200
    negatives: int = 4
    batch: int | None = None
    patience: int = 2
    valid_users: int = 200
    valid_negatives: int = 19
    shortest: int = 3
    shown_users: int = 100
    backbone_steps: int | None = None

    space: ClassVar[Space] = {"rate": (None, 1e-3, 1e-2), "stage1_rate": (None, 3e-4), "negatives": (1, 4)}

    def __post_init__(self) -> None:
        check_types(self)
        check_least(self, LEAST)
        check_positive(self, (*RATES, "lora_alpha"))
        check_shares(self, ("dropout",), one=False)
        for name in WEIGHTS:
            if not np.isfinite(value := getattr(self, name)):
                raise ValueError(f"{name} is a finite number, not {value}")
        if self.least_epochs > self.epochs:
            raise ValueError(f"least_epochs is at most epochs, which is {self.epochs}, not {self.least_epochs}")
        if self.literal_sign and self.distance != "cosine-js":
            raise ValueError(f"literal_sign is about the printed formula: leave distance {self.distance!r} out")
        if self.decoder_backbone and self.target_side == "encoder":
            raise ValueError("behind soft prompts the target stands in the decoder: leave target_side out")
        if not self.gan and (self.joint or self.scoring == "mean"):
            raise ValueError("without gan there are no attributes: leave joint and scoring out")
        roles: tuple[Role, ...] = ("recommend", ROLE) if self.scoring == "mean" else ("recommend",)
        self.info = MethodInfo(
            name="/".join(filter(None, ("ganprompt", self.row))),
            paper=PAPER,
            roles=frozenset(roles),
            learns=frozenset({ROLE}) if self.gan else frozenset(),
            needs=frozenset({"text", "language model"}),
            cost=200.0,
        )
        self.artifacts: dict[str, str | bytes] = {}

    def fit(self, task: Task, seed: int) -> FitReport:
        """Find the attributes, make the encoder a generator, tune the decoder.

        Raises:
            NotRunnable: if there is no seen template, the backbone or the source of attributes cannot be had, the
                generator collapsed, or a batch does not fit into memory.
        """
        from methods.ganprompt.separation import separation
        from methods.ganprompt.stage1 import generate
        from methods.ganprompt.stage2 import label_loss

        require_templates(self.info, task)
        backbones = self._backbones(task)
        backbone, answering = backbones[0], backbones[-1]
        first, second = self._paces(backbone, answering)
        self._attributes = self._find_attributes(task, backbone) if self.gan else None
        own = self._own_answers(task, backbone)
        game = self._game(own, seed)
        comparable = len(task.valid) > 1  # silhouette and probe are not defined for a single user
        before = separation(game, task.valid, self.shown_users) if game and comparable else None
        shown = self.stage1_steps * first.batch if game and not self.joint else 0
        if game and shown:
            with _memory("stage1_batch", first.batch):
                generate(game, partial(label_loss, own), self._lessons(task, seed, 1, shown, first.batch), first.rate)
        self.scorer, self._answers = own, self._adapted(own, answering, seed)
        lessons = self._tuning_lessons(task, second.batch, seed)
        tuned = self._tune(task, lessons, second, (game, first.rate) if game and self.joint else None)
        notes = [model.description for model in backbones]
        if self._attributes:
            notes.append(f"attributes {', '.join(self._attributes.names)}")
        if game:
            kept = tuned.kept * lessons.steps if self.joint else len(game.watch.steps)
            notes += self._watched(game, kept, task, before)
        return FitReport(
            epochs=tuned.epochs,
            converged=tuned.converged,
            interactions=shown + tuned.epochs * lessons.windows,
            tokens=sum(model.tokens for model in backbones) + self._answers.tokens + (game.tokens if game else 0),
            note="; ".join([*notes, str(tuned)]),
            reused=sum(model.reused for model in backbones),
            loss=self._loss(game is not None),
            negatives=str(self.negatives),
        )

    def _tuning_lessons(self, task: Task, questions: int, seed: int) -> "Lessons":
        """What stage 2 learns from: batches of so many questions."""
        histories, batch = (max(1, most // (1 + self.negatives)) for most in (self.max_prompts, questions))
        histories = min(histories, int(np.maximum(task.train.lengths - 1, 0).sum()))
        return self._lessons(task, seed, 2, histories, batch, self._attributes)

    def _tune(self, task: Task, lessons: "Lessons", pace: Pace, joint: "tuple[Game, float] | None") -> "Outcome":
        """Stage 2; ``joint`` has the game that is played beside it, and its learning rate."""
        from methods.ganprompt.stage2 import tune
        from methods.lm.tuning import list_auc, valid_sample

        valid = valid_sample(task, self.valid_users, self.valid_negatives, lessons.seed)
        with _memory("batch", pace.batch):
            return tune(
                self._answers,
                lessons,
                self.epochs,
                pace.rate,
                measure=lambda: list_auc(self.score(valid)),
                patience=self.patience,
                least=self.least_epochs,
                joint=joint,
            )

    def _watched(self, game: "Game", kept: int, task: Task, before: "Separation | None") -> list[str]:
        """Keep what was seen of the game, and say in notes what its kept steps have made of the embeddings."""
        from methods.ganprompt.separation import artifacts, separation

        self.artifacts = {"stage1.csv": game.watch.table()}
        if before is None:
            return [game.watch.summary(kept)]
        after = separation(game, task.valid, self.shown_users)
        self.artifacts |= artifacts(before=before, after=after)
        return [game.watch.summary(kept), f"{before} to {after}"]

    def score(self, requests: Requests) -> FloatArray:
        """Log-odds of the positive answer, shape ``[rows, candidates]``."""
        from methods.ganprompt.prompts import joined

        if not self._attributes or self.scoring == "plain":
            return self._answers.score(requests)
        rows = list(zip(requests.templates["recommend"], requests.templates[ROLE], strict=True))
        scores = np.zeros(requests.candidates.shape)
        for name in self._attributes.names:
            worded: dict[Role, tuple[Template, ...]] = {
                "recommend": tuple(joined(template, wording, name) for template, wording in rows)
            }
            scores += self._answers.score(replace(requests, templates=worded))
        return scores / len(self._attributes.names)

    def estimate(self, task: Task, shown: Iterable[Requests]) -> str:
        """What having a language model name the attributes would take."""
        from methods.ganprompt.attributes import LlmSource, prompts

        try:
            source = self._source(task) if self.gan else None
        except NotRunnable as reason:
            return str(reason)
        if not isinstance(source, LlmSource):
            return "asks nothing"
        asked = prompts(task, task.templates[ROLE][0], self.attribute_users)
        return str(source.client.estimate([prompt.prefix.rstrip() for prompt in asked]))

    def _loss(self, played: bool) -> str:
        terms = {"diversity": self.gamma != 0, "game": self.adversarial != "none"}
        asked = " + ".join([LOSS, *(term for term, counts in terms.items() if counts)])
        if not played:
            return LOSS
        return asked if self.joint else f"{asked}, then {LOSS}"

    def _find_attributes(self, task: Task, backbone: "Backbone") -> "Attributes":
        from methods.ganprompt.attributes import attributes, prompts
        from methods.ganprompt.prompts import Attributes
        from methods.ganprompt.vocabulary import learn_words

        wordings = task.templates[ROLE]
        names = attributes(task, self._source(task), prompts(task, wordings[0], self.attribute_users), self.count)
        learn_words(backbone.model, backbone.tokenizer, names)
        return Attributes(names, wordings)

    def _source(self, task: Task) -> "Source":
        from methods.ganprompt.attributes import open_source
        from methods.lm.open import LlmChoice

        choice = LlmChoice(self.llm, self.llm_budget, self.llm_run)
        return open_source(task, "masked" if self.attribute_model else self.attributes, self.attribute_model, choice)

    def _backbones(self, task: Task) -> list["Backbone"]:
        """Whose encoder reads and, last, whose decoder answers; one if that is the same."""
        from methods.lm.backbone import load_backbone

        found = [load_backbone(task, DEFAULT_BACKBONE, ("encoder-decoder",), self.backbone_steps)]
        if self.decoder_backbone:
            compute = replace(task.compute, backbone=self.decoder_backbone, revision=None)
            found.append(load_backbone(replace(task, compute=compute), "", ("decoder",), self.backbone_steps))
        return found

    def _paces(self, encoder: "Backbone", answering: "Backbone") -> tuple[Pace, Pace]:
        """Of both stages; each follows the model that learns in it."""
        first, second = STAGE1[encoder.embedded], STAGE2[answering.embedded]
        return (
            Pace(self.stage1_rate or first.rate, self.stage1_batch or first.batch),
            Pace(self.rate or second.rate, self.batch or second.batch),
        )

    def _own_answers(self, task: Task, backbone: "Backbone") -> "EncDecAnswers":
        from methods.ganprompt.stage2 import EncDecAnswers

        decodes = backbone.embedded or self.decoder_backbone
        side = self.target_side or ("decoder" if decodes else "encoder")
        return EncDecAnswers(backbone.model, backbone.encoder(), task.catalogue, side, task.compute.batch_size)

    def _adapted(self, own: "EncDecAnswers", answering: "Backbone", seed: int) -> "Answers":
        """What stage 2 tunes: the decoder, or another language model behind the encoder."""
        from methods.ganprompt.soft import SoftAnswers
        from methods.lm.lora import Lora

        lora = Lora(self.rank, self.lora_alpha, self.dropout)
        if self.decoder_backbone:
            return SoftAnswers(own, answering, lora, seed, self.projection_rate)
        own.adapt(lora, seed)
        return own

    def _game(self, own: "EncDecAnswers", seed: int) -> "Game | None":
        """The game of encoder and discriminator, if one is played."""
        from methods.ganprompt.discriminator import Discriminator
        from methods.ganprompt.diversity import Diversity
        from methods.ganprompt.stage1 import Game

        if not self._attributes or not (self.epochs if self.joint else self.stage1_steps):
            return None
        size, classes = own.model.config.d_model, 1 + len(self._attributes.names)
        return Game(
            own.model,
            own.reader,
            own.catalogue,
            self._attributes,
            Diversity(self.alpha, self.beta, self.gamma, self.distance, self.literal_sign),
            self.adversarial,
            self.adversarial_weight,
            Discriminator(size, classes, self.hidden, self.discriminator_rate, seed, own.model.device),
            seed,
        )

    def _lessons(
        self, task: Task, seed: int, stage: int, histories: int, batch: int, attributes: "Attributes | None" = None
    ) -> "Lessons":
        from methods.ganprompt.training import Lessons
        from methods.lm.questions import Sampling

        sampling = Sampling(min(self.shortest, task.history_length), task.history_length, 1, self.negatives)
        return Lessons(task, sampling, attributes, histories, batch, seed, f"ganprompt stage {stage}")


@contextmanager
def _memory(setting: str, value: int) -> Iterator[None]:
    """Say which setting to lower where the memory is full."""
    from methods.lm.memory import out_of_memory

    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise NotRunnable(f"out of memory: lower ganprompt.{setting}, now {value}") from error
