"""Contrastive alignment of a collaborative model with texts of the same records.

Source: Li et al., "CTRL: connect collaborative and language model for CTR prediction", 2023, arXiv 2306.02841,
sections 3.2 and 3.3. A record is a history and a candidate.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from data.dataset import Catalogue

if TYPE_CHECKING:
    from methods.ctrl.method import Ctrl


def sentence(catalogue: Catalogue, item: int) -> str:
    """An item's row of the table as text, in the words of the paper's template (section 3.1).

    >>> sentence(Catalogue("x", ("u",), ("i",), ("Alien",), {"year": ("1979",), "genres": ("",)}), 0)
    'This is an item, title is Alien, year is 1979.'
    """
    values = {"title": catalogue.titles[item]} | {name: column[item] for name, column in catalogue.fields.items()}
    article = "an" if catalogue.domain.item[0] in "aeiou" else "a"
    facts = (f"{name} is {value}" for name, value in values.items() if value)
    return f"This is {article} {catalogue.domain.item}, {', '.join(facts)}."


class Sides(nn.Module):
    """A collaborative model and texts, projected into one space.

    Args:
        model: RecBole's DIN.
        texts: text vector of every item by RecBole's id, zeros for the padding 0, shape ``[ids, width]``.
        settings: how they are aligned.
    """

    def __init__(self, model: Any, texts: npt.NDArray[np.float32], settings: "Ctrl") -> None:
        super().__init__()
        self.model, self.settings = model, settings
        self.texts: Tensor
        self.register_buffer("texts", torch.from_numpy(texts))
        self.from_table = nn.Linear(model.dnn_predict_layers.in_features, settings.space_size)
        self.from_text = nn.Linear(2 * texts.shape[1], settings.space_size)

    def forward(self, records: Any) -> Tensor:
        """Similarity of every record's table side (row) and every record's text (column), shape ``[n, n]``."""
        table, text = (
            functional.normalize(side.unflatten(1, (self.settings.parts, -1)), dim=-1)
            for side in (self.from_table(self.hidden(records)), self.from_text(self.text(records)))
        )
        return torch.einsum("ipd,jqd->ijpq", table, text).amax(dim=-1).mean(dim=-1)

    def hidden(self, records: Any) -> Tensor:
        """The collaborative model's last hidden layer, shape ``[n, units]``."""
        kept: list[Tensor] = []
        with self.model.dnn_mlp_layers.register_forward_hook(lambda *call: kept.append(call[-1])):
            self.model.predict(records)
        return kept[0]

    def text(self, records: Any) -> Tensor:
        """Mean text vector of the history (zeros if empty) and that of the candidate, shape ``[n, 2 * width]``."""
        history = records[self.model.ITEM_SEQ]
        count = (history > 0).sum(dim=1, keepdim=True).clamp(min=1)
        return torch.cat([self.texts[history].sum(dim=1) / count, self.texts[records[self.model.ITEM_ID]]], dim=1)

    def loss(self, records: Any) -> Tensor:
        """Cross-entropy of each record's own text among all texts of the batch, and the other way round (eq. 4)."""
        similarity = self(records) / self.settings.temperature
        own = torch.arange(len(similarity), device=similarity.device)
        return (functional.cross_entropy(similarity, own) + functional.cross_entropy(similarity.T, own)) / 2


def align(sides: Sides, batches: Iterable[Any]) -> None:
    """Minimise the contrastive loss; the collaborative model learns, and the projections.

    Args:
        sides: what to align.
        batches: RecBole's loader of the training records, gone through once per epoch.
    """
    optimiser = torch.optim.Adam(
        [parameter for parameter in sides.parameters() if parameter.requires_grad], lr=sides.settings.align_rate
    )
    sides.train()
    for _ in tqdm(range(sides.settings.align_epochs), desc="ctrl: aligning", unit="epoch", leave=False):
        for records in batches:
            optimiser.zero_grad()
            sides.loss(records.to(sides.texts.device)).backward()
            optimiser.step()
    sides.eval()
