"""Vectors are those of the leaderboard's own rows."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("recbole")

import torch

from data.histories import Histories
from methods.base import Requests
from methods.collm.vectors import collaborative_vectors
from methods.registry import create
from tests.methods.lm.small import make_task


@pytest.mark.parametrize("name", ["bpr", "lightgcn"])
def test_the_vectors_rank_as_their_row_does(tmp_path, name):
    task = make_task(tmp_path, users=24)
    vectors, report = collaborative_vectors(name, task, seed=3)
    row = create(name)
    assert row.fit(task, 3) == report
    users, items = vectors[:24].double(), vectors[24:].double()
    products = (users[task.valid.users, None] * items[torch.from_numpy(task.valid.candidates)]).sum(-1).numpy()
    scores = row.score(task.valid)
    np.testing.assert_allclose(products / products.std(), scores / scores.std(), atol=1e-4)


def test_who_has_no_training_interaction_gets_the_mean_of_the_others(tmp_path):
    task = make_task(tmp_path, users=24)
    train = Histories.of([np.empty(0, np.int64), *(row[row != 5] for row in list(task.train)[1:])])
    keep = np.flatnonzero(task.valid.users)
    valid: Requests = task.valid.select(keep)
    task = replace(task, train=train, valid=valid, valid_positive=task.valid_positive[keep])
    vectors, _ = collaborative_vectors("bpr", task, seed=0)
    users, items = vectors[:24], vectors[24:]
    known = np.unique(train.items)
    assert 5 not in known
    torch.testing.assert_close(users[0], users[1:].mean(0))
    torch.testing.assert_close(items[5], items[known].mean(0))
    torch.testing.assert_close(items[known].square().mean(), torch.tensor(1.0))
