"""Prompts with demonstrations, and the likelihood of every candidate's title behind them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from data.dataset import Catalogue
from data.prompts.template import Slot, Template
from data.types import BoolArray, FloatArray, IntArray
from methods.base import NotRunnable
from methods.lm.attention import FAMILIES, supports_tree
from methods.lm.batches import Batch
from methods.lm.layout import Group
from methods.lm.logits import ROWS, target_logits
from methods.lm.prompts import BREAKS, Encoder, PromptError, as_ids
from methods.lm.scoring import Scorer, ScoringError
from methods.lrgd.attention import UNCHANGED, Material, Step, Strength, step_implementation
from methods.lrgd.demonstrations import Demonstration
from methods.lrgd.effect import Shown
from methods.lrgd.packed import Packed


@dataclass(frozen=True)
class Query:
    """A prompt as it is to be worded.

    Args:
        template: of role ``demonstrate``.
        catalogue: item texts.
        history: items shown, oldest first.
        demonstrations: in the order in which they are shown.
    """

    template: Template
    catalogue: Catalogue
    history: tuple[int, ...]
    demonstrations: tuple[Demonstration, ...] = ()


def parts(template: Template) -> tuple[Template, Template]:
    """Instruction and query of a template.

    Raises:
        PromptError: if its slots are not demonstrations, history and target, in this order, the target last.
    """
    order = [name for name in template.slots if name in ("demonstrations", "history", "target")]
    if order != ["demonstrations", "history", "target"] or template.parts[-1] != Slot("target"):
        raise PromptError(
            f"template {template.id!r}: a demonstrate template has the slots {{demonstrations}}, {{history}} and "
            f"{{target}} once each, in this order, with the target at its end; it reads {template.source!r}"
        )
    at = template.parts.index(Slot("demonstrations"))
    return replace(template, parts=template.parts[:at]), replace(template, parts=template.parts[at + 1 :])


def write(query: Query) -> tuple[str, list[str], str]:
    """Instruction, demonstrations and what comes before the answer."""
    instruction, question = parts(query.template)
    domain, titles = query.catalogue.domain, query.catalogue.titles
    shown = [
        question.fill(domain, {"history": [titles[i] for i in one.history], "target": titles[one.choice]}).text
        for one in query.demonstrations
    ]
    asked = question.fill(domain, {"history": [titles[i] for i in query.history]}).prefix.rstrip()
    return instruction.fill(domain, {}).text, shown, asked


@dataclass(frozen=True)
class Prompt:
    """A prompt as tokens.

    Args:
        ids: token ids up to the answer, shape ``[n]``.
        owner: number of the demonstration a token belongs to, -1 for other tokens, shape ``[n]``.
        answers: token ids of each answer.
    """

    ids: IntArray
    owner: IntArray
    answers: tuple[IntArray, ...]

    @cached_property
    def key(self) -> bytes:
        """A digest of all its tokens."""
        ends = np.cumsum([len(answer) for answer in self.answers])
        tokens = np.concatenate([self.ids, self.owner, ends, *self.answers])
        return hashlib.sha256(len(self.ids).to_bytes(8, "big") + tokens.tobytes()).digest()

    @property
    def group(self) -> Group:
        """The prompt and all tokens of its answers that something comes after."""
        return Group(self.ids, tuple(answer[:-1] for answer in self.answers))

    def shown(self) -> Shown:
        """The prompt with the first of its answers behind it."""
        tokens = self.answers[0]
        owner = np.append(self.owner, np.full(len(tokens), -1))
        return Shown(np.append(self.ids, tokens), owner, len(tokens))


def encode(encoder: Encoder, query: Query, titles: Sequence[str]) -> Prompt:
    """The prompt as tokens, with each of some titles as its answer.

    Where it is too long, demonstrations are left out from the first on, then history items from the oldest on.

    Raises:
        PromptError: if it does not fit into the window even so.
    """
    for shorter in _shorter(query):
        prompt = _encode(encoder, shorter, titles)
        tokens = len(prompt.ids) + max(map(len, prompt.answers))
        if tokens <= encoder.window:
            encoder.shortened += shorter is not query
            return prompt
    raise PromptError(
        f"template {query.template.id!r} needs {tokens} tokens without any history, but the window of the "
        f"model is {encoder.window}"
    )


def _shorter(query: Query) -> list[Query]:
    fewer = [replace(query, demonstrations=query.demonstrations[n:]) for n in range(1, len(query.demonstrations) + 1)]
    bare = [replace(query, demonstrations=(), history=query.history[n:]) for n in range(1, len(query.history) + 1)]
    return [query, *fewer, *bare]


def _encode(encoder: Encoder, query: Query, titles: Sequence[str]) -> Prompt:
    instruction, shown, asked = write(query)
    answers = tuple(as_ids(encoder.word(title, _cue(asked))) for title in titles)
    tokens = _by_stretches if encoder.local and all(text[:1] in BREAKS for text in (*shown, asked)) else _by_offsets
    ids, stretch = tokens(encoder, [instruction, *shown, asked])
    return Prompt(ids, np.where(stretch <= len(shown), stretch, 0) - 1, answers)


def _by_stretches(encoder: Encoder, texts: Sequence[str]) -> tuple[IntArray, IntArray]:
    """Tokens of texts in a row and the number of each one's text; no token spans two texts."""
    rest = encoder.tokenizer(list(texts[1:]), add_special_tokens=False, verbose=False)["input_ids"]
    rows = [*encoder.encode(texts[:1]), *rest]
    return as_ids([token for row in rows for token in row]), np.repeat(np.arange(len(rows)), [len(row) for row in rows])


