"""Stage 1: the encoder becomes a generator of diverse prompt embeddings.

In every step the discriminator learns to tell the classes apart, then the encoder takes a step on

    L_G = L_LM + diversity term + weight * (+ or -) cross-entropy of the discriminator

with the decoder and the word embeddings, which both share, frozen. The paper's text calls the game zero-sum (the
encoder deceives the discriminator), its figure 3 shows classes that are pulled apart (both work together).
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from statistics import mean

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from data.dataset import Catalogue
from data.random import generator
from data.types import IntArray
from methods.artifacts import csv_text
from methods.base import NotRunnable
from methods.ganprompt.choices import Adversarial
from methods.ganprompt.discriminator import Discriminator
from methods.ganprompt.diversity import Diversity, cosine_distance, jensen_shannon, mean_pairwise
from methods.ganprompt.prompts import Attributes, classes
from methods.ganprompt.training import Example, Lessons
from methods.lm.encdec import Reader
from methods.lm.questions import pick
from methods.lm.t5 import pooled_states
from methods.lm.tuning import Part, Schedule, optimise

log = logging.getLogger(__name__)


class GeneratorCollapsed(NotRunnable):
    """Stage 1 went wrong in a way that going on cannot mend."""


@dataclass(frozen=True)
class Step:
    """What one step of stage 1 saw.

    Args:
        step: number, from 1.
        generator: L_G.
        language: L_LM.
        discriminator: cross-entropy of the discriminator before its own step.
        accuracy: share of classes it named rightly.
        diversity: mean cosine distance between the classes of a user.
        js: their mean Jensen-Shannon divergence.
    """

    step: int
    generator: float
    language: float
    discriminator: float
    accuracy: float
    diversity: float
    js: float


@dataclass
class Watch:
    """Keeps the steps and stops when the generator has collapsed.

    Args:
        classes: number of classes.
        remedy: settings to change, for the messages.
        patience: steps for which diversity is gone, or the discriminator at chance, before it stops.
        gone: share of the first diversity that counts as none.
        margin: accuracy above chance that still counts as chance.
        warmup: steps in which the discriminator has not learnt yet.
        progress: fall of the discriminator's loss, in nats from one ``patience`` steps to the next, above which it is
            still learning, however little it knows yet.
        asked: whether anything is asked of the embeddings; without, they may do as they like.
    """

    classes: int
    remedy: str
    patience: int = 30
    gone: float = 0.01
    margin: float = 0.05
    warmup: int = 50
    progress: float = 0.003
    asked: bool = True
    steps: list[Step] = field(default_factory=list)

    def see(self, step: Step) -> None:
        """Keep and log a step.

        Raises:
            GeneratorCollapsed: if a number is none, diversity is gone or the discriminator guesses.
        """
        self.steps.append(step)
        log.info("stage 1: %s", ", ".join(f"{name} {value:.4g}" for name, value in asdict(step).items()))
        if not all(map(math.isfinite, asdict(step).values())):
            self._stop("a loss is not a number; lower stage1_rate, or use --dtype float32")
        late = self.steps[-self.patience :]
        if len(late) < self.patience or not self.asked:
            return
        if max(s.diversity for s in late) <= self.gone * self.steps[0].diversity:
            self._stop(f"the embeddings of all attributes have become one; {self.remedy}")
        chance = 1 / self.classes + self.margin
        guesses = mean(s.accuracy for s in late) <= chance and not self._learning()
        if step.step >= self.warmup + self.patience and guesses:
            self._stop(
                f"for {self.patience} steps the discriminator has named {chance:.0%} of the classes or fewer "
                f"without getting better, which is guessing; {self.remedy}"
            )

    def _learning(self) -> bool:
        """Whether the discriminator's loss falls."""
        losses = [step.discriminator for step in self.steps[-2 * self.patience :]]
        before, late = losses[: -self.patience], losses[-self.patience :]
        return bool(before) and mean(before) - mean(late) > self.progress

    def summary(self, kept: int) -> str:
        """The first step and the last of those that were kept in words; at least one was made."""
        first, last = self.steps[0], self.steps[:kept][-1] if kept else self.steps[0]
        return f"diversity {first.diversity:.4f} to {last.diversity:.4f}, discriminator accuracy {last.accuracy:.2f}"

    def table(self) -> str:
        """All steps as CSV."""
        rows = ((f"{value:.6g}" for value in asdict(step).values()) for step in self.steps)
        return csv_text([column.name for column in fields(Step)], rows)

    def _stop(self, reason: str) -> None:
        raise GeneratorCollapsed(f"the generator collapsed in step {self.steps[-1].step} of stage 1: {reason}")


