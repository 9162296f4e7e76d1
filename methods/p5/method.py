"""P5: recommendation as language processing, with titles instead of item numbers.

Source: Geng et al., "Recommendation as language processing (RLP): a unified pretrain, personalized prompt &
predict paradigm (P5)", RecSys 2022, arXiv 2203.13366. Deviations are listed in the README beside this module.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from data.prompts.template import Role
from data.types import FloatArray
from methods.base import FitReport, MethodInfo, NotRunnable, Requests, Space, Task, require_templates
from methods.checks import check_least, check_positive, check_shares, check_types

ROLE: Role = "sequential"


@dataclass
class P5:
    """Encoder-decoder trained on several families of templates; candidates ranked by the likelihood of their titles.

    Args:
        epochs: most passes; 0 uses the backbone as it is, such as the folder of a P5 checkpoint.
        prompts: prompts per pass, drawn anew for every pass.
        questions: share of prompts that ask whether one title comes next.
        choices: share of prompts that offer titles to choose from; the others ask for the next title.
        ahead: items that come next, each an answer to the same question for the next title (1 in the paper).
        offered: negatives in a prompt that offers titles (99 in the paper).
        shortest: least number of history items.
        rate: highest learning rate (1e-3 in the paper).
        warmup: share of the steps in which the rate rises (paper).
        batch: prompts per optimiser step.
        patience: evaluations without a better validation AUC before it stops.
        valid_users: validation users scored after every pass.
        valid_negatives: negatives of each of them.
        normalised: whether the log-likelihood of a title is divided by its number of tokens.
        mean_over: what the loss is a mean over: ``tokens`` of all answers of a batch, or ``prompts`` (published code).
        backbone_steps: optimiser steps of an embedded backbone; its recipe's own if None.
    """

    epochs: int = 8
    prompts: int = 3200
    questions: float = 0.1
    choices: float = 0.1
    ahead: int = 8
    offered: int = 9
    shortest: int = 3
    rate: float = 2e-3
    warmup: float = 0.05
    batch: int = 16
    patience: int = 4
    valid_users: int = 200
    valid_negatives: int = 19
    normalised: bool = False
    mean_over: Literal["tokens", "prompts"] = "tokens"
    backbone_steps: int | None = None

    space: ClassVar[Space] = {"rate": (1e-3, 2e-3, 4e-3), "ahead": (4, 8), "questions": (0.0, 0.1, 0.3)}
    least: ClassVar[Mapping[str, int]] = {
        **{"epochs": 0, "prompts": 1, "ahead": 1, "offered": 1, "shortest": 1, "batch": 1},
        **{"patience": 1, "valid_users": 1, "valid_negatives": 1},
    }

    info = MethodInfo(
        name="p5",
        paper="Geng et al., RecSys 2022, arXiv 2203.13366",
        roles=frozenset({ROLE}),
        learns=frozenset({"recommend", "choose"}),
        needs=frozenset({"text", "language model"}),
        cost=400.0,
    )

    def __post_init__(self) -> None:
        check_types(self)
        if not (self.questions >= 0 <= self.choices and self.questions + self.choices <= 1):
            raise ValueError("questions and choices are shares of the prompts: not negative, and at most 1 together")
        check_least(self, self.least)
        check_positive(self, ("rate",))
        check_shares(self, ("warmup",))

    def fit(self, task: Task, seed: int) -> FitReport:
        """Train on the training part; early stop on validation AUC.

        Raises:
            NotRunnable: if there is no seen template, the backbone cannot be had or is no encoder-decoder, requests
                show fewer items than ``shortest``, or the titles to choose from do not fit the backbone's window.
        """
        from methods.p5 import training

        require_templates(self.info, task)
        if self.epochs and self.shortest > task.history_length:
            raise NotRunnable(f"shortest is {self.shortest}, but requests show {task.history_length} items at most")
        backbone, tuned = training.trained(task, self, seed)
        self.scorer = training.scorer(backbone, task.compute.batch_size)
        note = f"; {tuned}" if tuned.epochs else ""
        return FitReport(
            epochs=tuned.epochs,
            converged=tuned.converged,
            interactions=tuned.questions,
            tokens=tuned.tokens + backbone.tokens,
            reused=backbone.reused,
            note=f"{backbone.description}{note}",
            loss="cross-entropy of the answers" if tuned.epochs else "",
            negatives=self._negatives() if tuned.epochs else "",
        )

    def _negatives(self) -> str:
        """Those of the families of prompts that are asked; a direct question has none."""
        drawn = {"1 asked about": self.questions, f"{self.offered} offered": self.choices}
        return ", ".join(text for text, share in drawn.items() if share) or "0"

    def score(self, requests: Requests) -> FloatArray:
        """Log-likelihood of each candidate's title as the answer, shape ``[rows, candidates]``."""
        return self.scorer.title_likelihood(requests, ROLE, self.normalised)
