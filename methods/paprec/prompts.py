"""Prompts that end in triggers, and what is judged and learnt with them; tokenised once, whatever is tried."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from data.histories import Histories
from data.random import generator
from data.types import BoolArray, FloatArray, IntArray
from methods.base import Requests, Task, valid_targets
from methods.lm.encdec import EncDecScorer, Reader
from methods.lm.encdec_questions import next_titles
from methods.lm.layout import Group
from methods.lm.prompts import as_ids
from methods.lm.questions import Questions, Window
from methods.lm.scoring import ScoringError
from methods.p5.method import ROLE
from methods.paprec.surrogate import surrogate

MARKS = ("\N{LOWER ONE EIGHTH BLOCK}", "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}")
"""What a piece starts with that begins a word: in SentencePiece, and in byte-level BPE."""


def word_initial(tokenizer: PreTrainedTokenizerBase) -> IntArray:
    """Ids of the tokens that begin a word, in order: no special tokens, no middles of words, no punctuation.

    >>> from methods.lm.words import word_tokenizer
    >>> tokenizer = word_tokenizer(["Alien: Brazil"], 64)
    >>> [word for word in tokenizer.convert_ids_to_tokens(word_initial(tokenizer)) if len(word) > 1]
    ['Alien', 'Brazil']
    """
    words = tokenizer.get_vocab()
    mark = next((mark for mark in MARKS if any(len(word) > 1 and word[0] == mark for word in words)), "")
    special = set(tokenizer.all_special_ids)
    starts = (id for word, id in words.items() if word.startswith(mark) and word[len(mark) :][:1].isalnum())
    return as_ids(sorted(set(starts) - special))


def with_places(reader: Reader, size: int) -> Reader:
    """A reader that keeps places for triggers between what a prompt says and its end token."""
    return replace(reader, ending=(0,) * size + reader.ending)


@dataclass(frozen=True)
class Placed:
    """Prompts with places for triggers, each of one user.

    The places are counted from the end of the prompt itself, so that neither padding nor wording moves the triggers.

    Args:
        users: whose triggers a prompt shows, shape ``[rows]``.
        groups: prompts with anything in these places, and what the decoder reads.
        answers: tokens to predict at the end of every decoder sequence.
        behind: tokens behind the triggers.
    """

    users: IntArray
    groups: tuple[Group, ...]
    answers: tuple[tuple[int, ...], ...]
    behind: int

    def __len__(self) -> int:
        return len(self.users)

    def select(self, rows: IntArray) -> "Placed":
        """The given rows, in the given order."""
        groups, answers = (tuple(self.groups[n] for n in rows.tolist()), tuple(self.answers[n] for n in rows.tolist()))
        return replace(self, users=self.users[rows], groups=groups, answers=answers)

    def places(self, row: int, size: int) -> slice:
        """Where the triggers of a row stand."""
        end = len(self.groups[row].prefix) - self.behind
        return slice(end - size, end)

    def shown(self, tokens: IntArray) -> list[Group]:
        """The prompts with the triggers of their users, given for all users, shape ``[users, size]``."""
        groups = []
        for row, user in enumerate(self.users.tolist()):
            prompt = self.groups[row].prefix.copy()
            prompt[self.places(row, tokens.shape[1])] = tokens[user]
            groups.append(replace(self.groups[row], prefix=prompt))
        return groups


def candidate_lists(scorer: EncDecScorer, requests: Requests, size: int) -> Placed:
    """Prompts of requests with the titles of their candidates.

    Raises:
        PromptError: if a prompt does not fit into the model's window even without a history.
    """
    reader, catalogue = with_places(scorer.reader, size), requests.catalogue
    titles = {item: reader.title(catalogue.titles[item]) for item in np.unique(requests.candidates).tolist()}
    groups = []
    for row, items in enumerate(requests.candidates.tolist()):
        history = catalogue.named(requests.histories[row])
        prompt = reader.prompt(requests.templates[ROLE][row], catalogue.domain, history)
        groups.append(Group(prompt, tuple(titles[item] for item in items)))
    answers = tuple(tuple(len(title) - 1 for title in group.suffixes) for group in groups)
    return Placed(requests.users, tuple(groups), answers, len(scorer.reader.ending))


def likelihoods(scorer: EncDecScorer, lists: Placed, tokens: IntArray, normalised: bool) -> FloatArray:
    """Log-likelihood of every candidate's title under the triggers, shape ``[rows, candidates]``.

    Raises:
        ScoringError: if one is not a number: above no other, its title would count as better than first.
    """
    values = np.array(scorer.likelihood(lists.shown(tokens), lists.answers))
    if bad := int(np.isnan(values).sum()):
        raise ScoringError(f"{bad} of {values.size} likelihoods of titles are not a number. Try --dtype float32")
    return values / np.array(lists.answers) if normalised else values


def examples(scorer: EncDecScorer, task: Task, size: int, skip: int, count: int) -> Placed:
    """For every user with validation, next titles of the training part to take gradients of.

    Args:
        scorer: of the model the prompts are for.
        task: what may be learnt from.
        size: number of triggers.
        skip: latest training items that are left out, since they are judged on.
        count: items per user, the latest ones before these.
    """
    reader, found = with_places(scorer.reader, size), []
    for row, user in enumerate(task.valid.users.tolist()):
        for history, target in _latest(task, user, skip, count):
            window = Window(history, as_ids([target]), np.ones(1, np.bool_))
            found.append((user, next_titles(reader, task.catalogue, task.valid.templates[ROLE][row], window)))
    questions: Sequence[Questions] = [question for _, question in found]
    return Placed(
        as_ids([user for user, _ in found]),
        tuple(question.group for question in questions),
        tuple(question.answers for question in questions),
        len(scorer.reader.ending),
    )


def earlier_lists(task: Task, count: int, negatives: int, seed: int) -> Requests:
    """Requests for the latest training items of every user with validation, as if they had been held out.

    The positive is in column 0; negatives are items somebody chose in training and the user did not, nor in validation.
    """
    pool, rows = np.unique(task.train.items), []
    for row, (user, later) in enumerate(zip(task.valid.users.tolist(), valid_targets(task).tolist(), strict=True)):
        rng = generator(seed, "paprec earlier lists", task.catalogue.user_ids[user])
        others = pool[~np.isin(pool, np.append(task.train[user], later))]
        for history, target in _latest(task, user, 0, count):
            rows.append((row, history, np.append(target, rng.choice(others, min(negatives, len(others)), False))))
    chosen = task.valid.select(as_ids([row for row, _, _ in rows]))
    width = min((len(items) for _, _, items in rows), default=0)
    candidates = np.array([items[:width] for _, _, items in rows], np.int64).reshape(len(rows), width)
    return replace(chosen, histories=Histories.of(history for _, history, _ in rows), candidates=candidates)


def _latest(task: Task, user: int, skip: int, count: int) -> Iterator[tuple[IntArray, int]]:
    """Latest training items of a user, without the ``skip`` very latest, and what came before each."""
    row = task.train[user]
    for cut in range(len(row) - 1 - skip, max(0, len(row) - 1 - skip - count), -1):
        yield row[max(0, cut - task.history_length) : cut], int(row[cut])


@dataclass(frozen=True)
class Judge:
    """Surrogate metric of every user's triggers on some lists.

    Args:
        scorer: of the frozen model.
        lists: lists with the positive in column 0.
        normalised: see :class:`P5`.
    """

    scorer: EncDecScorer
    lists: Placed
    normalised: bool

    def __call__(self, tokens: IntArray, asked: BoolArray) -> FloatArray:
        """Mean over each asked user's lists, NaN for users without, shape ``[users]``.

        Args:
            tokens: triggers of all users, shape ``[users, size]``.
            asked: users to judge, shape ``[users]``; all of them in one batched pass.
        """
        lists = self.lists.select(np.flatnonzero(asked[self.lists.users]))
        values = surrogate(likelihoods(self.scorer, lists, tokens, self.normalised)) if len(lists) else np.empty(0)
        sums = np.bincount(lists.users, values, len(tokens))
        counts = np.bincount(lists.users, minlength=len(tokens))
        means: FloatArray = np.divide(sums, counts, out=np.full(len(tokens), np.nan), where=counts > 0)
        return means
