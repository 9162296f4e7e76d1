"""Scores of candidates from a language model, and those of a decoder: label words, title likelihood, pooled states."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from data.histories import Histories
from data.prompts.template import Role, Slot, Template
from data.types import FloatArray, IntArray
from methods.base import Requests
from methods.lm.attention import supports_tree
from methods.lm.batches import Batch, batches, distinct, split_batch, tokens_of
from methods.lm.forward import Shortcut, hidden_states, shortcut_for, trees
from methods.lm.layout import Group
from methods.lm.logits import log_probabilities, word_odds
from methods.lm.memory import has_room_for
from methods.lm.prompts import Encoder, PromptError, as_ids, question_group
from methods.lm.workers import ahead, side_by_side, workers_for

log = logging.getLogger(__name__)
T = TypeVar("T")
Labels = tuple[tuple[int, ...], ...]
"""Tokens of the label words."""
ROWS_AT_ONCE = 32
TOKEN_BUDGET = {"cpu": 1536, "cuda": 65536}
"""Tokens per forward pass. On a CPU, states of more no longer fit into its caches and are allocated anew each time."""


class ScoringError(RuntimeError):
    """A model gave something that cannot be used as a score."""


@dataclass
class BatchedScorer:
    """What scorers share: prompts are read in batches, what is asked twice is computed once.

    Args:
        model: in evaluation mode.
        encoder: its tokenizer and window.
        batch_size: prompts per forward pass; None fills batches up to a token budget.
        workers: batches computed at a time; None for as many as the device and the model admit.
    """

    model: PreTrainedModel
    encoder: Encoder
    batch_size: int | None = None
    workers: int | None = field(default=None, kw_only=True)
    _budget: int = field(default=0, kw_only=True)
    _told: set[tuple[str, ...]] = field(default_factory=set, kw_only=True)

    def __post_init__(self) -> None:
        self._budget = self._budget or TOKEN_BUDGET.get(self.model.device.type, TOKEN_BUDGET["cpu"])

    def odds(self, groups: Sequence[Group], words: Sequence[int]) -> list[FloatArray]:
        """Log-odds of the first against the second word after every sequence, by group."""
        return self._sums(groups, None, lambda states, _: word_odds(self.model, states, words))

    def likelihood(self, groups: Sequence[Group], lengths: Sequence[Sequence[int]]) -> list[FloatArray]:
        """Sum of the log-probabilities of the last ``lengths`` tokens of every sequence, by group."""
        return self._sums(groups, lengths, lambda states, gold: log_probabilities(self.model, states, gold))

    def title_likelihood(
        self, requests: Requests, role: Role, normalised: bool = True, prior: float = 0.0
    ) -> FloatArray:
        """Log-probability of every candidate's title, shape ``[rows, candidates]``.

        A decoder reads the title in its place, and not what follows it in the template, which is the history where
        the target is named first; an encoder-decoder writes it after it read the prompt with a blank for the target.

        Args:
            requests: whom to rank what for.
            role: role of the prompt.
            normalised: divide by the number of tokens of the title.
            prior: how much of the log-probability of the title without a history to subtract.

        Raises:
            ScoringError: if a score is not a number, naming the template.
            PromptError: if a decoder's template has no target.
        """
        scores = self._titles(requests, role, normalised)
        if prior:
            blank = replace(requests, histories=Histories.of(np.empty(0, np.int64) for _ in range(len(requests))))
            scores -= prior * self._titles(blank, role, normalised)
        check_scores(scores, requests, role)
        return scores

    def _titles(self, requests: Requests, role: Role, normalised: bool) -> FloatArray:
        scores = np.empty(requests.candidates.shape)

        def ask(rows: list[int]) -> list[tuple[Group, list[int]]]:
            return [self._title_group(requests, role, row) for row in rows]

        for rows, asked in in_chunks(len(requests), ask):
            groups, lengths = zip(*asked, strict=True)
            values = np.array(self.likelihood(groups, lengths))
            scores[rows] = values / np.array(lengths) if normalised else values
        return scores

    def _title_group(self, requests: Requests, role: Role, row: int) -> tuple[Group, list[int]]:
        """The candidates' titles behind their prompt, and the number of tokens of each."""
        raise NotImplementedError

    def _states(self, groups: Sequence[Group], reads: Sequence[int]) -> Tensor:
        """Last hidden states of the last ``reads`` tokens of every sequence, shape ``[sum of reads, size]``."""
        raise NotImplementedError

    def _ready(self) -> AbstractContextManager[None]:
        """The model as :meth:`_states` needs it."""
        return nullcontext()

    @property
    def _sharable(self) -> bool:
        """Whether threads are known to be able to share the model."""
        return True

    @property
    def _packing(self) -> Shortcut:
        """How the tokens of a batch are counted."""
        return "tree"

    def _label_odds(
        self,
        requests: Requests,
        role: Role,
        tokens: Callable[[str], Sequence[int]],
        ask: Callable[[int, Sequence[Sequence[int]]], list[Group]],
    ) -> FloatArray:
        """Log-odds of the label words, shape ``[rows, candidates]``.

        Args:
            requests: whom to rank what for.
            role: role of the prompt.
            tokens: tokens of a label word.
            ask: from a row and words to the row's questions, each with every one of the words behind it in turn.

        Raises:
            ScoringError: if a score is not a number, naming the template.
        """
        scores = np.empty(requests.candidates.shape)

        def made(rows: list[int]) -> dict[Labels, dict[int, list[Group]]]:
            by_words: dict[Labels, dict[int, list[Group]]] = {}
            for row in rows:
                labels = requests.templates[role][row].labels
                words = tuple(tuple(tokens(label)) for label in labels)
                self._check_labels(labels, words)
                single = all(len(word) == 1 for word in words)
                by_words.setdefault(words, {})[row] = ask(row, [()] if single else words)
            return by_words

        for _, asked in in_chunks(len(requests), made):
            for words, by_row in asked.items():
                members, groups = list(by_row), [group for row in by_row.values() for group in row]
                if all(len(word) == 1 for word in words):
                    odds = np.concatenate(self.odds(groups, [word[0] for word in words]))
                else:
                    lengths = [list(map(len, words)) * (len(group.suffixes) // 2) for group in groups]
                    both = np.concatenate(self.likelihood(groups, lengths))
                    odds = both[0::2] - both[1::2]
                scores[members] = odds.reshape(len(members), -1)
        check_scores(scores, requests, role)
        return scores

    def _check_labels(self, labels: tuple[str, str], words: Sequence[Sequence[int]]) -> None:
        """Refuse unknown labels; say once that labels of several tokens are scored as whole words.

        Raises:
            ScoringError: if the tokenizer does not know one of them.
        """
        if any(self.encoder.tokenizer.unk_token_id in word for word in words):
            raise ScoringError(f"the tokenizer of the model does not know the label words {' and '.join(labels)}")
        if max(map(len, words)) > 1 and labels not in self._told:
            self._told.add(labels)
            log.warning(
                "label words %s are %d and %d tokens, not single tokens: scoring the whole words",
                " and ".join(map(repr, labels)),
                *map(len, words),
            )

    def _sums(
        self,
        groups: Sequence[Group],
        lengths: Sequence[Sequence[int]] | None,
        value: Callable[[Tensor, Tensor], Tensor],
    ) -> list[FloatArray]:
        """Sum of ``value`` over the states read of every sequence, by group.

        Args:
            groups: prompts with their common beginnings.
            lengths: number of tokens at the end of every sequence to predict; None to predict what comes next.
            value: from states and the tokens to predict to one number each.
        """
        once, counts, places = distinct(groups, lengths)
        results = [np.empty(len(group.suffixes)) for group in once]

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
            values = value(self._states(inputs, numbers), gold).float().cpu()  # a GPU adds in any order
            owner = torch.from_numpy(np.repeat(np.arange(len(pairs)), numbers))
            sums = values.new_zeros(len(pairs)).index_add(0, owner, values)
            for (row, column), number in zip(pairs, sums.tolist(), strict=True):
                results[row][column] = number

        with self._ready():
            self._in_batches(once, read)
        return [results[row][columns] for row, columns in places]

    def _in_batches(self, groups: Sequence[Group], read: Callable[[Batch], None]) -> None:
        """Read everything in batches; what does not fit into memory is halved."""

        def done(batch: Batch) -> list[Batch]:
            if len(batch.rows) > 1 and tokens_of(batch.groups, self._packing) > self._budget:
                smaller = list(split_batch(batch, self._budget, None, self._packing))
                if len(smaller) > 1:  # another one was too much since
                    return smaller
            inferred = torch.inference_mode()(partial(read, batch))
            return [] if has_room_for(inferred, least=len(batch.rows) == 1) else self._halve(batch)

        workers = self.workers or (workers_for(self.model.device) if self._sharable else 1)
        side_by_side(batches(groups, self._budget, self.batch_size, self._packing), done, workers)

    def _halve(self, batch: Batch) -> list[Batch]:
        half = max(1, tokens_of(batch.groups, self._packing) // 2)
        self._budget = min(self._budget, half)
        log.warning("out of memory with %d prompts in a batch: going on with half as many", len(batch.rows))
        return list(split_batch(batch, half, (len(batch.rows) + 1) // 2, self._packing))


@dataclass
class Scorer(BatchedScorer):
    """Scores candidates with one decoder-only model.

    Args:
        model: a decoder-only model in evaluation mode.
        encoder: its tokenizer and window.
        batch_size: prompts per forward pass; None fills batches up to a token budget.
        shortcut: how common prefixes are used; None for the fastest that is exact for the model.
    """

    shortcut: Shortcut | None = None

    def label_odds(self, requests: Requests, role: Role) -> FloatArray:
        """Log-odds of the positive against the negative label word, shape ``[rows, candidates]``.

        The softmax over the two words grows with the odds, so the order is the same. Labels of several
        tokens are scored as whole words: the sum of the log-probabilities of their tokens.

        Raises:
            ScoringError: if a score is not a number, naming the template.
        """

        def ask(row: int, words: Sequence[Sequence[int]]) -> list[Group]:
            group = question_group(self.encoder, requests, role, row, max(1, *map(len, words)))
            if not any(words):
                return [group]
            return [Group(group.prefix, tuple(np.append(s, as_ids(word)) for s in group.suffixes for word in words))]

        return self._label_odds(requests, role, self.encoder.word, ask)

    def pooled(self, prompts: Sequence[IntArray]) -> FloatArray:
        """Mean of the last hidden states over the tokens of each prompt, shape ``[prompts, size]``.

        Args:
            prompts: token ids, as :meth:`methods.lm.prompts.Encoder.encode` makes them.
        """
        vectors = np.empty((len(prompts), self.model.config.hidden_size))

        def read(batch: Batch) -> None:
            counts = [len(group.suffixes[0]) for group in batch.groups]
            states = self._states(batch.groups, counts).float()
            vectors[batch.rows] = torch.stack([part.mean(0) for part in states.split(counts)]).cpu().numpy()

        with self._ready():
            self._in_batches([Group(as_ids([]), (prompt,)) for prompt in prompts], read)
        return vectors

    def _title_group(self, requests: Requests, role: Role, row: int) -> tuple[Group, list[int]]:
        return title_group(self.encoder, requests, role, row)

    def _states(self, groups: Sequence[Group], reads: Sequence[int]) -> Tensor:
        return hidden_states(self.model, groups, self._packing, reads)

    def _ready(self) -> AbstractContextManager[None]:
        return trees(self.model) if self._packing == "tree" else nullcontext()

    @property
    def _sharable(self) -> bool:
        return supports_tree(self.model)

    @property
    def _packing(self) -> Shortcut:
        return self.shortcut or shortcut_for(self.model)


def check_scores(scores: FloatArray, requests: Requests, role: Role) -> None:
    """See that every score is a number.

    Raises:
        ScoringError: naming the template and the prompt of the first that is none.
    """
    bad = np.argwhere(np.isnan(scores))
    if len(bad):
        row, column = bad[0].tolist()
        title = requests.catalogue.titles[int(requests.candidates[row, column])]
        prompt = requests.prompt(role, row).with_value("target", title)
        raise ScoringError(
            f"{len(bad)} of {scores.size} scores are not a number; the first is that of template "
            f"{requests.templates[role][row].id!r}: {prompt.text!r}. Try --dtype float32"
        )


def title_group(encoder: Encoder, requests: Requests, role: Role, row: int) -> tuple[Group, list[int]]:
    """Prompt up to the target, then each candidate's title; and the number of tokens of each title.

    Raises:
        PromptError: if it does not fit into the window even without a history, or no token stands before the titles.
    """
    template = _up_to_target(requests.templates[role][row])
    titles = requests.catalogue.named(requests.candidates[row])
    history = requests.catalogue.named(requests.histories[row])
    bare, *sequences = encoder.fitting(template, requests.catalogue.domain, history, ["", *titles])
    if not bare:
        raise PromptError(
            f"template {template.id!r} begins with the target, and the tokenizer sets no start token before it: "
            "the model cannot say how likely the first token of a title is"
        )
    keep = next((n for n, token in enumerate(bare) if any(s[n] != token for s in sequences)), len(bare))
    keep = max(1, min(keep, *(len(s) - 1 for s in sequences)))
    tails = tuple(as_ids(s[keep - 1 :]) for s in sequences)
    return Group(as_ids(sequences[0][: keep - 1]), tails), [len(s) - keep for s in sequences]


def _up_to_target(template: Template) -> Template:
    if "target" not in template.slots:
        raise PromptError(f"template {template.id!r} has no {{target}}: there is no place for the title")
    return replace(template, parts=template.parts[: template.parts.index(Slot("target")) + 1])


def in_chunks(rows: int, make: Callable[[list[int]], T]) -> Iterator[tuple[list[int], T]]:
    """Row numbers, a bounded number at a time, and what is made of them while the rows before are scored."""
    chunks = [list(range(start, min(start + ROWS_AT_ONCE, rows))) for start in range(0, rows, ROWS_AT_ONCE)]
    return zip(chunks, ahead(partial(make, chunk) for chunk in chunks), strict=True)
