"""Separability: higher where classes lie apart, judged on users the probe has not seen, and drawn."""

import csv
import io

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples

from methods.ganprompt import separation as module
from methods.ganprompt.separation import Separation, artifacts
from tests.methods.ganprompt import test_stage1 as stage1
from tests.methods.ganprompt.world import answers, make

NAMES = ("plain", "plot", "cast")


def separation(apart: float, users: int = 30) -> Separation:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(3, 6)) * apart
    return Separation(rng.normal(size=(users, 1, 6)) + means + 0.1 * rng.normal(size=(users, 3, 6)), NAMES)


def test_the_same_users_and_wordings_are_shown_before_and_after(tmp_path):
    task = make(tmp_path)
    game = stage1.game(answers(task))
    before, again = (module.separation(game, task.valid, 6) for _ in range(2))
    assert before.embeddings.shape == (6, 4, 32) and before.names == ("plain", *stage1.NAMES)
    np.testing.assert_array_equal(before.embeddings, again.embeddings)
    assert game.tokens == 0  # pictures are no training
    played, _ = stage1.run(task, 3)
    assert np.abs(module.separation(played, task.valid, 6).embeddings - before.embeddings).max() > 1e-3


def test_both_numbers_grow_with_the_distance_of_the_classes() -> None:
    near, far = separation(0.02), separation(5.0)
    assert far.silhouette > 0.6 > near.silhouette + 0.5
    assert far.probe == 1.0 and near.probe < 0.8


def test_the_silhouette_is_the_mean_over_all_embeddings() -> None:
    found = separation(1.0)
    expected = silhouette_samples(found.embeddings.reshape(-1, 6), np.tile([0, 1, 2], 30)).mean()
    assert found.silhouette == pytest.approx(expected)


def test_the_probe_is_judged_on_users_it_has_not_seen() -> None:
    """Random embeddings of a large size are learnt by heart; that must not help."""
    embeddings = np.random.default_rng(0).normal(size=(40, 3, 200))
    assert Separation(embeddings, NAMES).probe < 0.6


def test_the_plane_is_the_same_every_time_and_centred() -> None:
    first, again = separation(1.0).plane, separation(1.0).plane
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first.mean(axis=(0, 1)), 0, atol=1e-12)


def test_pictures_and_the_numbers_they_show_are_kept() -> None:
    files = artifacts(before=separation(0.1), after=separation(2.0))
    assert set(files) == {
        "embeddings.csv",
        "embeddings-before.png",
        "embeddings-after.png",
    }
    pictures = [files[f"embeddings-{stage}.png"] for stage in ("before", "after")]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures) and pictures[0] != pictures[1]
    rows = list(csv.DictReader(io.StringIO(files["embeddings.csv"])))
    assert len(rows) == 2 * 30 * 3
    assert float(rows[-1]["silhouette"]) == pytest.approx(separation(2.0).silhouette, abs=1e-5)
    assert [float(rows[90]["x"]), float(rows[90]["y"])] == pytest.approx(separation(2.0).plane[0, 0].tolist(), rel=1e-4)
