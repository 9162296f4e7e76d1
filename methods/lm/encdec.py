"""Scores of candidates from an encoder-decoder language model of the T5 family.

The target can stand in two places. In the encoder, the whole question is read there and the decoder answers
at once; every candidate costs an encoder pass. In the decoder, the encoder reads the template with a blank
for the target, and the decoder reads ``<target>? <label>``: one encoder pass serves all candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from data.dataset import Domain
from data.prompts.template import Role, Template
from data.types import FloatArray, IntArray
from methods.base import Requests
from methods.lm.batches import Batch
from methods.lm.layout import Group
from methods.lm.prompts import Encoder, as_ids
from methods.lm.scoring import BatchedScorer, ScoringError
from methods.lm.t5 import FAMILIES, decoder_states, pooled_states

BLANK = "___"
SENTINEL = "<extra_id_0>"
CUE = "?"


@dataclass
class Reader:
    """Turns questions into what the encoder and the decoder read.

    Args:
        encoder: tokenizer and window.
        start: token the decoder starts with.
        blank: what stands for the target in a prompt whose target is in the decoder.
        lead: decoder tokens between the start and the target.
        ending: tokens behind every prompt.
    """

    encoder: Encoder
    start: int
    blank: str = BLANK
    lead: tuple[int, ...] = ()
    ending: tuple[int, ...] = ()
    _tokens: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: PreTrainedModel, encoder: Encoder) -> "Reader":
        """The reader of a model; a tokenizer with T5's sentinels gets the one T5 was trained to fill in.

        Raises:
            ScoringError: if the model is not of the T5 family or says no decoder start token.
        """
        config: Any = model.config
        if config.model_type not in FAMILIES:
            raise ScoringError(
                f"{config.model_type} models cannot score: encoder-decoders known here are {', '.join(FAMILIES)}"
            )
        start = config.decoder_start_token_id if config.decoder_start_token_id is not None else config.pad_token_id
        if start is None:
            raise ScoringError("the configuration of the model names neither a decoder start token nor a pad token")
        tokenizer = encoder.tokenizer
        ending = tuple(tokenizer("a")["input_ids"][-1:])
        ending = ending if ending == (tokenizer.eos_token_id,) else ()
        sentinel = tokenizer.get_vocab().get(SENTINEL)
        if sentinel is None:
            return cls(encoder, start, ending=ending)
        return cls(encoder, start, SENTINEL, (sentinel,), ending)

    def prompt(self, template: Template, domain: Domain, history: Sequence[str]) -> IntArray:
        """What the encoder reads: the filled template, with a blank for the target.

        The oldest history items are dropped if it is longer than the window.

        Raises:
            PromptError: if it does not fit into the window even without a history.
        """
        return self.prompts(template, domain, history, [self.blank])[0]

    def prompts(
        self, template: Template, domain: Domain, history: Sequence[str], targets: Sequence[str]
    ) -> list[IntArray]:
        """What the encoder reads for each of several targets."""
        rows = self.encoder.fitting(template, domain, history, targets, room=len(self.ending))
        return [as_ids([*row, *self.ending]) for row in rows]

    def text(self, text: str) -> IntArray:
        """What the encoder reads of any text."""
        return as_ids([*self.encoder.encode([text])[0], *self.ending])

    def tokens(self, text: str) -> list[int]:
        """Tokens of a text on its own, without special tokens."""
        if text not in self._tokens:
            self._tokens[text] = self.encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._tokens[text]

    def title(self, title: str) -> IntArray:
        """What the decoder reads when it writes the target."""
        return as_ids([self.start, *self.lead, *self.tokens(title)])

    def question(self, title: str) -> IntArray:
        """What the decoder reads when it is asked about the target; the label comes next."""
        return as_ids([self.start, *self.lead, *self.tokens(title + CUE)])

    def label(self, word: str, in_decoder: bool) -> list[int]:
        """Tokens of a label word, after a question in the decoder or at its beginning."""
        return self.encoder.word(word, CUE) if in_decoder else self.tokens(word)


@dataclass
class EncDecScorer(BatchedScorer):
    """Scores candidates with one encoder-decoder.

    Args:
        model: a T5 model in evaluation mode.
        encoder: its tokenizer and window.
        batch_size: decoder sequences per forward pass; None fills batches up to a token budget.
        folded: whether the candidates of a prompt share its keys and values; None where that is exact.
    """

    folded: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.reader = Reader.of(self.model, self.encoder)

    def label_odds(self, requests: Requests, role: Role) -> FloatArray:
        """Log-odds of the label words with the target in the encoder, shape ``[rows, candidates]``.

        Labels of several tokens are scored as whole words.

        Raises:
            ScoringError: if a score is not a number, naming the template.
        """

        def ask(row: int, words: Sequence[Sequence[int]]) -> list[Group]:
            starts = tuple(as_ids([self.reader.start, *word]) for word in words)
            titles = requests.catalogue.named(requests.candidates[row])
            return [Group(prompt, starts) for prompt in self._prompts(requests, role, row, titles)]

        return self._label_odds(requests, role, partial(self.reader.label, in_decoder=False), ask)

    def decoded_odds(self, requests: Requests, role: Role) -> FloatArray:
        """Log-odds of the label words with the target in the decoder, shape ``[rows, candidates]``.

        Raises:
            ScoringError: if a score is not a number, naming the template.
        """

        def ask(row: int, words: Sequence[Sequence[int]]) -> list[Group]:
            titles = requests.catalogue.named(requests.candidates[row])
            asked = (np.append(self.reader.question(title), as_ids(word)) for title in titles for word in words)
            return [Group(self._prompts(requests, role, row, [self.reader.blank])[0], tuple(asked))]

        return self._label_odds(requests, role, partial(self.reader.label, in_decoder=True), ask)

    def pooled(self, prompts: Sequence[IntArray]) -> FloatArray:
        """Mean of the last encoder states over the tokens of each prompt, shape ``[prompts, size]``.

        Args:
            prompts: as :class:`Reader` makes them.
        """
        vectors = np.empty((len(prompts), self.model.config.d_model))
        groups = [Group(prompt, (as_ids([self.reader.start]),)) for prompt in prompts]

        def read(batch: Batch) -> None:
            vectors[batch.rows] = pooled_states(self.model, [group.prefix for group in batch.groups]).cpu().numpy()

        self._in_batches(groups, read)
        return vectors

    def _prompts(self, requests: Requests, role: Role, row: int, targets: Sequence[str]) -> list[IntArray]:
        history = requests.catalogue.named(requests.histories[row])
        return self.reader.prompts(requests.templates[role][row], requests.catalogue.domain, history, targets)

    def _title_group(self, requests: Requests, role: Role, row: int) -> tuple[Group, list[int]]:
        titles = requests.catalogue.named(requests.candidates[row])
        prompt = self._prompts(requests, role, row, [self.reader.blank])[0]
        lengths = [len(self.reader.tokens(title)) for title in titles]
        return Group(prompt, tuple(self.reader.title(title) for title in titles)), lengths

    def _states(self, groups: Sequence[Group], reads: Sequence[int]) -> Tensor:
        return decoder_states(self.model, groups, reads, self.folded)
