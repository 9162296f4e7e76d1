"""RQ2: how far apart the classes' embeddings lie, as two numbers and a picture (the paper's figure 3)."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from data.random import generator
from data.types import FloatArray, IntArray
from methods.artifacts import csv_text
from methods.base import Requests
from methods.ganprompt.stage1 import Game

BATCH = 32
"""Histories per forward pass."""


@dataclass(frozen=True)
class Separation:
    """Embeddings of the same users in every class.

    Args:
        embeddings: shape ``[users, classes, size]``.
        names: names of the classes.
        seed: of the split of the users that the probe is judged on.
    """

    embeddings: FloatArray
    names: tuple[str, ...]
    seed: int = 0

    @cached_property
    def silhouette(self) -> float:
        """Mean silhouette of the classes in [-1, 1], in all dimensions.

        Source: Rousseeuw, 1987, as in scikit-learn.
        """
        from sklearn.metrics import silhouette_score

        return float(silhouette_score(*self._labelled(np.arange(len(self.embeddings)))))

    @cached_property
    def probe(self) -> float:
        """Accuracy of a logistic regression, learnt on half of the users, for the other half; in [0, 1]."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        users = generator(self.seed, "ganprompt probe").permutation(len(self.embeddings))
        learnt, held_out = np.array_split(users, 2)
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        probe.fit(*self._labelled(learnt))
        return float(probe.score(*self._labelled(held_out)))

    @cached_property
    def plane(self) -> FloatArray:
        """The two principal components, shape ``[users, classes, 2]``."""
        from sklearn.decomposition import PCA

        flat = self.embeddings.reshape(-1, self.embeddings.shape[2])
        points: FloatArray = PCA(2, svd_solver="full").fit_transform(flat).reshape(*self.embeddings.shape[:2], 2)
        return points

    def __str__(self) -> str:
        return f"silhouette {self.silhouette:.3f}, linear probe {self.probe:.3f}"

    def picture(self, title: str) -> bytes:
        """A scatter plot of the plane as PNG, with both numbers in its title."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4.5), layout="constrained")
        axes = figure.subplots()
        for number, name in enumerate(self.names):
            axes.scatter(
                self.plane[:, number, 0], self.plane[:, number, 1], s=12, alpha=0.7, color=f"C{number}", label=name
            )
        axes.set_title(f"{title}: {self}", fontsize=10)
        axes.set_xlabel("first principal component")
        axes.set_ylabel("second principal component")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
        return file.getvalue()

    def _labelled(self, users: IntArray) -> tuple[FloatArray, IntArray]:
        """Embeddings of some users in a row, and the class of each."""
        flat = self.embeddings[users].reshape(-1, self.embeddings.shape[2])
        return flat, np.tile(np.arange(len(self.names)), len(users))


def separation(game: Game, requests: Requests, users: int) -> Separation:
    """The classes' embeddings of some users' histories."""
    rng = generator(game.seed, "ganprompt shown users")
    rows = np.sort(rng.permutation(len(requests))[:users])
    histories = [requests.histories[row] for row in rows.tolist()]
    with torch.inference_mode():
        batches = (game.prompts(histories[start : start + BATCH], rng) for start in range(0, len(rows), BATCH))
        found = torch.cat([game.embeddings(prompts) for prompts in batches])
    names = ("plain", *game.attributes.names)
    return Separation(found.cpu().numpy(), names, game.seed)


def artifacts(**stages: Separation) -> dict[str, str | bytes]:
    """Pictures of all stages, and the numbers they show, by file name."""
    pictures = {f"embeddings-{stage}.png": found.picture(stage) for stage, found in stages.items()}
    return {"embeddings.csv": table(stages), **pictures}


def table(stages: Mapping[str, Separation]) -> str:
    """What the pictures show, as CSV: one line per user and class."""
    rows = (
        (stage, f"{found.silhouette:.6g}", f"{found.probe:.6g}", user, name, f"{x:.6g}", f"{y:.6g}")
        for stage, found in stages.items()
        for user, points in enumerate(found.plane.tolist())
        for name, (x, y) in zip(found.names, points, strict=True)
    )
    return csv_text(["stage", "silhouette", "probe", "user", "class", "x", "y"], rows)
