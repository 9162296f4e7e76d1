"""CoLLM is TALLRec that is also shown vectors, and its second step learns to show them and nothing else."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.histories import Histories
from methods import registry
from methods.base import FitReport, NotRunnable
from methods.collm import method as collm
from methods.collm.vectors import collaborative_vectors
from methods.lm import tuning
from methods.lm.scoring import Scorer
from tests.methods.lm.small import FAMILIES, make_model, make_task, make_tokenizer
from tests.methods.test_tallrec import QUICK, auc

USERS, ITEMS = 40, 32
BPR = FitReport(interactions=1000, loss="BPR", negatives="1")


@pytest.fixture(autouse=True)
def taste(monkeypatch):
    """In place of a collaborative model, which is tested beside this file: vectors that say which films one likes."""
    vectors = torch.cat([torch.arange(USERS) % 2, torch.arange(ITEMS) // 16])[:, None] * 2.0 - 1
    vectors = torch.cat([vectors, torch.randn(USERS + ITEMS, 3, generator=torch.Generator().manual_seed(0))], dim=1)
    monkeypatch.setattr(collm, "collaborative_vectors", lambda *_: (vectors.clone(), BPR))
    return vectors


def task_without_words(cache):
    """Who chooses more than one film chooses those of one kind, and titles do not say which are of it."""
    task = make_task(cache, users=USERS)
    catalogue = replace(task.catalogue, titles=("Red Space",) * ITEMS)
    odd = np.arange(1, USERS, 2)
    train = Histories.of(row if user % 2 else row[:1] for user, row in enumerate(task.train))
    valid = replace(task.valid, catalogue=catalogue).select(odd)
    return replace(task, catalogue=catalogue, train=train, valid=valid, valid_positive=task.valid_positive[odd])


def test_a_step_without_passes_does_not_count_as_one_that_reached_its_limit(tmp_path, monkeypatch, taste):
    converged = replace(BPR, converged=True)
    monkeypatch.setattr(collm, "collaborative_vectors", lambda *_: (taste.clone(), converged))
    method = registry.create("collm", {**QUICK, "epochs": 0, "map_epochs": 0})
    assert method.fit(make_task(tmp_path, users=USERS), seed=0).converged is True


def test_it_is_registered_with_its_role():
    method = registry.create("collm")
    assert method.info.name == "collm" and method.info.roles == {"recommend"}


def test_what_only_the_vectors_know_is_learnt_and_all_but_the_mlp_keeps_every_bit(tmp_path, taste):
    task = task_without_words(tmp_path)
    first = {**QUICK, "valid_users": 20, "patience": 9}
    tallrec = registry.create("tallrec", first)
    method = registry.create("collm", {**first, "map_rate": 3e-2, "hidden": 16})
    tallrec.fit(task, seed=0)
    report = method.fit(task, seed=0)
    assert auc(tallrec.score(task.valid), task.valid_positive) == 0.5
    assert auc(method.score(task.valid), task.valid_positive) > 0.9
    assert "; with vectors of bpr: validation AUC " in report.note and report.interactions > 1000
    assert (report.loss, report.negatives) == ("BPR, then cross-entropy of the answers", "1, then 1")
    alone, model = tallrec.scorer.model.state_dict(), method.scorer.model
    state = {name.replace("embed_tokens.words", "embed_tokens"): value for name, value in model.state_dict().items()}
    assert all(torch.equal(value, state[name]) for name, value in alone.items())
    assert torch.equal(model.get_input_embeddings().vectors, taste)


def test_step_2_learns_and_stops_on_prompts_with_marks(tmp_path, monkeypatch):
    found, shown = [], []

    def spy(model, epochs, measure, schedule, **_):
        found.append(([q for batches in epochs for batch in batches for q in batch], measure, schedule))
        return tuning.Tuned(1, True, 0.5, 1, 2, 3)

    monkeypatch.setattr(tuning, "tune", spy)
    task = make_task(tmp_path, users=USERS)
    method = registry.create("collm", {**QUICK, "rate": 1e-2, "map_rate": 2e-2, "map_epochs": 3})
    method.fit(task, seed=0)
    (_, _, first), (questions, measure, second) = found
    assert (first.rate, second.rate, second.steps) == (1e-2, 2e-2, 6)
    marks = method.scorer.model.get_input_embeddings().first
    for question in questions:
        for suffix in question.group.suffixes:
            ids = np.append(question.group.prefix, suffix)
            (user, *items), text = ids[ids >= marks] - marks, method.scorer.encoder.tokenizer.decode(ids[ids < marks])
            assert user < USERS and items and all(task.catalogue.titles[item - USERS] in text for item in items)
    monkeypatch.setattr(Scorer, "label_odds", lambda _, requests, role: shown.append(requests) or np.eye(4))
    measure()
    assert len(shown[0].catalogue.titles) == 2 * ITEMS and shown[0].candidates.min() >= ITEMS


def test_with_vectors_of_a_real_model_it_fits_and_scores(tmp_path, monkeypatch):
    pytest.importorskip("recbole")
    monkeypatch.setattr(collm, "collaborative_vectors", collaborative_vectors)
    task = make_task(tmp_path, users=USERS)
    method = registry.create("collm", {**QUICK, "map_epochs": 1, "map_rate": 1e-2})
    report = method.fit(task, seed=0)
    vectors, bpr = collaborative_vectors("bpr", task, 0)
    assert torch.equal(method.scorer.model.get_input_embeddings().vectors, vectors)
    assert report.interactions > bpr.interactions and report.loss.startswith(f"{bpr.loss}, then ")
    assert report.epochs > bpr.epochs
    assert np.isfinite(method.score(task.valid)).all()


def test_a_history_shorter_than_the_shortest_wanted_is_enough(tmp_path):
    method = registry.create("collm", {**QUICK, "map_epochs": 1})
    method.fit(replace(make_task(tmp_path, users=USERS), history_length=2), seed=0)


def test_the_users_vector_reaches_the_score(tmp_path):
    task = make_task(tmp_path, users=USERS)
    method = registry.create("collm", {**QUICK, "map_epochs": 0})
    method.fit(task, seed=0)
    torch.nn.init.ones_(method.scorer.model.get_input_embeddings().mlp[2].weight)
    assert (method.score(task.valid) != method.score(replace(task.valid, users=task.valid.users[::-1]))).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_any_decoder_of_the_hub_serves(tmp_path, family):
    folder = tmp_path / family
    make_model(family, len(make_tokenizer())).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    method = registry.create("collm", {**QUICK, "map_epochs": 1})
    task = make_task(tmp_path, users=USERS, backbone=str(folder))
    method.fit(task, seed=0)
    assert np.isfinite(method.score(task.valid)).all()


def test_the_same_seed_gives_the_same_scores_and_leaves_the_global_random_state_alone(tmp_path, monkeypatch):
    better = itertools.count()  # else what was there before tuning is kept, whatever the seed
    monkeypatch.setattr(tuning, "list_auc", lambda _: float(next(better)))
    task = make_task(tmp_path, users=USERS)
    state = torch.get_rng_state()
    scores = []
    for seed in (0, 0, 1):
        method = registry.create("collm", {**QUICK, "map_epochs": 1, "map_rate": 1e-2})
        method.fit(task, seed)
        scores.append(method.score(task.valid))
    np.testing.assert_array_equal(*scores[:2])
    assert (scores[0] != scores[2]).any()
    assert torch.equal(torch.get_rng_state(), state)


def test_what_it_needs_is_said(tmp_path):
    for settings, sentence in (
        ({"hidden": 0}, "hidden is at least 1, not 0"),
        ({"map_epochs": -1}, "map_epochs is at least 0, not -1"),
        ({"map_rate": 0.0}, "map_rate is more than 0"),
        ({"negatives": -1}, "negatives is at least 1, not -1"),
    ):
        with pytest.raises(registry.MethodError, match=sentence):
            registry.create("collm", settings)
    with pytest.raises(registry.MethodError, match="no collaborative model 'mf': bpr or lightgcn"):
        registry.create("collm", {"collaborative": "mf"})
    with pytest.raises(NotRunnable, match="seen templates of role 'recommend'"):
        registry.create("collm").fit(replace(make_task(tmp_path, users=USERS), templates={}), seed=0)


def test_without_a_collaborative_model_nothing_is_tuned(tmp_path, monkeypatch):
    def missing(*_):
        raise NotRunnable("needs RecBole")

    monkeypatch.setattr(collm, "collaborative_vectors", missing)
    monkeypatch.setattr(collm.TallRec, "fit", lambda *_: pytest.fail("step 1 was tuned in vain"))
    with pytest.raises(NotRunnable, match="needs RecBole"):
        registry.create("collm").fit(make_task(tmp_path, users=USERS), seed=0)
