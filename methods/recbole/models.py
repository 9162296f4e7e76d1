"""RecBole's models by name: what each is, and the settings it has by default.

The defaults are for ml-100k on one core: sizes, learning rates, batch sizes and patience were chosen on the
validation items (NDCG@10 over all items), never on test items. Fields are RecBole's options.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from methods.base import FitReport, MethodInfo, Space, Task, count
from methods.checks import check_least, check_shares
from methods.recbole import files, training
from methods.recbole.adapter import LEAST, RecBoleModel

RATES: Space = {"learning_rate": (5e-4, 1e-3, 2e-3, 5e-3)}
ATTENTION: Space = {**RATES, "hidden_dropout_prob": (0.1, 0.2, 0.3, 0.5), "n_layers": (1, 2)}


@dataclass
class BPR(RecBoleModel):
    """Matrix factorisation with the pairwise ranking loss."""

    info = MethodInfo("bpr", "Rendle et al., 2009, Bayesian personalized ranking", cost=25)
    model = "BPR"
    rows = "pairs"
    negatives = 1
    loss = "BPR"
    space: ClassVar[Space] = {"learning_rate": (1e-3, 2e-3, 5e-3, 1e-2), "embedding_size": (32, 64, 128)}

    epochs: int = 300
    patience: int = 30
    learning_rate: float = 2e-3
    train_batch_size: int = 2048
    embedding_size: int = 64


@dataclass
class LightGCN(RecBoleModel):
    """Embeddings propagated over the user-item graph."""

    info = MethodInfo("lightgcn", "He et al., 2020, LightGCN", cost=45)
    model = "LightGCN"
    rows = "pairs"
    negatives = 1
    loss = "BPR"
    least: ClassVar[Mapping[str, int]] = {**LEAST, "n_layers": 0}
    space: ClassVar[Space] = {
        "learning_rate": (2e-3, 5e-3, 1e-2, 2e-2),
        "n_layers": (1, 2, 3),
        "reg_weight": (1e-5, 1e-4, 1e-3),
    }

    epochs: int = 300
    patience: int = 30
    learning_rate: float = 1e-2
    train_batch_size: int = 8192
    embedding_size: int = 64
    n_layers: int = 2
    reg_weight: float = 1e-5


@dataclass
class GRU4Rec(RecBoleModel):
    """Recurrent network over the history."""

    info = MethodInfo("gru4rec", "Hidasi et al., 2016, Session-based recommendations with RNNs", cost=45)
    model = "GRU4Rec"
    space: ClassVar[Space] = {**RATES, "hidden_size": (64, 128), "dropout_prob": (0.1, 0.3, 0.5)}

    learning_rate: float = 2e-3
    embedding_size: int = 64
    hidden_size: int = 64
    num_layers: int = 1
    dropout_prob: float = 0.3


@dataclass
class SASRec(RecBoleModel):
    """Self-attention over the history, left to right."""

    info = MethodInfo("sasrec", "Kang and McAuley, 2018, Self-attentive sequential recommendation", cost=85)
    model = "SASRec"
    space: ClassVar[Space] = ATTENTION

    hidden_size: int = 64
    inner_size: int = 64
    n_layers: int = 1
    n_heads: int = 2
    hidden_dropout_prob: float = 0.3
    attn_dropout_prob: float = 0.3


@dataclass
class BERT4Rec(RecBoleModel):
    """Self-attention in both directions, trained to fill masked items."""

    info = MethodInfo("bert4rec", "Sun et al., 2019, BERT4Rec", cost=90)
    model = "BERT4Rec"
    rows = "cloze"
    space: ClassVar[Space] = {**ATTENTION, "mask_ratio": (0.1, 0.2, 0.4)}

    hidden_size: int = 64
    inner_size: int = 64
    n_layers: int = 1
    n_heads: int = 2
    hidden_dropout_prob: float = 0.2
    attn_dropout_prob: float = 0.2
    mask_ratio: float = 0.2
    ft_ratio: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self, ("mask_ratio", "ft_ratio"))

    def _settings(self, length: int) -> dict[str, object]:
        # RecBole masks int(mask_ratio * length) items at most, and cannot do with none.
        return {**super()._settings(length), "mask_ratio": max(self.mask_ratio, 1.001 / length)}


@dataclass
class HGN(RecBoleModel):
    """Gates over the features and items of the history."""

    info = MethodInfo("hgn", "Ma et al., 2019, Hierarchical gating networks", cost=25)
    model = "HGN"
    space: ClassVar[Space] = {**RATES, "embedding_size": (32, 64, 128), "pooling_type": ("average", "max")}

    embedding_size: int = 64
    pooling_type: Literal["average", "max"] = "average"


@dataclass
class Caser(RecBoleModel):
    """Convolutions over the history."""

    info = MethodInfo("caser", "Tang and Wang, 2018, Caser", cost=135)
    model = "Caser"
    space: ClassVar[Space] = {**RATES, "dropout_prob": (0.2, 0.4, 0.6), "reg_weight": (1e-5, 1e-4, 1e-3)}

    learning_rate: float = 2e-3
    embedding_size: int = 64
    nv: int = 4
    nh: int = 4
    dropout_prob: float = 0.4
    reg_weight: float = 1e-4


@dataclass
class DIN(RecBoleModel):
    """Attention of the candidate over the history, one (history, candidate) pair at a time."""

    info = MethodInfo("din", "Zhou et al., 2018, Deep interest network", cost=70)
    model = "DIN"
    negatives = 1
    loss = "binary cross-entropy"
    scores_pairs = True
    space: ClassVar[Space] = {**RATES, "embedding_size": (16, 32, 64), "dropout_prob": (0.0, 0.2, 0.4)}

    train_batch_size: int = 1024
    embedding_size: int = 32
    mlp_hidden_size: list[int] = field(default_factory=lambda: [64, 32])
    dropout_prob: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.mlp_hidden_size or min(self.mlp_hidden_size) < 1:
            raise ValueError(f"mlp_hidden_size holds one or more widths of at least 1, not {self.mlp_hidden_size}")


@dataclass
class S3Rec(SASRec):
    """SASRec pretrained to predict masked items, attributes and segments."""

    info = MethodInfo("s3rec", "Zhou et al., 2020, S3-Rec", cost=85)
    model = "S3Rec"
    space: ClassVar[Space] = {**ATTENTION, "pretrain_epochs": (1, 3)}

    pretrain_epochs: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, {"pretrain_epochs": 0})

    def _fit(self, task: Task, folder: Path, seed: int) -> tuple[FitReport, training.Trained]:
        attributes = files.attributes(task.catalogue)
        # The model cannot be built without an attribute, even where none is worth predicting.
        written = files.write(task, folder, self.rows, attributes or ["none"] * task.catalogue.n_items)
        stage = training.stage(self.model, task, folder, written.length, self._settings(written.length), seed)
        epochs = self.pretrain_epochs if attributes else 0
        with self._progress() as on_epoch:
            model = training.pretrain(stage, epochs, folder / "pretrained.pth")
            trained = training.train(stage, model, task, on_epoch)
        note = f"pretrained for {count(epochs, 'epoch')}" if attributes else "items have no attributes: finetuned only"
        loss = "binary cross-entropy of masked items, attributes and segments"
        return self._report(trained, written.rows, note, before=epochs, loss=loss, negatives="1"), trained

    def _settings(self, length: int) -> dict[str, object]:
        # The last state is handed over by training.pretrain; save_step would write others beside it.
        own = {"item_attribute": files.ATTRIBUTE, "train_stage": "pretrain", "save_step": self.pretrain_epochs + 1}
        return {**super()._settings(length), **own}
