"""What all of RecBole's models share behind the suite's contract; a model is a subclass that declares itself."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from data.random import generator
from data.types import FloatArray, IntArray
from methods.base import FitReport, MethodInfo, NotRunnable, Requests, Space, Task, averaged, count
from methods.checks import check_least, check_positive, check_shares
from methods.recbole import environment, files, training

if TYPE_CHECKING:
    import torch

PAIRS = 16_384
"""Pairs per forward pass where a model scores pairs."""

VALID_PAIRS = 4_000_000
"""Pairs of a validation where a model scores pairs: it ranks all items for every user, after every epoch."""

ROWS = 512
"""Rows per forward pass where a model scores all items at once."""

LEAST: Mapping[str, int] = {
    **dict.fromkeys(("epochs", "patience", "train_batch_size", "embedding_size", "hidden_size", "inner_size"), 1),
    **dict.fromkeys(("n_layers", "n_heads", "num_layers", "nv", "nh"), 1),
    "reg_weight": 0,
}
"""Setting -> its least value."""


class Declared:
    """What a model class says about itself.

    Args:
        info: as every method.
        model: name of the class in RecBole.
        rows: what it is trained on.
        negatives: sampled negatives per positive; 0 for the softmax over all items.
        loss: what training minimises.
        scores_pairs: whether it can only score (history, item) pairs.
        least: least values of settings, of those that it has.
        space: what --tune chooses from.
    """

    info: MethodInfo
    model: ClassVar[str]
    rows: ClassVar[files.Rows] = "next item"
    negatives: ClassVar[int] = 0
    loss: ClassVar[str] = "cross-entropy"
    scores_pairs: ClassVar[bool] = False
    least: ClassVar[Mapping[str, int]] = LEAST
    space: ClassVar[Space]


@dataclass
class RecBoleModel(Declared):
    """A model of RecBole; every field but two is RecBole's option of the same name.

    Args:
        epochs: most epochs.
        patience: validations without a better full-ranking NDCG@10 after which training stops.
        learning_rate: learning rate of Adam.
        train_batch_size: rows per step.
        options: further options of RecBole, by name.
    """

    epochs: int = 30
    patience: int = 4
    learning_rate: float = 1e-3
    train_batch_size: int = 512
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        own = {f.name for f in fields(self)}
        check_least(self, {name: least for name, least in self.least.items() if name in own})
        check_positive(self, ("learning_rate",))
        check_shares(self, sorted(name for name in own if name.endswith("dropout_prob")), one=False)
        for twice in own & set(self.options):
            raise ValueError(f"{twice} is a setting of its own, not one of options")

    def fit(self, task: Task, seed: int) -> FitReport:
        """Train with early stopping on the validation part.

        Raises:
            NotRunnable: if RecBole or a package it needs is missing, or there is nothing to train or stop on.
        """
        environment.require()
        if not len(task.valid):
            raise NotRunnable(f"{self.model} stops early on validation users, and there are none")
        if task.train.lengths.max(initial=0) < 2:
            raise NotRunnable(f"{self.model} learns from users with two or more training items, and there are none")
        self._threads = task.compute.threads
        with (
            environment.shims(seed, task.compute.threads),
            tempfile.TemporaryDirectory(prefix="promptrec-bench-") as folder,
        ):
            training.check_options(self.model, self.options)
            bounded = self._bounded(task, seed)
            report, self.trained = self._fit(bounded, Path(folder), seed)
        notes = [report.note]
        if len(bounded.valid) < len(task.valid):
            notes.append(f"stops early on {len(bounded.valid)} of {len(task.valid)} validation users")
        known = task.train.lengths > (self.rows != "pairs")  # a list needs an item before the next one
        notes.append(averaged(training.average_users(self.trained, known)))
        return replace(report, note="; ".join(filter(None, notes)))

    def _bounded(self, task: Task, seed: int) -> Task:
        """The task with no more validation users than a model that scores pairs can rank all items for."""
        most = max(1, VALID_PAIRS // task.catalogue.n_items)
        if not self.scores_pairs or len(task.valid) <= most:
            return task
        rows = np.sort(generator(seed, self.model, "validation").choice(len(task.valid), most, replace=False))
        return task.with_valid(rows)

    def score(self, requests: Requests) -> FloatArray:
        """Scores of the candidates, shape ``[rows, candidates]``."""
        import torch

        step = max(1, PAIRS // max(1, requests.candidates.shape[1])) if self.scores_pairs else ROWS
        scores = [np.empty((0, requests.candidates.shape[1]))]
        with torch.no_grad(), environment.torch_threads(self._threads):
            for start in range(0, len(requests), step):
                rows = np.arange(start, min(start + step, len(requests)))
                scores.append(self._score(requests.select(rows)).double().cpu().numpy())
        return np.concatenate(scores)

    def _fit(self, task: Task, folder: Path, seed: int) -> tuple[FitReport, training.Trained]:
        written = files.write(task, folder, self.rows)
        stage = training.stage(self.model, task, folder, written.length, self._settings(written.length), seed)
        with self._progress() as on_epoch:
            trained = training.train(stage, training.build(stage), task, on_epoch)
        return self._report(trained, written.rows), trained

    def _settings(self, length: int) -> dict[str, Any]:
        """RecBole's options of this model for lists of ``length`` items."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("patience", "options")}
        # RecBole stops at the first validation *after* stopping_step ones without improvement.
        own["stopping_step"] = self.patience - 1
        if self.negatives:
            own["train_neg_sample_args"] = {"distribution": "uniform", "sample_num": self.negatives}
        else:
            own["loss_type"] = "CE"
        return {**own, **self.options}

    def _report(
        self, trained: training.Trained, rows: int, *notes: str, before: int = 0, loss: str = "", negatives: str = ""
    ) -> FitReport:
        """What training took, and the passes ``before`` it with their own loss and negatives."""
        if not trained.stopped:
            notes = (f"stopped at the limit of {count(trained.epochs, 'epoch')}, not by early stopping", *notes)
        drawn = str(self.negatives or "all items")
        return FitReport(
            before + trained.epochs,
            trained.stopped,
            (before + trained.epochs) * rows,
            note="; ".join(notes),
            loss=f"{loss}, then {self.loss}" if before else self.loss,
            negatives=f"{negatives}, then {drawn}" if before else drawn,
        )

    @contextlib.contextmanager
    def _progress(self) -> Iterator[Any]:
        from tqdm import tqdm

        with tqdm(total=self.epochs, desc=self.info.name, unit="epoch", leave=False) as bar:
            yield bar.update

    def _score(self, requests: Requests) -> "torch.Tensor":
        import torch
        from recbole.data.interaction import Interaction

        model, items = self.trained.model, self.trained.items[requests.candidates]
        device = next(model.parameters()).device
        columns = {"user_id": self.trained.users[requests.users]}
        if self.rows != "pairs":
            columns |= self._lists(requests)
        if self.scores_pairs:
            columns = {name: np.repeat(column, items.shape[1], axis=0) for name, column in columns.items()}
            columns["item_id"] = items.ravel()
        interaction = Interaction({name: torch.from_numpy(column) for name, column in columns.items()}).to(device)
        if self.scores_pairs:
            pairs: torch.Tensor = model.predict(interaction).view(items.shape)  # type: ignore[operator]
            return pairs
        scores: torch.Tensor = model.full_sort_predict(interaction).view(len(requests), -1)  # type: ignore[operator]
        return scores.gather(1, torch.from_numpy(items).to(device))

    def _lists(self, requests: Requests) -> dict[str, IntArray]:
        """Histories as RecBole takes them: padded at the right with item 0."""
        lists = np.zeros((len(requests), self.trained.length), np.int64)
        lengths = np.ones(len(requests), np.int64)  # an empty history is one padding item
        room = self.trained.length - (self.rows == "cloze")
        for row, history in enumerate(requests.histories):
            shown = history[max(0, len(history) - room) :]
            if self.rows == "cloze":
                shown = files.double_first(shown)
            lists[row, : len(shown)] = self.trained.items[shown]
            lengths[row] = max(1, len(shown))
        return {"item_id_list": lists, "item_length": lengths}
