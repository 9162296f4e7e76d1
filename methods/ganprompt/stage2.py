"""Stage 2: adapters on the decoder learn to answer behind the frozen encoder."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PreTrainedModel

from data.dataset import Catalogue
from data.types import FloatArray
from methods.base import Requests
from methods.ganprompt.choices import TargetSide
from methods.ganprompt.stage1 import Game, encoder_part, single_precision
from methods.ganprompt.training import Example, Lessons
from methods.lm.encdec import EncDecScorer, Reader
from methods.lm.encdec_questions import decoded_questions, encoded_questions
from methods.lm.layout import Group
from methods.lm.logits import head
from methods.lm.lora import TARGETS, Lora, add_lora, inner, merged
from methods.lm.prompts import Encoder, as_ids
from methods.lm.questions import Questions
from methods.lm.scoring import ScoringError
from methods.lm.t5 import decoder_states
from methods.lm.tuning import Outcome, Part, Schedule, optimise


class Answers(Protocol):
    """Answers whether items come next: what stage 2 tunes.

    Attributes:
        tokens: tokens computed in training.
    """

    tokens: int

    def odds(self, batch: Sequence[Example]) -> Tensor:
        """Log-odds of the label words for every item of every example, one after the other, with gradients."""
        ...

    def score(self, requests: Requests) -> FloatArray:
        """Log-odds for every candidate, shape ``[rows, candidates]``."""
        ...

    def parts(self) -> list[Part]:
        """What learns, without a rate where it is that of the schedule."""
        ...

    def finish(self) -> None:
        """Called once, after tuning."""
        ...


def label_loss(answers: Answers, batch: Sequence[Example]) -> Tensor:
    """Binary cross-entropy of the label words, the probabilities taken among the two of them.

    It is L_LM of stage 1, too. Over the whole vocabulary, an encoder whose decoder was never taught to answer with
    these words alone would learn to make them likely, whatever the question.
    """
    odds = answers.odds(batch).float()
    chosen = torch.cat([torch.from_numpy(example.shown.chosen) for example in batch])
    return binary_cross_entropy_with_logits(odds, chosen.to(odds))


@dataclass(frozen=True)
class Contrast:
    """Two label words as tokens: what they begin with in common, and the first tokens that tell them apart."""

    shared: tuple[int, ...]
    positive: int
    negative: int

    @classmethod
    def of(cls, positive: Sequence[int], negative: Sequence[int]) -> "Contrast":
        """The contrast of two words.

        Raises:
            ScoringError: if one of them begins with the other.

        >>> Contrast.of([5, 7, 1], [5, 9])
        Contrast(shared=(5,), positive=7, negative=9)
        """
        for n, (yes, no) in enumerate(zip(positive, negative, strict=False)):
            if yes != no:
                return cls(tuple(positive[:n]), yes, no)
        raise ScoringError("one of the two label words begins with the other: no token tells them apart")


def contrasted(model: PreTrainedModel, states: Tensor, words: Sequence[Contrast]) -> Tensor:
    """Log-odds of the positive against the negative word after each state, shape ``[states]``."""
    tokens, columns = np.unique([(word.positive, word.negative) for word in words], return_inverse=True)
    logits = head(model, states, torch.from_numpy(tokens))
    both = logits.gather(1, torch.from_numpy(columns.reshape(-1, 2)).to(logits.device))
    return both[:, 0] - both[:, 1]


@dataclass
class EncDecAnswers:
    """The decoder of an encoder-decoder.

    Args:
        model: a T5 model.
        encoder: its tokenizer and window.
        catalogue: item titles.
        target_side: where the target stands: in the prompt (the paper's template), or in front of the answer,
            which lets one pass of the encoder serve all candidates (the paper's formula has no target in it).
        batch_size: decoder sequences per forward pass in scoring.
        tokens: tokens computed in training.
    """

    model: PreTrainedModel
    encoder: Encoder
    catalogue: Catalogue
    target_side: TargetSide
    batch_size: int | None = None
    tokens: int = 0

    def __post_init__(self) -> None:
        self.reader = Reader.of(self.model, self.encoder)
        self.model.requires_grad_(False)

    def adapt(self, lora: Lora, seed: int) -> None:
        """Put adapters on the decoder's queries and values; they alone learn."""
        wanted = lora.targets or TARGETS[self.model.config.model_type]
        names = (name for name, _ in self.model.named_modules())
        places = tuple(n for n in names if n.startswith("decoder.") and n.rpartition(".")[2] in wanted)
        self._adapted = add_lora(self.model, replace(lora, targets=places), seed).eval()
        self.model = inner(self._adapted)

    def parts(self) -> list[Part]:
        """The decoder's adapters."""
        decoder = self.model.get_decoder()
        return [Part(decoder, tuple(p for p in decoder.parameters() if p.requires_grad))]

    def finish(self) -> None:
        """Add the adapters to the weights."""
        self.model = merged(self._adapted)

    def odds(self, batch: Sequence[Example]) -> Tensor:
        """Log-odds of the label words for every item of every example."""
        groups, read = list[Group](), list[Contrast]()
        for example in batch:
            words = self._words(example.template.labels)
            for one in self._questions(example):
                ends = zip(one.group.suffixes, one.answers, strict=True)
                asked = tuple(as_ids([*suffix[: len(suffix) - count], *words.shared]) for suffix, count in ends)
                groups.append(Group(one.group.prefix, asked))
                read += [words] * len(asked)
        return contrasted(self.model, decoder_states(self.model, groups), read)

    def score(self, requests: Requests) -> FloatArray:
        """Log-odds for every candidate."""
        scorer = EncDecScorer(self.model, self.encoder, self.batch_size)
        score = scorer.decoded_odds if self.target_side == "decoder" else scorer.label_odds
        return score(requests, "recommend")

    def _words(self, labels: tuple[str, str]) -> "Contrast":
        return Contrast.of(*(self.reader.label(word, self.target_side == "decoder") for word in labels))

    def _questions(self, example: Example) -> Sequence[Questions]:
        asked = (self.reader, self.catalogue, example.template, example.shown)
        found = [decoded_questions(*asked)] if self.target_side == "decoder" else encoded_questions(*asked)
        self.tokens += sum(one.group.tokens for one in found)
        return found


def tune(
    answers: Answers,
    lessons: Lessons,
    epochs: int,
    rate: float,
    measure: Callable[[], float],
    patience: int,
    least: int = 0,
    joint: tuple[Game, float] | None = None,
) -> Outcome:
    """Tune what answers on the binary cross-entropy of the label words; the best weights on validation stay.

    Args:
        answers: what is tuned.
        lessons: questions.
        epochs: most passes.
        rate: learning rate.
        measure: quality on validation.
        patience: passes without a better one before it stops.
        least: passes before the first weights that may be kept.
        joint: the generator's game and the encoder's rate, if the encoder learns at the same time.
    """
    parts = answers.parts()
    if joint:
        parts.append(encoder_part(joint[0].model, joint[1]))

    def loss(batch: list[Example]) -> Tensor:
        value = label_loss(answers, batch)
        return joint[0].loss(batch, value) if joint else value

    with single_precision(joint[0].model) if joint else nullcontext():
        outcome = optimise(
            parts,
            map(lessons.epoch, range(epochs)),
            loss,
            Schedule(rate, epochs * lessons.steps, patience, least=least),
            lessons.seed,
            lessons.purpose,
            measure,
        )
    answers.finish()
    return outcome
