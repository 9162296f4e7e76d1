"""The recommender of LLM-Rec: user vectors times what an MLP makes of the items' text vectors.

Source: Lyu et al., 2023, section 3.2 (MLP, dot product, binary cross-entropy, early stopping). Sizes,
rates and negatives are own choices.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from data.histories import Histories
from data.random import generator
from data.types import FloatArray, IntArray
from methods.llmrec.settings import Settings
from methods.lm.scoring import ScoringError
from methods.ranks import mid_rank, ndcg

Vectors = npt.NDArray[np.float32]

VALUES = 2**23
"""Numbers in the item vectors that are multiplied at once: lists of a thousand for every user are too many for that."""


class TextRecommender(nn.Module):
    """User embeddings and an MLP from text vectors to item embeddings.

    Args:
        n_users: number of users.
        width: dimensions of an item's text vector.
        settings: sizes and dropout.
    """

    def __init__(self, n_users: int, width: int, settings: Settings) -> None:
        super().__init__()
        self.users = nn.Embedding(n_users, settings.size)
        self.items = nn.Sequential(
            nn.Linear(width, settings.hidden),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.hidden, settings.size + 1),
        )
        nn.init.normal_(self.users.weight, std=0.1)

    @staticmethod
    def logits(users: Tensor, items: Tensor) -> Tensor:
        """Logits of user vectors (shape ``[..., size]``) and item vectors (``[..., size + 1]``, bias last)."""
        return (users * items[..., :-1]).sum(dim=-1) + items[..., -1]


@dataclass(frozen=True)
class Validation:
    """What training stops on: users, their candidates, and the column of each positive."""

    users: IntArray
    candidates: IntArray
    positive: IntArray


@dataclass(frozen=True)
class Fitted:
    """A trained recommender.

    Args:
        model: the parameters of the best pass.
        epochs: passes made.
        converged: whether training stopped before the limit of passes.
        quality: NDCG@10 on the validation part.
    """

    model: TextRecommender
    epochs: int
    converged: bool
    quality: float


def fit(
    vectors: Vectors, train: Histories, valid: Validation, settings: Settings, seed: int, device: str = "cpu"
) -> Fitted:
    """Train until the validation AUC has not improved for ``settings.patience`` passes.

    Users without training items have the mean vector of the others.

    Args:
        vectors: text vectors of all items, shape ``[items, width]``.
        train: training items of every user.
        valid: validation lists.
        settings: how.
        seed: seed of the initial parameters, the order of the data and the negatives.
        device: torch device.

    Raises:
        ScoringError: if scores stop being finite.
    """
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(int(generator(seed, "llmrec parameters").integers(2**63)))
        texts = torch.from_numpy(np.ascontiguousarray(vectors)).to(device)
        model = TextRecommender(len(train), vectors.shape[1], settings).to(device)
        known = torch.from_numpy(train.lengths > 0).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=settings.decay)
        best, best_state, waited, epoch = (-1.0, -1.0), model.state_dict(), 0, 0
        for epoch in range(1, settings.epochs + 1):
            model.train()
            for users, positives, negatives in batches(train, len(vectors), settings, seed, epoch):
                optimizer.zero_grad()
                _loss(model, texts, users, positives, negatives).backward()
                optimizer.step()
            model.users.weight.data[~known] = model.users.weight.data[known].mean(dim=0)
            found = quality(model, vectors, valid)
            waited = 0 if found > best else waited + 1
            if found > best:
                best, best_state = found, copy.deepcopy(model.state_dict())
            if waited >= settings.patience:
                break
        model.load_state_dict(best_state)
        return Fitted(model.eval(), epoch, waited >= settings.patience, best[1])


def batches(
    train: Histories, n_items: int, settings: Settings, seed: int, epoch: int
) -> Iterator[tuple[IntArray, IntArray, IntArray]]:
    """Users, positives and negatives (shape ``[batch, negatives]``) of one pass, in random order."""
    rng = generator(seed, "llmrec batches", epoch)
    rows = train.rows()
    negatives = draw_negatives(train, n_items, settings.negatives, rng)
    order = rng.permutation(len(rows))
    for start in range(0, len(order), settings.batch):
        chosen = order[start : start + settings.batch]
        yield rows[chosen], train.items[chosen], negatives[chosen]


def draw_negatives(train: Histories, n_items: int, count: int, rng: np.random.Generator) -> IntArray:
    """Uniform negatives of every training interaction, shape ``[n, count]``.

    One that is in the user's training history is drawn again, up to a hundred times.
    """
    base = train.rows()[:, None] * n_items
    known = np.unique(base[:, 0] + train.items)
    drawn = rng.integers(n_items, size=(len(train.items), count))
    checked = np.arange(drawn.size)
    for _ in range(100):
        pairs = (base + drawn).ravel()[checked]
        checked = checked[known[np.minimum(np.searchsorted(known, pairs), len(known) - 1)] == pairs]
        drawn.ravel()[checked] = rng.integers(n_items, size=len(checked))
    return drawn


def _loss(model: TextRecommender, texts: Tensor, users: IntArray, positives: IntArray, negatives: IntArray) -> Tensor:
    """Binary cross-entropy of the positives and the negatives, each item of the batch through the MLP once."""
    items, position = np.unique(np.concatenate([positives[:, None], negatives], axis=1), return_inverse=True)
    rows, chosen, columns = (
        torch.from_numpy(a).to(texts.device) for a in (users, items, position.reshape(len(users), -1))
    )
    embedded = functional.embedding(columns, model.items(texts[chosen]))
    logits = model.logits(model.users(rows)[:, None], embedded)
    return functional.softplus(-logits[:, 0]).mean() + functional.softplus(logits[:, 1:]).mean(dim=0).sum()


def item_vectors(model: TextRecommender, vectors: Vectors) -> Vectors:
    """Item embeddings of text vectors, shape ``[items, size + 1]``; the last column is the item's bias."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        embedded: Vectors = model.items(torch.from_numpy(np.ascontiguousarray(vectors)).to(device)).cpu().numpy()
    return embedded


def scores(model: TextRecommender, items: Vectors, users: IntArray, candidates: IntArray) -> FloatArray:
    """Logits of candidates, shape ``[rows, candidates]``.

    Args:
        model: where the user embeddings are.
        items: from :func:`item_vectors`.
        users: user indices, shape ``[rows]``.
        candidates: item indices, shape ``[rows, candidates]``.
    """
    user = model.users.weight.detach().cpu().numpy()[users].astype(np.float64)
    logits = np.empty(candidates.shape)
    step = max(1, VALUES // (candidates.shape[1] * items.shape[1]))
    for start in range(0, len(candidates), step):
        rows = slice(start, start + step)
        chosen = items[candidates[rows]].astype(np.float64)
        logits[rows] = np.matmul(chosen[..., :-1], user[rows, :, None])[..., 0] + chosen[..., -1]
    return logits


def quality(model: TextRecommender, vectors: Vectors, valid: Validation) -> tuple[float, float]:
    """Validation AUC, on which training stops because it is the steadier of the two, and NDCG@10.

    Raises:
        ScoringError: if a score is not finite: below no other, its item would count as better than first.
    """
    model.eval()
    found = scores(model, item_vectors(model, vectors), valid.users, valid.candidates)
    if bad := int((~np.isfinite(found)).sum()):
        raise ScoringError(f"{bad} of {found.size} validation scores are not finite. Try a lower rate")
    rank = mid_rank(found, valid.positive)
    auc = 1 - rank / (found.shape[1] - 1)
    return float(auc.mean()), float(ndcg(rank).mean())
