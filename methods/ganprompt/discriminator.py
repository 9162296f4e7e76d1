"""Tells from an embedding which attribute its prompt named."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def make_discriminator(size: int, classes: int, hidden: int) -> nn.Sequential:
    """A three-layer MLP from embeddings ``[..., size]`` to logits ``[..., classes]``.

    Embeddings are standardised first (ours), so that the generator cannot win by making them larger.
    """
    return nn.Sequential(
        nn.LayerNorm(size, elementwise_affine=False),
        nn.Linear(size, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )


@dataclass
class Discriminator:
    """The MLP and its optimiser.

    Args:
        size: size of the embeddings.
        classes: the plain history and one per attribute.
        hidden: width of its layers.
        rate: learning rate.
        seed: seed of its first weights.
        device: where the embeddings are.
    """

    size: int
    classes: int
    hidden: int
    rate: float
    seed: int
    device: torch.device
    network: nn.Sequential = field(init=False)

    def __post_init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = make_discriminator(self.size, self.classes, self.hidden).to(self.device)
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=self.rate)

    def learn(self, embeddings: Tensor) -> tuple[float, float]:
        """One step on embeddings ``[users, classes, size]`` as they are; loss and accuracy before the step."""
        logits = self.network(embeddings.detach())
        loss = cross_entropy(logits.flatten(0, 1), self._classes(logits))
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        right = logits.argmax(-1) == torch.arange(self.classes, device=self.device)
        return float(loss.detach()), float(right.float().mean())

    def loss(self, embeddings: Tensor) -> Tensor:
        """Cross-entropy of the true classes, with a gradient for the embeddings and none for the discriminator."""
        self.network.requires_grad_(False)
        logits = self.network(embeddings)
        self.network.requires_grad_(True)
        return cross_entropy(logits.flatten(0, 1), self._classes(logits))

    def _classes(self, logits: Tensor) -> Tensor:
        return torch.arange(self.classes, device=self.device).repeat(len(logits))
