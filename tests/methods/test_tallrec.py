"""TALLRec learns an obvious pattern, repeats itself, and says what it needs."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from methods import registry
from methods.base import Compute, NotRunnable
from methods.lm import lora, questions, tuning
from tests.methods.lm.small import FAMILIES, TEMPLATES, make_model, make_task, make_tokenizer

QUICK = {"epochs": 1, "max_prompts": 16, "batch": 8, "backbone_steps": 2, "valid_users": 4}


def auc(scores, positive):
    own = np.take_along_axis(scores, positive[:, None], axis=1)
    others = (scores < own).sum(1) + 0.5 * ((scores == own).sum(1) - 1)
    return float(others.mean() / (scores.shape[1] - 1))


def test_it_is_registered_with_its_role():
    method = registry.create("tallrec")
    assert method.info.name == "tallrec" and method.info.roles == {"recommend"}


def test_an_obvious_pattern_is_learnt(tmp_path):
    task = make_task(tmp_path, users=120)
    method = registry.create("tallrec", {"backbone_steps": 60, "epochs": 3, "max_prompts": 480, "valid_users": 30})
    report = method.fit(task, seed=0)
    fresh = make_task(tmp_path, users=60, seed=9)
    assert auc(method.score(fresh.valid), fresh.valid_positive) > 0.8
    assert 1 <= report.epochs <= 3 and report.tokens > report.interactions > 0
    assert "tiny-llama" in report.note and "validation AUC" in report.note


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Fits with some settings, and says what tuning is given: batches of every pass, and the schedule."""

    def fit(**settings):
        found = []

        def spy(model, epochs, measure, schedule, **_):
            found.append(([list(batches) for batches in epochs], schedule))
            return tuning.Tuned(1, True, 0.5, 1, 2, 3)

        monkeypatch.setattr(tuning, "tune", spy)
        registry.create("tallrec", {**QUICK, **settings}).fit(make_task(tmp_path), seed=0)
        return found[0]

    return fit


def test_every_pass_asks_anew_along_one_schedule(given):
    epochs, schedule = given(epochs=3, max_prompts=48)
    asked = [[q.group.prefix.tolist() for batch in batches for q in batch] for batches in epochs]
    assert asked[0] != asked[1] != asked[2]
    assert schedule.steps == sum(map(len, epochs)) == 18


def test_questions_are_in_all_seen_wordings_behind_histories_as_long_as_is_set(given, monkeypatch):
    asked, ask = [], questions.ask

    def spy(encoder, catalogue, template, shown):
        asked.append((template.id, len(shown.history)))
        return ask(encoder, catalogue, template, shown)

    monkeypatch.setattr(questions, "ask", spy)
    given(max_prompts=160, shortest=2)
    names, lengths = zip(*asked, strict=True)
    assert set(names) == {template.id for template in TEMPLATES}
    assert max(lengths) == 5 and np.mean(np.array(lengths) == 1) < 0.3  # where only one came before


def test_negatives_patience_and_validation_lists_are_those_of_the_settings(given, monkeypatch):
    shown, sample = [], tuning.valid_sample
    monkeypatch.setattr(tuning, "valid_sample", lambda *how: shown.append(how[1:3]) or sample(*how))
    epochs, schedule = given(negatives=3, patience=7, valid_users=4, valid_negatives=2)
    assert {len(q.answers) for batches in epochs for batch in batches for q in batch} == {4}
    assert schedule.patience == 7 and shown == [(4, 2)]


def test_adapters_are_those_of_the_settings(given, monkeypatch):
    made, add = [], lora.add_lora
    monkeypatch.setattr(lora, "add_lora", lambda model, how, seed: made.append(how) or add(model, how, seed))
    given(rank=3, alpha=5, dropout=0.3)
    assert made == [lora.Lora(3, 5, 0.3)]


@pytest.mark.parametrize(("rate", "used"), [(None, 3e-3), (7e-3, 7e-3)])
def test_an_embedded_backbone_has_a_larger_rate_where_none_is_set(given, rate, used):
    assert given(rate=rate)[1].rate == used


@pytest.mark.parametrize("family", FAMILIES)
def test_any_decoder_of_the_hub_serves(tmp_path, family):
    folder = tmp_path / family
    make_model(family, len(make_tokenizer())).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    method = registry.create("tallrec", QUICK)
    task = make_task(tmp_path, backbone=str(folder))
    method.fit(task, seed=0)
    assert np.isfinite(method.score(task.valid)).all()


def test_prompts_cut_to_the_window_are_counted(tmp_path):
    task = make_task(tmp_path)
    method = registry.create("tallrec", QUICK)
    method.fit(task, seed=0)
    assert method.scorer.encoder.shortened == 0
    method.scorer.encoder.window = 24
    method.score(task.valid)
    assert 0 < method.scorer.encoder.shortened <= task.valid.candidates.size


def test_the_same_seed_gives_the_same_scores_and_another_one_others(tmp_path, monkeypatch):
    better = itertools.count()  # else what was there before tuning is kept, whatever the seed
    monkeypatch.setattr(tuning, "list_auc", lambda _: float(next(better)))
    task = make_task(tmp_path)

    def scores(seed):
        method = registry.create("tallrec", {**QUICK, "rate": 1e-2, "max_prompts": 320, "valid_users": 30})
        method.fit(task, seed)
        return method.score(task.valid)

    first = scores(0)
    np.testing.assert_array_equal(first, scores(0))
    assert (first != scores(1)).any()


@pytest.mark.parametrize(("length", "shortest"), [(2, 3), (5, 6)])
def test_a_history_shorter_than_the_shortest_wanted_is_enough(tmp_path, length, shortest):
    method = registry.create("tallrec", {**QUICK, "shortest": shortest})
    method.fit(replace(make_task(tmp_path), history_length=length), seed=0)


def test_fitting_leaves_the_global_random_state_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    registry.create("tallrec", QUICK).fit(make_task(tmp_path), seed=0)
    assert torch.equal(torch.rand(1), expected)


def test_a_method_without_templates_cannot_run(tmp_path):
    with pytest.raises(NotRunnable, match="seen templates of role 'recommend'"):
        registry.create("tallrec").fit(replace(make_task(tmp_path), templates={}), seed=0)


@pytest.mark.parametrize("name", ["tallrec", "collm"])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        *(({"dropout": share}, "dropout is at least 0 and below 1") for share in (-0.1, 1.0, float("nan"))),
        ({"alpha": 0}, "alpha is more than 0, not 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(name, settings, said):
    with pytest.raises(registry.MethodError, match=said):
        registry.create(name, settings)


def test_settings_are_checked_by_the_registry():
    with pytest.raises(registry.MethodError, match="did you mean 'epochs'"):
        registry.create("tallrec", {"epoch": 3})


def test_compute_names_the_batch_size(tmp_path):
    task = replace(make_task(tmp_path), compute=Compute(cache=tmp_path, batch_size=3))
    method = registry.create("tallrec", {**QUICK, "rate": 1e-2})
    method.fit(task, seed=0)
    small = method.score(task.valid)
    method = registry.create("tallrec", {**QUICK, "rate": 1e-2})
    method.fit(replace(task, compute=Compute(cache=tmp_path)), seed=0)
    np.testing.assert_allclose(method.score(task.valid), small, atol=1e-4)
