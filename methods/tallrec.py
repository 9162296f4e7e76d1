"""TALLRec: a language model tuned to answer whether a user will like an item.

Source: Bao et al., "TALLRec: an effective and efficient tuning framework to align large language model with
recommendation", RecSys 2023, arXiv 2305.00447. Deviations: the score is the log-odds of the two answer words
(the published code takes the softmax over the vocabulary and then once more over the two probabilities, which
squeezes all scores together and keeps their order only where the rest of the mass is the same); the model
learns from the implicit feedback at hand with sampled negatives, and from all seen templates instead of one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from data.prompts.template import Template
from data.random import generator
from data.types import FloatArray
from methods.base import FitReport, MethodInfo, Requests, Space, Task, require_templates
from methods.checks import check_least, check_positive, check_shares

if TYPE_CHECKING:
    from torch import nn

    from methods.lm.prompts import Encoder
    from methods.lm.questions import Questions, Sampling
    from methods.lm.scoring import Scorer
    from methods.lm.tuning import Tuned

DEFAULT_BACKBONE = "tiny-llama"
LEAST: Mapping[str, int] = {
    **{"rank": 1, "epochs": 0, "max_prompts": 1, "negatives": 1, "batch": 1, "patience": 1},
    **{"valid_users": 1, "valid_negatives": 1, "shortest": 1},
}


@dataclass
class TallRec:
    """LoRA tuning on yes/no questions with the seen templates.

    Args:
        rank: rank of the adapters (paper).
        alpha: scale of the adapters (paper).
        dropout: dropout of the adapters (paper).
        rate: learning rate; 1e-4 (paper) for trained backbones and 3e-3 for embedded ones if None.
        epochs: most passes.
        max_prompts: most questions per pass, drawn anew for every pass.
        negatives: negatives asked about beside each next item.
        batch: questions per optimiser step (own choice; the paper has 128).
        patience: evaluations without a better validation AUC before it stops (10 in the paper).
        valid_users: validation users asked after every pass.
        valid_negatives: negatives of each of them.
        shortest: least number of history items in training, where there are that many.
        backbone_steps: optimiser steps of an embedded backbone; its recipe's own if None.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.05
    rate: float | None = None
    epochs: int = 8
    max_prompts: int = 3200
    negatives: int = 1
    batch: int = 64
    patience: int = 2
    valid_users: int = 200
    valid_negatives: int = 19
    shortest: int = 3
    backbone_steps: int | None = None

    info = MethodInfo(
        name="tallrec",
        paper="Bao et al., RecSys 2023, arXiv 2305.00447",
        roles=frozenset({"recommend"}),
        needs=frozenset({"text", "language model"}),
        cost=500.0,
    )
    space: ClassVar[Space] = {"rate": (None, 3e-4, 1e-3, 1e-2), "dropout": (0.05, 0.2), "negatives": (1, 3)}

    def __post_init__(self) -> None:
        check_least(self, LEAST)
        check_positive(self, ("rate", "alpha"))
        check_shares(self, ("dropout",), one=False)

    def fit(self, task: Task, seed: int) -> FitReport:
        """Tune adapters on questions about training histories; early stop on validation AUC.

        Raises:
            NotRunnable: if there is no seen template, or the backbone cannot be had or is no decoder.
        """
        from methods.lm.backbone import load_backbone
        from methods.lm.lora import Lora, add_lora, inner, merged
        from methods.lm.scoring import Scorer

        require_templates(self.info, task)
        backbone = load_backbone(task, DEFAULT_BACKBONE, ("decoder",), self.backbone_steps)
        model = add_lora(backbone.model, Lora(self.rank, self.alpha, self.dropout), seed).eval()
        scorer = Scorer(inner(model), backbone.encoder(), task.compute.batch_size)
        tuned = self._tune(task, scorer, self.rate or (3e-3 if backbone.embedded else 1e-4), self.epochs, seed)
        self.scorer = Scorer(merged(model), scorer.encoder, task.compute.batch_size)
        return FitReport(
            epochs=tuned.epochs,
            converged=tuned.converged,
            interactions=tuned.questions // (1 + self.negatives),
            tokens=tuned.tokens + backbone.tokens,
            reused=backbone.reused,
            note=f"{backbone.description}; {tuned}",
            loss="cross-entropy of the answers",
            negatives=str(self.negatives),
        )

    def score(self, requests: Requests) -> FloatArray:
        """Log-odds of the positive answer, shape ``[rows, candidates]``."""
        return self.scorer.label_odds(self._shown(requests), "recommend")

    def _shown(self, requests: Requests) -> Requests:
        """The requests as the model is shown them."""
        return requests

    def _asked(
        self, task: Task, encoder: "Encoder", rng: np.random.Generator
    ) -> "Iterator[Callable[[Template], Questions]]":
        """Questions about random training windows, without end, each to be worded with a template."""
        from methods.lm.questions import ask, windows

        return (
            partial(ask, encoder, task.catalogue, shown=one) for one in windows(task.train, self._sampling(task), rng)
        )

    def _sampling(self, task: Task) -> "Sampling":
        from methods.lm.questions import Sampling

        return Sampling(min(self.shortest, task.history_length), task.history_length, 1, self.negatives)

    def _tune(
        self, task: Task, scorer: "Scorer", rate: float, epochs: int, seed: int, learns: "nn.Module | None" = None
    ) -> "Tuned":
        """Teach the scorer's model, as far as it may change, the answers; early stop on validation AUC."""
        from methods.lm.tuning import Schedule, list_auc, tune, valid_sample

        name, windows = self.info.name, self._windows(task)
        valid = self._shown(valid_sample(task, self.valid_users, self.valid_negatives, seed))
        return tune(
            scorer.model,
            epochs=(self._batches(task, scorer.encoder, windows, generator(seed, name, n)) for n in range(epochs)),
            measure=lambda: list_auc(scorer.label_odds(valid, "recommend")),
            schedule=Schedule(rate, epochs * -(-windows // self._windows_per_batch), self.patience),
            seed=seed,
            label=name,
            learns=learns,
        )

    @property
    def _windows_per_batch(self) -> int:
        return max(1, self.batch // (1 + self.negatives))

    def _windows(self, task: Task) -> int:
        """Windows per pass."""
        available = int(np.maximum(task.train.lengths - 1, 0).sum())
        return max(1, min(available, self.max_prompts // (1 + self.negatives)))

    def _batches(
        self, task: Task, encoder: "Encoder", windows: int, rng: np.random.Generator
    ) -> "Iterator[list[Questions]]":
        from methods.lm.questions import pick

        asked = islice(self._asked(task, encoder, rng), windows)
        while batch := list(islice(asked, self._windows_per_batch)):
            templates = [pick(task.templates["recommend"], rng) for _ in batch]
            yield [worded(template) for worded, template in zip(batch, templates, strict=True)]
