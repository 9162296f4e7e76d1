"""PAP-REC: a frozen P5 whose prompts end in searched triggers, some global and some of the user.

Source: Li et al., "PAP-REC: personalized automatic prompt for recommendation language model", arXiv 2402.00284.
Deviations are listed in the README beside this module.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from data.random import generator
from data.types import BoolArray, FloatArray, IntArray
from methods.base import FitReport, Requests, Space, Task
from methods.p5.method import P5

if TYPE_CHECKING:
    from methods.paprec.prompts import Placed
    from methods.paprec.search import Kind, Search, Watch

Evidence = Literal["validation", "training"]


@dataclass
class PapRec(P5):
    """Global and user triggers behind the prompt of a frozen P5, found by first-order candidates and a ranking metric.

    The settings of P5 are those of the frozen model: rows with the same ones share it.

    Args:
        global_tokens: triggers that all users share (paper).
        user_tokens: triggers of each user.
        personal: whether user triggers are searched; otherwise they stay as they start, the same for all users.
        top: candidate tokens tried per position (paper).
        budget: most candidate tokens tried, each for all users at once; 0 leaves the random start.
        evidence: what user triggers are accepted on: the user's one validation list (paper), or lists made of their
            latest training items; the other one stops them.
        lists: latest training items per user that are made into lists.
        negatives: negatives in a list.
        sample: validation users global triggers look at; half of them are held out, to stop.
        gradients: training items per user whose loss user triggers take gradients of.
        gradient_sample: items of all users together whose loss global triggers take gradients of.
        row: name of the row behind ``paprec/``; empty for the whole method.
    """

    global_tokens: int = 5
    user_tokens: int = 3
    personal: bool = True
    top: int = 5
    budget: int = 60
    evidence: Evidence = "validation"
    lists: int = 1
    negatives: int = 24
    sample: int = 400
    gradients: int = 1
    gradient_sample: int = 256
    row: str = ""
    watch: "Watch | None" = field(init=False, repr=False, default=None)
    artifacts: dict[str, str] = field(init=False, repr=False, default_factory=dict)

    space: ClassVar[Space] = {}  # the triggers are searched on the validation lists: nothing is left to judge on
    tuned_as: ClassVar[str] = P5.info.name
    least: ClassVar[Mapping[str, int]] = {
        **P5.least,
        **{"global_tokens": 0, "user_tokens": 0, "top": 1, "budget": 0, "lists": 1},
        **{"negatives": 1, "sample": 2, "gradients": 1, "gradient_sample": 1},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = (self.global_tokens > 0) + (self.personal and self.user_tokens > 0)
        self.info = replace(
            P5.info,
            name="/".join(filter(None, ("paprec", self.row))),
            paper="Li et al., 2024, arXiv 2402.00284",
            cost=400.0 + 200.0 * (kinds if self.budget else 0),
        )

    def fit(self, task: Task, seed: int) -> FitReport:
        """Take P5 as trained, freeze it, and search triggers; :attr:`watch` sees them after every step.

        Raises:
            NotRunnable: if there is no seen template, or the backbone cannot be had or is no encoder-decoder.
        """
        from methods.paprec.prompts import word_initial
        from methods.paprec.record import account, files

        report = super().fit(task, seed)
        self.scorer.model.requires_grad_(False)
        tokenizer = self.scorer.encoder.tokenizer
        vocabulary = word_initial(tokenizer)
        start = generator(seed, "paprec start").choice(vocabulary, self.global_tokens + self.user_tokens)
        self.tokens = np.tile(start, (task.catalogue.n_users, 1))
        search = self._search(task, vocabulary, seed)
        search.run()
        self.tokens = search.tokens
        self.artifacts = files(search, start, self.global_tokens, task.catalogue.user_ids, tokenizer)
        notes = [report.note, *account(search)]
        return replace(report, trials=search.evaluations, note="; ".join(notes))

    def score(self, requests: Requests) -> FloatArray:
        """Log-likelihood of each candidate's title behind the user's triggers, shape ``[rows, candidates]``."""
        from methods.paprec.prompts import candidate_lists, likelihoods

        lists = candidate_lists(self.scorer, requests, self.tokens.shape[1])
        return likelihoods(self.scorer, lists, self.tokens, self.normalised)

    def _search(self, task: Task, vocabulary: IntArray, seed: int) -> "Search":
        from methods.paprec.gradients import ROWS, Proposer
        from methods.paprec.prompts import examples
        from methods.paprec.search import Search

        size = self.tokens.shape[1]
        if not (self.budget and size):
            return Search(self.tokens, (), lambda *_: vocabulary[:0], 0, generator(seed))
        shown = examples(self.scorer, task, size, self.lists, self.gradients)
        sample = generator(seed, "paprec gradients").permutation(len(shown))[: self.gradient_sample]
        rows = task.compute.batch_size or ROWS
        propose = Proposer(self.scorer.model, vocabulary, shown, sample, self.top, rows)
        return Search(
            self.tokens, self._kinds(task, seed), propose, self.budget, generator(seed, "paprec positions"), self.watch
        )

    def _kinds(self, task: Task, seed: int) -> "tuple[Kind, ...]":
        """Global and user triggers, and the lists they are accepted and stopped on."""
        from methods.lm.tuning import valid_sample
        from methods.paprec.prompts import Judge, candidate_lists, earlier_lists
        from methods.paprec.search import Kind

        def judge(lists: "Placed") -> Judge:
            return Judge(self.scorer, lists, self.normalised)

        shared, size = self.global_tokens, self.tokens.shape[1]
        valid = candidate_lists(self.scorer, valid_sample(task, len(task.valid), self.negatives, seed), size)
        earlier = candidate_lists(self.scorer, earlier_lists(task, self.lists, self.negatives, seed), size)
        drawn = generator(seed, "paprec sample").permutation(len(valid))[: self.sample]
        searched, rest = np.array_split(drawn, 2)
        unsearched = valid.select(np.delete(np.arange(len(valid)), searched))
        accepts, stops = (valid, earlier) if self.evidence == "validation" else (earlier, unsearched)
        others, start = judge(valid.select(rest)), self.tokens[:, shared:]

        def held(tokens: IntArray, asked: BoolArray) -> FloatArray:
            # User rounds may accept on these lists, too: beside the user triggers of the start they stay held out.
            return others(np.hstack([tokens[:, :shared], start]), asked)

        kinds = [Kind("global", tuple(range(shared)), False, judge(valid.select(searched)), held)]
        if self.personal:
            kinds.append(Kind("user", tuple(range(shared, size)), True, judge(accepts), judge(stops)))
        return tuple(kind for kind in kinds if kind.positions)
