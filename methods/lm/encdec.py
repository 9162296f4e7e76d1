"""Scores of candidates from an encoder-decoder language model of the T5 family.

The target can stand in two places. In the encoder, the whole question is read there and the decoder answers
at once; every candidate costs an encoder pass. In the decoder, the encoder reads the template with a blank
for the target, and the decoder reads ``<target>? <label>``: one encoder pass serves all candidates.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from data.dataset import Domain
from data.histories import Histories
from data.prompts.template import Role, Template
from data.types import FloatArray, IntArray
from methods.base import Requests
from methods.lm.attention import Group
from methods.lm.batches import Batch, batches, split_batch
from methods.lm.prompts import Encoder, as_ids
from methods.lm.scoring import (
    TOKEN_BUDGET,
    ScoringError,
    check_scores,
    chunks,
    head,
    log_probabilities,
    out_of_memory,
)
from methods.lm.t5 import FAMILIES, decoder_states, pooled_states

log = logging.getLogger(__name__)
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

    def prompt(self, template: Template, domain: Domain, history: Sequence[str], target: str | None = None) -> IntArray:
        """What the encoder reads: the filled template, with a blank if there is no target.

        The oldest history items are dropped if it is longer than the window.

        Raises:
            PromptError: if it does not fit into the window even without a history.
        """
        return self.prompts(template, domain, history, [self.blank if target is None else target])[0]

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
class EncDecScorer:
    """Scores candidates with one encoder-decoder.

    Args:
        model: a T5 model in evaluation mode.
        encoder: its tokenizer and window.
        batch_size: decoder sequences per forward pass; None fills batches up to a token budget.
        folded: whether the candidates of a prompt share its keys and values; None where that is exact.
    """

    model: PreTrainedModel
    encoder: Encoder
    batch_size: int | None = None
    folded: bool | None = None
    _budget: int = 0
    _told: set[tuple[str, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.reader = Reader.of(self.model, self.encoder)
        self._budget = self._budget or TOKEN_BUDGET.get(self.model.device.type, TOKEN_BUDGET["cpu"])

    def label_odds(self, requests: Requests, role: Role) -> FloatArray:
        """Log-odds of the label words with the target in the encoder, shape ``[rows, candidates]``.

        Labels of several tokens are scored as whole words.

        Raises:
            ScoringError: if a score is not a number, naming the template.
        """

        def ask(row: int, words: Sequence[Sequence[int]]) -> list[Group]:
            starts = tuple(as_ids([self.reader.start, *word]) for word in words)
            titles = [requests.catalogue.titles[item] for item in requests.candidates[row].tolist()]
            return [Group(prompt, starts) for prompt in self._prompts(requests, role, row, titles)]

        return self._label_odds(requests, role, ask, in_decoder=False)

    def decoded_odds(self, requests: Requests, role: Role) -> FloatArray:
        """Log-odds of the label words with the target in the decoder, shape ``[rows, candidates]``.

        Raises:
            ScoringError: if a score is not a number, naming the template.
        """

        def ask(row: int, words: Sequence[Sequence[int]]) -> list[Group]:
            titles = [requests.catalogue.titles[item] for item in requests.candidates[row].tolist()]
            asked = (np.append(self.reader.question(title), as_ids(word)) for title in titles for word in words)
            return [Group(self._prompts(requests, role, row, [self.reader.blank])[0], tuple(asked))]

        return self._label_odds(requests, role, ask, in_decoder=True)

    def title_likelihood(
        self, requests: Requests, role: Role, normalised: bool = True, prior: float = 0.0
    ) -> FloatArray:
        """Log-probability that the decoder writes each candidate's title, shape ``[rows, candidates]``.

        Args:
            requests: whom to rank what for.
            role: role of the prompt; its target is left blank.
            normalised: divide by the number of tokens of the title.
            prior: how much of the log-probability of the title without a history to subtract.

        Raises:
            ScoringError: if a score is not a number, naming the template.
        """
        scores = self._titles(requests, role, normalised)
        if prior:
            nothing = Histories.of(np.empty(0, np.int64) for _ in range(len(requests)))
            scores -= prior * self._titles(replace(requests, histories=nothing), role, normalised)
        check_scores(scores, requests, role)
        return scores

    def pooled(self, prompts: Sequence[IntArray]) -> FloatArray:
        """Mean of the last encoder states over the tokens of each prompt, shape ``[prompts, size]``.

        Args:
            prompts: as :class:`Reader` makes them.
        """
        vectors = np.empty((len(prompts), self.model.config.d_model))
        groups = [Group(prompt, (as_ids([self.reader.start]),)) for prompt in prompts]

        def read(batch: Batch) -> None:
            states = pooled_states(self.model, [group.prefix for group in batch.groups])
            vectors[batch.rows] = states.float().cpu().numpy()

        self._in_batches(groups, read)
        return vectors

    def _prompts(self, requests: Requests, role: Role, row: int, targets: Sequence[str]) -> list[IntArray]:
        history = [requests.catalogue.titles[item] for item in requests.histories[row].tolist()]
        return self.reader.prompts(requests.templates[role][row], requests.catalogue.domain, history, targets)

    def _titles(self, requests: Requests, role: Role, normalised: bool) -> FloatArray:
        scores = np.empty(requests.candidates.shape)
        for rows in chunks(len(requests)):
            groups, lengths = [], []
            for row in rows:
                titles = [requests.catalogue.titles[item] for item in requests.candidates[row].tolist()]
                prompt = self._prompts(requests, role, row, [self.reader.blank])[0]
                groups.append(Group(prompt, tuple(self.reader.title(title) for title in titles)))
                lengths.append([len(self.reader.tokens(title)) for title in titles])
            values = self._likelihood(groups, lengths)
            scores[rows] = np.array(values) / np.array(lengths) if normalised else np.array(values)
        return scores

    def _label_odds(
        self,
        requests: Requests,
        role: Role,
        ask: Callable[[int, Sequence[Sequence[int]]], list[Group]],
        in_decoder: bool,
    ) -> FloatArray:
        """Scores of each row from the groups that ``ask`` makes of it and the words behind every question."""
        scores = np.empty(requests.candidates.shape)
        for rows in chunks(len(requests)):
            by_words: dict[tuple[tuple[int, ...], ...], list[int]] = {}
            for row in rows:
                words = self._label_tokens(requests.templates[role][row].labels, in_decoder)
                by_words.setdefault(words, []).append(row)
            for words, members in by_words.items():
                if all(len(word) == 1 for word in words):
                    groups = [group for row in members for group in ask(row, [()])]
                    odds = np.concatenate(self._odds(groups, [word[0] for word in words]))
                else:
                    groups = [group for row in members for group in ask(row, words)]
                    lengths = [list(map(len, words)) * (len(group.suffixes) // 2) for group in groups]
                    both = np.concatenate(self._likelihood(groups, lengths))
                    odds = both[0::2] - both[1::2]
                scores[members] = odds.reshape(len(members), -1)
        check_scores(scores, requests, role)
        return scores

    def _label_tokens(self, labels: tuple[str, str], in_decoder: bool) -> tuple[tuple[int, ...], ...]:
        words = tuple(tuple(self.reader.label(label, in_decoder)) for label in labels)
        if max(map(len, words)) > 1 and labels not in self._told:
            self._told.add(labels)
            log.warning(
                "label words %s are %d and %d tokens, not single tokens: scoring the whole words",
                " and ".join(map(repr, labels)),
                *map(len, words),
            )
        return words

    def _odds(self, groups: Sequence[Group], words: Sequence[int]) -> list[FloatArray]:
        """Log-odds of the first against the second word after every sequence, by group."""
        return self._read(groups, None, lambda states, _: _difference(head(self.model, states, torch.tensor(words))))

    def _likelihood(self, groups: Sequence[Group], lengths: Sequence[Sequence[int]]) -> list[FloatArray]:
        """Sum of the log-probabilities of the last tokens of every sequence, by group."""
        return self._read(groups, lengths, lambda states, gold: log_probabilities(self.model, states, gold))

    def _read(
        self,
        groups: Sequence[Group],
        lengths: Sequence[Sequence[int]] | None,
        value: Callable[[Tensor, Tensor], Tensor],
    ) -> list[FloatArray]:
        """Sum of ``value`` over the states read of every sequence; what is asked twice is computed once.

        Args:
            groups: prompts and decoder sequences.
            lengths: number of tokens at the end of every sequence to predict; None to predict what comes next.
            value: from states and the tokens to predict to one number each.
        """
        distinct, counts, places = _distinct(groups, lengths)
        results = [np.empty(len(group.suffixes)) for group in distinct]

        def read(batch: Batch) -> None:
            pairs = list(zip(batch.rows.tolist(), batch.columns.tolist(), strict=True))
            sequences = [suffix for group in batch.groups for suffix in group.suffixes]
            inputs: Sequence[Group] = batch.groups
            numbers = [1] * len(pairs)
            gold = torch.zeros(0, dtype=torch.long)
            if lengths is not None:
                numbers = [counts[row][column] for row, column in pairs]
                gold = torch.from_numpy(np.concatenate([s[-n:] for s, n in zip(sequences, numbers, strict=True)]))
                inputs = [replace(g, suffixes=tuple(s[:-1] for s in g.suffixes)) for g in batch.groups]
            values = value(decoder_states(self.model, inputs, numbers, self.folded), gold).float()
            owner = torch.from_numpy(np.repeat(np.arange(len(pairs)), numbers)).to(values.device)
            sums = values.new_zeros(len(pairs)).index_add(0, owner, values)
            for (row, column), number in zip(pairs, sums.tolist(), strict=True):
                results[row][column] = number

        self._in_batches(distinct, read)
        return [results[row][columns] for row, columns in places]

    def _in_batches(self, groups: Sequence[Group], read: Callable[[Batch], None]) -> None:
        """Read everything in batches; what does not fit into memory is halved."""
        pending = list(batches(groups, self._budget, self.batch_size, "tree"))[::-1]
        with torch.inference_mode():
            while pending:
                batch = pending.pop()
                try:
                    read(batch)
                except RuntimeError as error:
                    if not out_of_memory(error) or len(batch.rows) == 1:
                        raise
                    pending += reversed(self._halve(batch))

    def _halve(self, batch: Batch) -> list[Batch]:
        self._budget = max(1, self._budget // 2)
        log.warning("out of memory with %d prompts in a batch: going on with half as many", len(batch.rows))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        tokens = sum(group.tokens for group in batch.groups)
        return list(split_batch(batch, tokens // 2, (len(batch.rows) + 1) // 2, "tree"))


def _difference(logits: Tensor) -> Tensor:
    return logits[:, 0] - logits[:, 1]


def _distinct(
    groups: Sequence[Group], lengths: Sequence[Sequence[int]] | None
) -> tuple[list[Group], list[list[int]], list[tuple[int, list[int]]]]:
    """Groups with different prompts, each decoder sequence of a prompt once.

    Returns:
        The groups, the lengths of their sequences, and for every group given its place: row and columns.
    """
    rows: dict[bytes, int] = {}
    found: list[dict[tuple[bytes, int], int]] = []
    kept: list[tuple[IntArray, list[IntArray]]] = []
    places = []
    for number, group in enumerate(groups):
        row = rows.setdefault(group.prefix.tobytes(), len(rows))
        if row == len(found):
            found.append({})
            kept.append((group.prefix, []))
        columns = []
        for n, suffix in enumerate(group.suffixes):
            key = (suffix.tobytes(), 0 if lengths is None else lengths[number][n])
            if key not in found[row]:
                found[row][key] = len(kept[row][1])
                kept[row][1].append(suffix)
            columns.append(found[row][key])
        places.append((row, columns))
    distinct = [Group(prefix, tuple(suffixes)) for prefix, suffixes in kept]
    return distinct, [[length for _, length in known] for known in found], places
