"""The linear model behind an attention layer, and the gradient steps that demonstrations are on it.

For one layer and query head, with keys and queries after position encoding, the kernel
``kappa(k, q) = exp(k.q / sqrt d) = <phi(k), phi(q)>``, demonstration tokens D, the other visible tokens T and
``Z`` the sum of the kernel over both:

    W0 = (1/Z) sum_T v_j phi(k_j)'                the model without demonstrations
    L(W) = -(1/(eta Z)) sum_D v_i' W phi(k_i)     the dual loss, Z held constant
    W1 = W0 - eta grad L = W0 + Delta W           one gradient step
    W1 phi(q) = attention output                  for every eta and every split of the tokens

These definitions are ours. The identity is a tool: it holds for any split, so it is no evidence that a model
learns in context; and beyond the first layer the keys of T depend on D already.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from methods.lrgd.feature import bi_features, kernel
from methods.lrgd.record import Trace


@dataclass(frozen=True)
class Dual:
    """The dual model of one layer: all heads (leading dimensions) and all queries at once.

    ``Z`` depends on the query, everything else does not: weights are kept without the factor 1/Z, and
    :meth:`apply` divides by it.

    Args:
        phi_query: shape ``[..., n, r]``.
        phi_key: shape ``[..., m, r]``.
        value: shape ``[..., m, size]``.
        partition: ``Z`` of every query, shape ``[..., n]``.
    """

    phi_query: Tensor
    phi_key: Tensor
    value: Tensor
    partition: Tensor

    @classmethod
    def of(cls, query: Tensor, key: Tensor, value: Tensor, visible: Tensor, scaling: float) -> "Dual":
        """The dual model of queries ``[..., n, size]`` that see keys and values ``[..., m, size]``."""
        values = kernel(query, key, visible, scaling)
        phi_query, phi_key = bi_features(values)
        return cls(phi_query, phi_key, value, values.sum(-1))

    @classmethod
    def of_trace(cls, trace: Trace, dtype: torch.dtype = torch.float64) -> "Dual":
        """The dual model of a recorded layer, computed in the given precision."""
        query, key, value = (states.detach().to(dtype) for states in (trace.query, trace.key, trace.value))
        return cls.of(query, key, value, trace.visible[:, None], trace.scaling)

    def start(self, demonstration: Tensor) -> Tensor:
        """``Z W0``: the model of the tokens that are no demonstration, shape ``[..., size, r]``.

        Args:
            demonstration: True for demonstration tokens, shape ``[m]``.
        """
        return self._sum(~demonstration)

    def update(self, demonstration: Tensor, eta: float = 1.0) -> Tensor:
        """``Z Delta W = -eta Z grad L``: one step, the same for every eta; shape ``[..., size, r]``."""
        return eta * (self._sum(demonstration) / eta)

    def loss(self, weight: Tensor, demonstration: Tensor, eta: float = 1.0) -> Tensor:
        """``Z L(W)`` for a weight without the factor 1/Z, shape ``[...]``."""
        shown = (weight @ self.phi_key.transpose(-1, -2)).transpose(-1, -2)
        return -((self.value * shown).sum(-1) * demonstration).sum(-1) / eta

    def token_by_token(self, demonstration: Tensor) -> Tensor:
        """``Z W1`` after one step per demonstration token, in their order, shape ``[..., size, r]``."""
        weight = self.start(demonstration)
        for token in demonstration.nonzero()[:, 0].tolist():
            weight = weight + self.value[..., token, :, None] * self.phi_key[..., token, None, :]
        return weight

    def apply(self, weight: Tensor) -> Tensor:
        """``W phi(q)`` for every query, shape ``[..., n, size]``."""
        return self.phi_query @ weight.transpose(-1, -2) / self.partition[..., None]

    def share(self, demonstration: Tensor) -> Tensor:
        """``lambda = Z_D / Z`` of every query, shape ``[..., n]``."""
        return self._mass(demonstration) / self.partition

    def attention(self, tokens: Tensor) -> Tensor:
        """Attention to some tokens alone, shape ``[..., n, size]``; 0 where a query sees none of them.

        With ``lambda`` of :meth:`share`: attention = (1 - lambda) attention(T) + lambda attention(D).
        """
        mass = self._mass(tokens)[..., None]
        alone = self.phi_query @ self._sum(tokens).transpose(-1, -2) / mass
        return torch.where(mass > EMPTY * self.partition[..., None], alone, 0.0)

    def regularised(self, demonstration: Tensor, alpha: float) -> Tensor:
        """``Z ((1 - alpha) W0 + Delta W)``: the step starts nearer to nothing, shape ``[..., size, r]``."""
        return (1 - alpha) * self.start(demonstration) + self.update(demonstration)

    def contrasted(self, demonstration: Tensor, beta: float, negative: Tensor) -> Tensor:
        """``Z W1`` with ``v_i - beta * negative`` for the values of demonstrations, shape ``[..., size, r]``.

        Args:
            demonstration: True for demonstration tokens, shape ``[m]``.
            beta: how much to subtract.
            negative: mean value of negative demonstrations, shape ``[..., size]``.
        """
        features = (self.phi_key * demonstration[:, None]).sum(-2)
        return self._full - beta * negative[..., :, None] * features[..., None, :]

    @cached_property
    def _full(self) -> Tensor:
        return self.value.transpose(-1, -2) @ self.phi_key

    def _sum(self, tokens: Tensor) -> Tensor:
        return (self.value * tokens[:, None]).transpose(-1, -2) @ self.phi_key

    def _mass(self, tokens: Tensor) -> Tensor:
        return (self.phi_query @ (self.phi_key * tokens[:, None]).sum(-2)[..., None])[..., 0]


EMPTY = 1e-12
"""Least share of the kernel that counts as seeing a token: below is rounding of the features."""


def perturbed(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor, scaling: float, noise: Tensor, demonstration: Tensor
) -> Dual:
    """The dual model with demonstration keys ``k_i + noise_i``; Z is that of the perturbed keys.

    Args:
        query: shape ``[..., n, size]``.
        key: shape ``[..., m, size]``.
        value: shape ``[..., m, size]``.
        visible: shape ``[..., n, m]``.
        scaling: factor of the products.
        noise: shape as ``key``.
        demonstration: True for demonstration tokens, shape ``[m]``.
    """
    return Dual.of(query, key + noise * demonstration[:, None], value, visible, scaling)
