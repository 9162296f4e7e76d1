"""How different the embeddings of the same users are under different attributes, and the loss made of it.

A distance takes the embeddings of one class and those of another, shape ``[users, size]`` each, row by row the
same users, and gives one number: 0 for equal embeddings, larger for more diverse ones. All have gradients.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from methods.ganprompt.choices import DistanceName

Distance = Callable[[Tensor, Tensor], Tensor]


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean of 1 - cos over users, in [0, 2]; inputs ``[users, size]``, result without dimensions."""
    return (1 - cosine_similarity(a, b, dim=-1)).mean()


def jensen_shannon(a: Tensor, b: Tensor) -> Tensor:
    """Mean Jensen-Shannon divergence of the softmaxed embeddings over users, in [0, ln 2].

    Inputs ``[users, size]``, result without dimensions. The paper compares embeddings, which are no distributions;
    the softmax is ours.

    Source: Lin, "Divergence measures based on the Shannon entropy", 1991, in nats.
    """
    p, q = a.log_softmax(-1), b.log_softmax(-1)
    middle = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0, device=a.device, dtype=a.dtype))
    each = (p.exp() * (p - middle) + q.exp() * (q - middle)).sum(-1) / 2
    return each.mean()


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Mean over users of the root mean square difference of the components.

    Inputs ``[users, size]``, result without dimensions. The Euclidean distance divided by the root of the size, so
    that its weight does not depend on the backbone's width.
    """
    return ((a - b).square().mean(-1) + 1e-12).sqrt().mean()


def mmd(a: Tensor, b: Tensor) -> Tensor:
    """Squared maximum mean discrepancy between the users' embeddings in one class and in the other, in [0, 2].

    Inputs ``[users, size]``, result without dimensions. The biased estimate with a Gaussian kernel whose squared
    width is the median squared distance of all embeddings; the width has no gradient.

    Source: Gretton et al., "A kernel two-sample test", JMLR 2012.
    """
    both = torch.cat([a, b])
    squared = (both[:, None] - both[None]).square().sum(-1)
    apart = squared.detach()[~torch.eye(len(both), dtype=torch.bool, device=both.device)]
    kernel = (-squared / (2 * apart.median().clamp(min=1e-12))).exp()
    n = len(a)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def mean_pairwise(distance: Distance, embeddings: Tensor) -> Tensor:
    """Mean of a distance over all pairs of classes.

    Args:
        distance: between two classes.
        embeddings: shape ``[users, classes, size]``.
    """
    pairs = combinations(range(embeddings.shape[1]), 2)
    return torch.stack([distance(embeddings[:, i], embeddings[:, j]) for i, j in pairs]).mean()


@dataclass(frozen=True)
class Diversity:
    """What the generator's loss asks of its embeddings.

    Args:
        alpha: weight of the cosine term.
        beta: weight of the Jensen-Shannon term.
        gamma: weight of the whole.
        distance: ``cosine-js`` (paper), or another distance in its place.
        literal_sign: use the formula as it is printed, see :meth:`term`.
    """

    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 1.0
    distance: DistanceName = "cosine-js"
    literal_sign: bool = False

    def term(self, embeddings: Tensor) -> Tensor:
        """What is added to L_LM; embeddings ``[users, classes, size]``, result without dimensions.

        Ours is ``-gamma (alpha (1 - cos) + beta JS)``: minimising it drives embeddings apart. Printed is
        ``+gamma (alpha cos + beta JS)`` (section 3.3), whose second half pulls them together.
        """
        if self.distance != "cosine-js":
            return -self.gamma * mean_pairwise({"euclidean": euclidean, "mmd": mmd}[self.distance], embeddings)
        apart, js = mean_pairwise(cosine_distance, embeddings), mean_pairwise(jensen_shannon, embeddings)
        if self.literal_sign:
            return self.gamma * (self.alpha * (1 - apart) + self.beta * js)
        return -self.gamma * (self.alpha * apart + self.beta * js)
