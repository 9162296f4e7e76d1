"""Vectors of words from the company their titles keep: where an embedded backbone's embeddings start."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import eigsh

from data.histories import Histories
from data.random import generator
from data.types import FloatArray

REACH = 10
"""How many items apart two items of a history may be to count as met."""


def word_vectors(words: Sequence[Sequence[int]], train: Histories, vocabulary: int, width: int) -> FloatArray:
    """Vectors whose inner products are close to how much oftener than by chance two words meet.

    Words meet when items with them stand near each other in a history. The positive pointwise mutual
    information of all pairs of words is factorised, and the result rotated at random so that no coordinate is
    larger than the others.

    Args:
        words: tokens of each item's title.
        train: histories to count in.
        vocabulary: number of tokens.
        width: size of the vectors.

    Returns:
        Shape ``[vocabulary, width]`` with standard deviation 1 over the words that meet others, and 0 for
        all other words.

    Source: Levy and Goldberg, "Neural word embedding as implicit matrix factorization", NeurIPS 2014, with
    the symmetric square root of the eigenvalues.
    """
    pmi = _mutual_information(_meetings(words, train, vocabulary))
    met = np.flatnonzero(np.diff(pmi.indptr))
    vectors = np.zeros((vocabulary, width))
    rank = min(width, len(met) - 1)
    if rank < 1:
        return vectors
    rng = generator("word vectors")
    values, axes = eigsh(pmi[met][:, met], k=rank, which="LA", v0=rng.standard_normal(len(met)))
    rotation = np.linalg.qr(rng.standard_normal((width, width)))[0]
    found = (axes * np.sqrt(values.clip(min=0))) @ rotation[:rank]
    vectors[met] = found / found.std()
    return vectors


def _meetings(words: Sequence[Sequence[int]], train: Histories, vocabulary: int) -> sparse.csr_array:
    """How often two words meet, shape ``[vocabulary, vocabulary]``."""
    rows = train.rows()
    pairs = []
    for distance in range(1, REACH + 1):
        same = np.flatnonzero(rows[distance:] == rows[:-distance])
        pairs.append(np.stack([train.items[same], train.items[same + distance]]))
    earlier, later = np.concatenate(pairs, axis=1)
    near = sparse.coo_array((np.ones(len(later)), (earlier, later)), shape=(len(words), len(words))).tocsr()
    contained = sparse.csr_array(_contained(words, np.unique(train.items), vocabulary))
    counts = contained.T @ near @ contained
    return sparse.csr_array(counts + counts.T)


def _contained(words: Sequence[Sequence[int]], items: np.ndarray, vocabulary: int) -> sparse.coo_array:
    """Which of the items' titles contain which words."""
    pairs = np.array([(item, word) for item in items.tolist() for word in sorted(set(words[item]))])
    pairs = pairs.reshape(-1, 2)
    return sparse.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(words), vocabulary))


def _mutual_information(counts: sparse.csr_array) -> sparse.csr_array:
    """Positive pointwise mutual information; pairs that never meet have none."""
    found = counts.tocoo()
    each = counts.sum(axis=1)
    expected = each[found.row] * each[found.col] / counts.sum()
    information = np.log(found.data / expected).clip(min=0)
    result = sparse.csr_array((information, (found.row, found.col)), shape=counts.shape)
    result.eliminate_zeros()
    return result
