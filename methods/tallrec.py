"""TALLRec: a language model tuned to answer whether a user will like an item.

Source: Bao et al., "TALLRec: an effective and efficient tuning framework to align large language model with
recommendation", RecSys 2023, arXiv 2305.00447. Deviations: the score is the log-odds of the two answer words
(the published code takes the softmax over the vocabulary and then once more over the two probabilities, which
squeezes all scores together and keeps their order only where the rest of the mass is the same); the model
learns from the implicit feedback at hand with sampled negatives, and from all seen templates instead of one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from data.random import generator
from data.types import FloatArray
from methods.base import FitReport, MethodInfo, NotRunnable, Requests, Task

if TYPE_CHECKING:
    from methods.lm.backbone import Backbone
    from methods.lm.questions import Questions

DEFAULT_BACKBONE = "tiny-llama"


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
        shortest: least number of history items in training.
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

    def fit(self, task: Task, seed: int) -> FitReport:
        """Tune adapters on questions about training histories; early stop on validation AUC.

        Raises:
            NotRunnable: if there is no seen template, or the backbone cannot be had or is no decoder.
        """
        from methods.lm.backbone import load_backbone
        from methods.lm.lora import Lora, add_lora, inner, merged
        from methods.lm.scoring import Scorer
        from methods.lm.tuning import Schedule, list_auc, tune, valid_sample

        if not task.templates.get("recommend"):
            raise NotRunnable("tallrec needs seen templates of role 'recommend'")
        recipe = {} if self.backbone_steps is None else {"steps": self.backbone_steps}
        backbone = load_backbone(task, DEFAULT_BACKBONE, ("decoder",), recipe)
        model = add_lora(backbone.model, Lora(self.rank, self.alpha, self.dropout), seed).eval()
        windows = self._windows(task)
        encoder = backbone.encoder()
        scorer = Scorer(inner(model), encoder, task.compute.batch_size)
        valid, _ = valid_sample(task, self.valid_users, self.valid_negatives, seed)
        tuned = tune(
            inner(model),
            epochs=self._epochs(task, backbone, windows, seed),
            measure=lambda: list_auc(scorer.label_odds(valid, "recommend")),
            schedule=Schedule(
                rate=self.rate or (3e-3 if backbone.embedded else 1e-4),
                steps=self.epochs * -(-windows // self._windows_per_batch),
                patience=self.patience,
            ),
            seed=seed,
            label="tallrec",
        )
        self._scorer = Scorer(merged(model), encoder, task.compute.batch_size)
        return FitReport(
            epochs=tuned.epochs,
            converged=tuned.converged,
            interactions=tuned.questions // (1 + self.negatives),
            tokens=tuned.tokens + backbone.tokens,
            note=f"{backbone.description}; validation AUC {tuned.best:.3f}",
        )

    def score(self, requests: Requests) -> FloatArray:
        """Log-odds of the positive answer, shape ``[rows, candidates]``."""
        return self._scorer.label_odds(requests, "recommend")

    @property
    def _windows_per_batch(self) -> int:
        return max(1, self.batch // (1 + self.negatives))

    def _windows(self, task: Task) -> int:
        """Windows per pass."""
        available = int(np.maximum(task.train.lengths - 1, 0).sum())
        return max(1, min(available, self.max_prompts // (1 + self.negatives)))

    def _epochs(
        self, task: Task, backbone: "Backbone", windows: int, seed: int
    ) -> "Iterator[Iterator[list[Questions]]]":
        for epoch in range(self.epochs):
            yield self._batches(task, backbone, windows, generator(seed, "tallrec", epoch))

    def _batches(
        self, task: Task, backbone: "Backbone", windows: int, rng: np.random.Generator
    ) -> "Iterator[list[Questions]]":
        from methods.lm.questions import Sampling, ask, pick
        from methods.lm.questions import windows as draw

        sampling = Sampling(self.shortest, task.history_length, 1, self.negatives)
        encoder = backbone.encoder()
        shown = islice(draw(task.train, sampling, rng), windows)
        while batch := list(islice(shown, self._windows_per_batch)):
            templates = [pick(task.templates["recommend"], rng) for _ in batch]
            yield [ask(encoder, task.catalogue, t, one) for t, one in zip(templates, batch, strict=True)]
