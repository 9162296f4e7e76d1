"""A finite feature map that is exact for the queries and keys at hand."""

import torch
from torch import Tensor


def kernel(query: Tensor, key: Tensor, visible: Tensor, scaling: float) -> Tensor:
    """``exp(scaling * <q, k> - the query's maximum)`` where the query sees the key, else 0.

    The factor ``exp(-maximum)`` is the same for all keys of a query: it cancels in attention.

    Args:
        query: shape ``[..., n, size]``.
        key: shape ``[..., m, size]``.
        visible: shape ``[..., n, m]``, at least one key per query.
        scaling: factor of the products.

    Returns:
        Shape ``[..., n, m]``, values in [0, 1].
    """
    products = (query @ key.transpose(-1, -2) * scaling).masked_fill(~visible, float("-inf"))
    return (products - products.amax(-1, keepdim=True)).exp()


def bi_features(values: Tensor) -> tuple[Tensor, Tensor]:
    """Features of queries and keys whose inner products are the given kernel values.

    The singular value decomposition ``K = U S V'`` gives ``phi(q) = U sqrt(S)`` and ``phi(k) = V sqrt(S)``: as
    many features as there are queries or keys, and exact at every size of the keys, where random features
    would need exponentially many (own choice).

    Args:
        values: shape ``[..., n, m]``.

    Returns:
        ``phi(q)`` of shape ``[..., n, r]`` and ``phi(k)`` of shape ``[..., m, r]`` with ``r = min(n, m)``.

    >>> K = torch.tensor([[1.0, 0.5], [0.25, 1.0]], dtype=torch.float64)
    >>> phi_q, phi_k = bi_features(K)
    >>> bool(torch.allclose(phi_q @ phi_k.T, K))
    True
    """
    left, size, right = torch.linalg.svd(values, full_matrices=False)
    root = size.sqrt()[..., None, :]
    return left * root, right.transpose(-1, -2) * root
