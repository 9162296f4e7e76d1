"""CoLLM as a row of the leaderboard.

Source: Zhang et al., "CoLLM: integrating collaborative embeddings into large language models for recommendation",
2023, arXiv 2310.19488. The card beside this file lists what is ours.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from data.dataset import Catalogue
from data.prompts.template import Template
from methods.base import FitReport, Requests, Space, Task
from methods.checks import check_least, check_positive
from methods.collm.vectors import COLLABORATIVE, collaborative_vectors
from methods.tallrec import TallRec

if TYPE_CHECKING:
    from methods.lm.prompts import Encoder
    from methods.lm.questions import Questions, Window


@dataclass
class CoLlm(TallRec):
    """A tuned language model that is then shown collaborative vectors; TALLRec's settings are those of step 1.

    Args:
        collaborative: row whose vectors are shown, ``bpr`` or ``lightgcn``.
        hidden: width of the MLP from vectors to embeddings.
        map_rate: learning rate of step 2.
        map_epochs: most passes of step 2.
    """

    collaborative: str = "bpr"
    hidden: int = 640
    map_rate: float = 3e-3
    map_epochs: int = 10

    info = replace(TallRec.info, name="collm", paper="Zhang et al., 2023, arXiv 2310.19488", cost=700.0)
    space: ClassVar[Space] = {
        **TallRec.space,
        "collaborative": tuple(COLLABORATIVE),
        "map_rate": (1e-3, 3e-3, 1e-2),
    }

    def __post_init__(self) -> None:
        if self.collaborative not in COLLABORATIVE:
            raise ValueError(f"no collaborative model {self.collaborative!r}: {' or '.join(COLLABORATIVE)}")
        super().__post_init__()
        check_least(self, {"hidden": 1, "map_epochs": 0})
        check_positive(self, ("map_rate",))

    def fit(self, task: Task, seed: int) -> FitReport:
        """Tune adapters as TALLRec does, then, with all else frozen, what makes embeddings of the vectors.

        Raises:
            NotRunnable: if TALLRec or the collaborative model cannot run.
        """
        from methods.collm.marks import add_marks, extend

        # First, since it takes a moment to say that it cannot run, and step 1 takes minutes.
        vectors, collaborative = collaborative_vectors(self.collaborative, task, seed)
        first = TallRec(**{field.name: getattr(self, field.name) for field in fields(TallRec)})
        alone = first.fit(task, seed)
        self.scorer = first.scorer
        model, first_mark = self.scorer.model, add_marks(self.scorer.encoder.tokenizer, task.catalogue)
        extend(model, first_mark, vectors, self.hidden, seed)
        marks = model.get_input_embeddings()
        tuned = self._tune(task, self.scorer, self.map_rate, self.map_epochs, seed, learns=marks)
        return replace(
            alone,
            epochs=collaborative.epochs + alone.epochs + tuned.epochs,
            converged=all(step.converged is not False for step in (collaborative, alone, tuned)),
            interactions=alone.interactions + tuned.questions // (1 + self.negatives) + collaborative.interactions,
            tokens=alone.tokens + tuned.tokens,
            loss=f"{collaborative.loss}, then {alone.loss}",
            negatives=f"{collaborative.negatives}, then {alone.negatives}",
            note=f"{alone.note}; with vectors of {self.collaborative}: {tuned}",
        )

    def _shown(self, requests: Requests) -> Requests:
        from methods.collm.marks import marked

        return marked(requests)

    def _asked(
        self, task: Task, encoder: "Encoder", rng: np.random.Generator
    ) -> "Iterator[Callable[[Template], Questions]]":
        from methods.collm.marks import with_titles
        from methods.lm.questions import windows

        catalogue, n_items = with_titles(task.catalogue), task.catalogue.n_items
        for shown in windows(task.train, self._sampling(task), rng):
            yield partial(_ask, encoder, catalogue, replace(shown, items=shown.items + n_items))


def _ask(encoder: "Encoder", catalogue: Catalogue, shown: "Window", template: Template) -> "Questions":
    from methods.collm.marks import for_user
    from methods.lm.questions import ask

    return ask(encoder, catalogue, for_user(template, shown.user), shown)