def _by_offsets(encoder: Encoder, texts: Sequence[str]) -> tuple[IntArray, IntArray]:
    """Tokens of texts in a row and the number of the text in which each begins; special tokens are of the first."""
    whole = "".join(texts)
    found = encoder.tokenizer(whole, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False)
    ids = encoder.encode([whole])[0]
    starts = np.array(found["offset_mapping"][: len(ids)])[:, 0]  # an end at the start is a blank, or a special token
    special = np.array(found["special_tokens_mask"][: len(ids)], bool)
    stretch = np.searchsorted(np.cumsum([len(text) for text in texts])[:-1], starts, side="right")
    return as_ids(ids), np.where(special, 0, stretch)


def _cue(asked: str) -> str:
    """The last stretch before an answer, which decides how the answer begins."""
    return asked[-1:] if asked[-1:].strip() else "Answer:"


class IclScorer(Scorer):
    """Scores candidates by the likelihood of their titles behind prompts with demonstrations.

    The prompt of a row is computed once and shared by its candidates; the answer's first token is read from it.

    Raises:
        NotRunnable: if the model's attention is not known to admit shared beginnings.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not supports_tree(self.model):
            family = self.model.config.model_type
            known = f"known for {', '.join(FAMILIES)} without a sliding window"
            raise NotRunnable(f"{family}: demonstrations need attention over shared beginnings, which is {known}")

    def answer_likelihood(
        self, prompts: Sequence[Prompt], strength: Strength = UNCHANGED, material: Material | None = None
    ) -> FloatArray:
        """Log-probability of every answer of every prompt, shape ``[prompts, answers]``.

        Args:
            prompts: with the same number of answers each.
            strength: how much the dual step is changed.
            material: what the changes are made of; needed where something is changed.

        Raises:
            ScoringError: if a value is not a number, with the prompt.
        """
        groups = [prompt.group for prompt in prompts]
        scores = np.empty((len(groups), len(groups[0].suffixes)))

        def read(batch: Batch) -> None:
            packed = Packed.of(batch.groups, self.model.device, self.model.dtype)
            parts = _part(batch, prompts)
            step = None
            if not strength.plain and material is not None:
                step = self._step(parts, packed, strength, material)
            states = self.model.base_model(
                input_ids=packed.ids, position_ids=packed.positions, use_cache=False, packed=packed, step=step
            ).last_hidden_state[0]
            scores[batch.rows, batch.columns] = self._read(states, parts).numpy()

        with step_implementation(self.model):
            self._in_batches(groups, read)
        self._check(scores, prompts)
        return scores

    def _check(self, scores: FloatArray, prompts: Sequence[Prompt]) -> None:
        bad = np.argwhere(np.isnan(scores))
        if len(bad):
            row, column = bad[0].tolist()
            text = self.encoder.tokenizer.decode([*prompts[row].ids, *prompts[row].answers[column]])
            raise ScoringError(
                f"{len(bad)} of {scores.size} scores are not a number; the first is that of {text!r}. "
                "Try --dtype float32"
            )

    @staticmethod
    def _step(prompts: Sequence[Prompt], packed: Packed, strength: Strength, material: Material) -> Step:
        tokens: BoolArray = np.zeros(packed.ids.shape[1], np.bool_)
        prefix = np.concatenate([prompt.owner >= 0 for prompt in prompts])
        tokens[: len(prefix)] = prefix
        return Step(torch.from_numpy(tokens)[None].to(packed.ids.device), packed.positions, strength, material)

    def _read(self, states: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Sum of the log-probabilities of the tokens of each answer, shape ``[answers]``."""
        places, answers = answer_places(prompts)
        rows, row = np.unique(places, return_inverse=True)
        states, values = states[torch.from_numpy(rows)], torch.empty(len(row))
        for start in range(0, len(rows), ROWS):
            at = np.flatnonzero((row >= start) & (row < start + ROWS))
            part = states[start : start + ROWS]
            logits = self.model.get_output_embeddings()(part).float()
            row_of, targets = (torch.from_numpy(array).to(logits.device) for array in (row[at] - start, answers[at]))
            if part.dtype != torch.float32:  # rounded, candidates would tie
                logits[row_of, targets] = target_logits(self.model, part[row_of], targets)
            values[torch.from_numpy(at)] = (logits[row_of, targets] - logits.logsumexp(-1)[row_of]).cpu()
        lengths = [len(answer) for prompt in prompts for answer in prompt.answers]
        owner = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))
        return torch.zeros(len(lengths)).index_add(0, owner, values)  # not on a GPU, which adds in any order


def _part(batch: Batch, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts of a batch with those of their answers that are in it."""
    starts = np.cumsum([0, *(len(group.suffixes) for group in batch.groups)])[:-1]
    columns = np.split(batch.columns, starts[1:])
    return [
        replace(prompts[int(batch.rows[start])], answers=tuple(prompts[int(batch.rows[start])].answers[c] for c in own))
        for start, own in zip(starts.tolist(), columns, strict=True)
    ]


def answer_places(prompts: Sequence[Prompt]) -> tuple[IntArray, IntArray]:
    """Where the tokens of all answers are predicted in a packed batch, and which they are.

    The first token of an answer is predicted at the end of its prompt, the others behind the token before.

    Returns:
        Places in the sequence and token ids, shape ``[tokens of all answers]`` both.
    """
    ends = np.cumsum([len(prompt.ids) for prompt in prompts]) - 1
    answers = [answer for prompt in prompts for answer in prompt.answers]
    lengths = np.array([len(answer) for answer in answers])
    owner = np.repeat(np.arange(len(answers)), lengths)
    first = np.repeat(ends, [len(prompt.answers) for prompt in prompts])
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    # Behind all prompts stand all answers without their last tokens.
    further = ends[-1] + np.arange(len(owner)) - owner
    return np.where(within == 0, first[owner], further), np.concatenate(answers)
