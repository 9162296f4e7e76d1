"""CTRL as a row of the leaderboard: the row ``din`` with another start.

Source: Li et al., "CTRL: connect collaborative and language model for CTR prediction", 2023, arXiv 2306.02841. The
card beside this file lists what is ours.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from methods.base import FitReport, MethodInfo, Space, Task, count
from methods.checks import check_least, check_positive
from methods.lm.sentences import DEFAULT, SentenceEncoder
from methods.recbole import files, training
from methods.recbole.models import DIN

if TYPE_CHECKING:
    from torch.nn import Module

    from methods.ctrl.align import Sides


@dataclass
class Ctrl(DIN):
    """DIN, first aligned with the texts of its training records, then trained and served as ever.

    Args:
        align_epochs: passes of the alignment; with 0 this is the row ``din``.
        align_rate: learning rate of the alignment.
        temperature: of the contrastive loss.
        space_size: dimensions of the common space.
        parts: sub-spaces with a match of their own each.
        encoder: sentence-transformers id or folder.
    """

    align_epochs: int = 3
    align_rate: float = 1e-3
    temperature: float = 0.1
    space_size: int = 128
    parts: int = 1
    encoder: str = DEFAULT

    info = MethodInfo("ctrl", "Li et al., 2023, arXiv 2306.02841", needs=frozenset({"text"}), cost=150)
    space: ClassVar[Space] = {
        **DIN.space,
        "align_epochs": (3, 6, 10),
        "align_rate": (5e-4, 1e-3, 2e-3),
        "temperature": (0.05, 0.1, 0.2),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, {"align_epochs": 0, "space_size": 1, "parts": 1})
        check_positive(self, ("align_rate", "temperature"))
        if self.space_size % self.parts:
            raise ValueError(f"space_size {self.space_size} cannot be cut into {self.parts} equal parts")

    def fit(self, task: Task, seed: int) -> FitReport:
        """Encode the items' texts, align, train with early stopping on the validation part.

        Raises:
            NotRunnable: if RecBole or the text encoder is missing, or there is nothing to train or stop on.
        """
        from methods.ctrl.align import sentence

        if self.align_epochs:
            encoder = SentenceEncoder(self.encoder, device=task.compute.device, cache=task.compute.cache / "embeddings")
            self._texts = encoder.encode([sentence(task.catalogue, item) for item in range(task.catalogue.n_items)])
        return super().fit(task, seed)

    def _fit(self, task: Task, folder: Path, seed: int) -> tuple[FitReport, training.Trained]:
        from methods.ctrl.align import align

        written = files.write(task, folder, self.rows)
        stage = training.stage(self.model, task, folder, written.length, self._settings(written.length), seed)
        model = training.build(stage)
        if self.align_epochs:
            align(self._sides(model, stage), stage.train_data)
        with self._progress() as on_epoch:
            trained = training.train(stage, model, task, on_epoch)
        first = {"loss": "contrastive", "negatives": "the rest of the batch"}
        note = f"aligned with texts for {count(self.align_epochs, 'epoch')}"
        return self._report(trained, written.rows, note, before=self.align_epochs, **first), trained

    def _sides(self, model: "Module", stage: training.Stage) -> "Sides":
        from methods.ctrl.align import Sides

        ids = stage.dataset.field2token_id["item_id"]
        texts = np.zeros((len(ids), self._texts.shape[1]), np.float32)
        texts[[ids[str(item)] for item in range(len(self._texts))]] = self._texts
        return Sides(model, texts, self).to(stage.config["device"])

    def _settings(self, length: int) -> dict[str, object]:
        own = {field.name for field in fields(self)} - {field.name for field in fields(DIN)}
        return {name: value for name, value in super()._settings(length).items() if name not in own}