@dataclass
class Game:
    """The generator's loss, and the discriminator beside it.

    Args:
        model: the encoder-decoder whose encoder is the generator.
        reader: makes prompts for it.
        catalogue: item titles.
        attributes: classes and their wordings.
        diversity: what is asked of the embeddings.
        adversarial: ``cooperative`` helps the discriminator, ``zero-sum`` deceives it, ``none`` ignores it.
        weight: of the adversarial term.
        discriminator: tells classes apart.
        seed: of the wordings drawn.
        tokens: tokens computed in training.
    """

    model: PreTrainedModel
    reader: Reader
    catalogue: Catalogue
    attributes: Attributes
    diversity: Diversity
    adversarial: Adversarial
    weight: float
    discriminator: Discriminator
    seed: int
    tokens: int = 0

    def __post_init__(self) -> None:
        self._rng = generator(self.seed, "ganprompt wordings")
        self._sign = {"cooperative": 1, "zero-sum": -1, "none": 0}[self.adversarial]
        self.watch = Watch(
            self.discriminator.classes,
            f"raise gamma (now {self.diversity.gamma:g}), lower stage1_rate or stage1_steps, or set adversarial to "
            + " or ".join(mode for mode in ("cooperative", "none") if mode != self.adversarial),
            asked=bool(self._sign or self.diversity.gamma),
        )

    def loss(self, batch: Sequence[Example], language: Tensor) -> Tensor:
        """L_G of a batch after one step of the discriminator; ``language`` is L_LM, with or without a gradient.

        Raises:
            GeneratorCollapsed: see :class:`Watch`.
        """
        prompts = self.prompts([example.shown.history for example in batch], self._rng)
        self.tokens += sum(map(len, prompts))
        embeddings = self.embeddings(prompts)
        wrong, accuracy = self.discriminator.learn(embeddings)
        total = language + self.diversity.term(embeddings)
        if self._sign:
            total = total + self._sign * self.weight * self.discriminator.loss(embeddings)
        distances = (mean_pairwise(distance, embeddings) for distance in (cosine_distance, jensen_shannon))
        whole, lm, *apart = (float(value.detach()) for value in (total, language, *distances))
        self.watch.see(Step(len(self.watch.steps) + 1, whole, lm, wrong, accuracy, *apart))
        return total

    def prompts(self, histories: Sequence[IntArray], rng: np.random.Generator) -> list[IntArray]:
        """Every history in every class; the wording is drawn for every history and is the same for its classes."""
        prompts = []
        for history in histories:
            titles = self.catalogue.named(history)
            worded = classes(pick(self.attributes.wordings, rng), self.attributes.names)
            prompts += [self.reader.prompt(template, self.catalogue.domain, titles) for template in worded]
        return prompts

    def embeddings(self, prompts: Sequence[IntArray]) -> Tensor:
        """Mean encoder states of prompts of all classes, shape ``[histories, classes, size]``, in single precision.

        Always without dropout, whose noise would keep equal prompts apart; in bfloat16 distances would be rounding.
        """
        encoder = self.model.get_encoder()
        training = encoder.training
        encoder.eval()
        pooled = pooled_states(self.model, prompts).float()
        encoder.train(training)
        return pooled.view(-1, self.discriminator.classes, pooled.shape[1])


def encoder_part(model: PreTrainedModel, rate: float) -> Part:
    """What stage 1 changes: the encoder without the word embeddings, which the decoder uses, too."""
    encoder, shared = model.get_encoder(), model.get_input_embeddings().weight
    parameters = tuple(p for p in encoder.parameters() if p is not shared)
    for parameter in parameters:
        parameter.requires_grad_(True)
    return Part(encoder, parameters, rate)


def generate(game: Game, language: Callable[[Sequence[Example]], Tensor], lessons: Lessons, rate: float) -> None:
    """Make the encoder a generator, and freeze it.

    Args:
        game: the generator's loss.
        language: L_LM of a batch.
        lessons: one epoch of plain examples.
        rate: learning rate of the encoder.

    Raises:
        GeneratorCollapsed: see :class:`Watch`.
    """
    part = encoder_part(game.model, rate)

    def loss(batch: Sequence[Example]) -> Tensor:
        value = language(batch)
        value.backward()
        return game.loss(batch, value.detach())  # the graphs of both halves are never in memory together

    with single_precision(game.model):
        optimise([part], [lessons.epoch(0)], loss, Schedule(rate, lessons.steps), lessons.seed, lessons.purpose)
    for parameter in part.parameters:
        parameter.requires_grad_(False)


@contextmanager
def single_precision(model: PreTrainedModel) -> Iterator[None]:
    """Let the encoder learn in single precision: half precision rounds its small steps away."""
    dtypes = [parameter.dtype for parameter in model.parameters()]  # in float16, some are single on purpose
    model.float()
    yield
    for parameter, dtype in zip(model.parameters(), dtypes, strict=True):
        parameter.data = parameter.data.to(dtype)
