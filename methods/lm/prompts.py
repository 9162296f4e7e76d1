"""Prompts as token sequences: whole prompts are tokenised, then common beginnings are found."""

import logging
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from transformers import PreTrainedTokenizerBase

from data.dataset import Domain
from data.prompts.template import Prompt, Role, Template
from data.types import IntArray
from methods.base import Requests
from methods.lm.layout import Group

log = logging.getLogger(__name__)
BREAKS = frozenset(string.whitespace + string.punctuation) - {"_"}


class PromptError(ValueError):
    """A prompt cannot be shown to the model."""


@dataclass
class Encoder:
    """Turns prompts into token ids.

    Args:
        tokenizer: of the model.
        window: longest sequence the model takes.
        local: whether tokens never span a white space or punctuation character, so that pieces between
            such characters can be tokenised on their own, and values remembered. True for the embedded backbones.
        shortened: number of prompts that were shown fewer history items than asked for.
    """

    tokenizer: PreTrainedTokenizerBase
    window: int
    local: bool = False
    shortened: int = 0
    _pieces: dict[str, list[int]] = field(default_factory=dict)
    _words: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def word(self, word: str, after: str = "Answer:") -> list[int]:
        """Tokens of a word that follows a prompt, after one space.

        Raises:
            PromptError: if the tokenizer changes the tokens of the prompt when the word follows.
        """
        if (word, after) not in self._words:
            alone, both = self.encode([after, f"{after} {word}"])
            if both[: len(alone)] != alone or len(both) == len(alone):
                raise PromptError(f"the tokenizer does not keep the tokens of {after!r} when {word!r} follows")
            self._words[word, after] = both[len(alone) :]
        return self._words[word, after]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of whole texts, with the special tokens the model expects in front and none behind."""
        rows = self.tokenizer(list(texts), add_special_tokens=True, return_attention_mask=False)["input_ids"]
        end = self.tokenizer.eos_token_id
        return [row[:-1] if len(row) > 1 and row[-1] == end else row for row in rows]

    def filled(self, prompt: Prompt, slot: str, values: Sequence[str]) -> list[list[int]]:
        """Token ids of the prompt with each of the values in an open slot."""
        if self.local:
            return self._filled_by_pieces(prompt, slot, values)
        return self.encode([prompt.with_value(slot, value).text.rstrip() for value in values])

    def fitting(
        self,
        template: Template,
        domain: Domain,
        history: Sequence[str],
        targets: Sequence[str],
        room: int = 0,
    ) -> list[list[int]]:
        """Token ids of one prompt per target, with as much of the history as the window holds.

        The oldest history items are dropped first; nothing else is ever cut off.

        Args:
            template: with slots ``{history}`` and ``{target}``.
            domain: words of the domain slots.
            history: titles, oldest first.
            targets: one title per prompt; an empty one does not count as a prompt.
            room: tokens to keep free for the answer.

        Raises:
            PromptError: if a prompt does not fit even without a history.
        """
        for dropped in range(len(history) + 1):
            prompt = template.fill(domain, {"history": history[dropped:]})
            sequences = self.filled(prompt, "target", targets)
            if max(map(len, sequences)) + room <= self.window:
                self.shortened += bool(dropped) * sum(map(bool, targets))
                return sequences
        longest = max(targets, key=len)
        raise PromptError(
            f"template {template.id!r} needs {max(map(len, sequences)) + room} tokens without any history, "
            f"but the window of the model is {self.window}"
            + (f"; the longest title it asks about is {longest[:60]!r}" if longest else "")
        )

    def _filled_by_pieces(self, prompt: Prompt, slot: str, values: Sequence[str]) -> list[list[int]]:
        stretches = [""]
        for segment in prompt.segments:
            if segment.open and segment.slot == slot:
                stretches.append("")
            else:
                stretches[-1] += segment.text
        stretches[-1] = stretches[-1].rstrip()
        start, fixed = self.encode(stretches[:1])[0], self._tokens(stretches[1:])
        rows = []
        for value in values:
            if fixed and not _separable(stretches, value):
                rows += self.encode([prompt.with_value(slot, value).text.rstrip()])
                continue
            row, tokens = list(start), self._piece(value)
            for tail in fixed:
                row += tokens
                row += tail
            rows.append(row)
        return rows

    def _piece(self, value: str) -> list[int]:
        if value not in self._pieces:
            self._pieces[value] = self._tokens([value])[0]
        return self._pieces[value]

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        options = {"add_special_tokens": False, "return_attention_mask": False}
        rows: list[list[int]] = self.tokenizer(list(texts), **options)["input_ids"] if texts else []
        return rows


def question_group(encoder: Encoder, requests: Requests, role: Role, row: int, room: int = 0) -> Group:
    """The prompts of one row, one per candidate, with their common beginning.

    Args:
        encoder: tokenizer and window.
        requests: whom to ask what about.
        role: role of the prompt; its ``{target}`` is the candidate.
        row: which row.
        room: tokens to keep free for the answer.

    Raises:
        PromptError: if a prompt does not fit into the window even without a history.
    """
    titles = requests.catalogue.named(requests.candidates[row])
    history = requests.catalogue.named(requests.histories[row])
    template = requests.templates[role][row]
    return common_prefix(encoder.fitting(template, requests.catalogue.domain, history, titles, room))


def _separable(stretches: Sequence[str], value: str) -> bool:
    """Whether the value between the stretches can be tokenised apart from them."""
    if not value or value != value.strip():
        return False
    pieces = [stretches[0], *(piece for stretch in stretches[1:] for piece in (value, stretch))]
    pieces = [piece for piece in pieces if piece]
    return all(a[-1] in BREAKS or b[0] in BREAKS for a, b in pairwise(pieces))


def common_prefix(sequences: Sequence[Sequence[int]], keep: int = 1) -> Group:
    """A group with the longest common beginning that leaves every sequence at least ``keep`` tokens.

    >>> group = common_prefix([[1, 2, 3, 4], [1, 2, 5]])
    >>> group.prefix.tolist(), [suffix.tolist() for suffix in group.suffixes]
    ([1, 2], [[3, 4], [5]])
    """
    first, last = min(map(list, sequences)), max(map(list, sequences))
    limit = min(map(len, sequences)) - keep
    shared = next((n for n in range(limit) if first[n] != last[n]), limit)
    return Group(as_ids(first[:shared]), tuple(as_ids(sequence[shared:]) for sequence in sequences))


def as_ids(tokens: Sequence[int]) -> IntArray:
    """Token ids as an array."""
    return np.asarray(tokens, dtype=np.int64)
