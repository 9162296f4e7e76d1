"""Settings of the recommender of LLM-Rec."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class Settings:
    """How the recommender is built and trained.

    Args:
        size: dimensions of user and item vectors.
        hidden: width of the MLP's hidden layer.
        dropout: share of hidden units left out in training.
        negatives: sampled items per positive, uniformly from those not in the user's training history.
        rate: learning rate of AdamW.
        decay: weight decay of AdamW.
        batch: positives per step.
        epochs: most passes over the training data.
        patience: passes without a better validation result before training stops.
    """

    size: int = 64
    hidden: int = 512
    dropout: float = 0.8
    negatives: int = 4
    rate: float = 2e-3
    decay: float = 1e-2
    batch: int = 4096
    epochs: int = 100
    patience: int = 5
