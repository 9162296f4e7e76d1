"""Ranks on validation lists against those of the suite."""

import numpy as np

from benchmarks import metrics
from methods.ranks import mid_rank, ndcg


def test_methods_rank_validation_lists_as_the_suite_ranks_test_lists():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(12, size=(400, 20)).astype(float), rng.integers(20, size=400)
    rank = metrics.rank_of_positive(scores, positive)
    assert (rank == 9.5).any()
    np.testing.assert_array_equal(mid_rank(scores, positive), rank)
    np.testing.assert_array_equal(ndcg(rank), metrics.ndcg(rank, 10))
