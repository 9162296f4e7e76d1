"""Methods that tune language models learn and score wherever and in whatever precision they are asked to."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from methods.registry import create
from tests.methods.ganprompt.world import SEEN
from tests.methods.lrgd.world import DEMONSTRATE
from tests.methods.p5.world import make_titled_task

USERS = 16
TUNED = {"backbone_steps": 2, "epochs": 1, "valid_users": 4}
QUICK = {
    "tallrec": {**TUNED, "max_prompts": 16},
    "collm": {**TUNED, "max_prompts": 16, "map_epochs": 1},
    "p5": {**TUNED, "prompts": 8},
    "paprec": {**TUNED, "prompts": 8, "budget": 8, "negatives": 3, "sample": 8, "top": 2, "gradients": 1},
    "ganprompt": {**TUNED, "count": 2, "stage1_steps": 2, "max_prompts": 16, "attribute_users": 4},
    "ganprompt/joint": {**TUNED, "count": 2, "max_prompts": 16, "attribute_users": 4},
    "lrgd": {"backbone_steps": 2, "training_steps": 2, "valid_users": 4, "negatives": 4, "shots": 2},
}
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def make_worded_task(tmp_path, **where):
    """A task with templates of all roles."""
    task = make_titled_task(tmp_path, users=USERS, **where)
    further = {"attribute": SEEN, "demonstrate": DEMONSTRATE}
    valid = {**task.valid.templates, **{role: templates[:1] * USERS for role, templates in further.items()}}
    return replace(task, templates={**task.templates, **further}, valid=replace(task.valid, templates=valid))


@pytest.mark.parametrize("row", QUICK)
@pytest.mark.parametrize(
    ("device", "dtype"),  # single precision on a processor: test_kept_fits
    [
        ("cpu", "bfloat16"),
        *(pytest.param("cuda", dtype, marks=GPU) for dtype in ("float32", "bfloat16")),
    ],
)
def test_a_method_learns_and_scores(tmp_path, device, dtype, row):
    task = make_worded_task(tmp_path, device=device, dtype=dtype)
    method = create(row, QUICK[row])
    method.fit(task, seed=0)
    scores = method.score(task.valid)
    assert scores.shape == task.valid.candidates.shape and np.isfinite(scores).all() and scores.std() > 0
