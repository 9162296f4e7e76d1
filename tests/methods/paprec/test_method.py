"""PAP-REC's rows: one frozen P5, and triggers that are searched, random, global or none."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.histories import Histories
from data.prompts.template import parse
from methods import registry
from methods.lm.backbone import load_backbone
from methods.p5.method import P5
from methods.paprec.gradients import trigger_gradients
from methods.paprec.method import PapRec
from methods.paprec.prompts import examples, word_initial
from tests.methods.p5.world import SEQUENTIAL, make_titled_task, save

QUICK = {
    **{"epochs": 0, "budget": 24, "negatives": 5, "sample": 12, "top": 2},
    **{"global_tokens": 2, "user_tokens": 2, "gradients": 1},
}


@pytest.fixture
def task(tmp_path):
    return make_titled_task(tmp_path, users=16, backbone=str(save(tmp_path / "hub")))


def fitted(task, name="paprec", seed=0, **changes):
    """A row with quick settings, without those that make the row what it is."""
    own = {"paprec": (), "paprec/global": ("user_tokens",), "paprec/random": ("budget",)}
    fixed = own.get(name, ("global_tokens", "user_tokens"))
    method = registry.create(name, {key: value for key, value in {**QUICK, **changes}.items() if key not in fixed})
    return method, method.fit(task, seed)


@pytest.mark.parametrize("name", ["paprec", "paprec/global", "paprec/random", "paprec/manual"])
def test_every_row_is_registered_under_its_name(name):
    method = registry.create(name)
    assert method.info.name == name and method.info.roles == {"sequential"}


def test_the_manual_prompt_is_p5(task):
    manual, report = fitted(task, "paprec/manual")
    p5 = P5(epochs=0)
    p5.fit(task, seed=0)
    np.testing.assert_allclose(manual.score(task.valid), p5.score(task.valid), atol=1e-5)
    assert report.trials == 0


@pytest.mark.parametrize("name", ["paprec/random", "paprec"])
def test_without_a_budget_everybody_has_the_random_start(task, name):
    method, report = fitted(task, name, budget=0)
    assert (method.tokens == method.tokens[0]).all() and report.trials == 0
    tokenizer = load_backbone(task, "tiny-t5").tokenizer
    assert set(method.tokens[0].tolist()) <= set(word_initial(tokenizer).tolist())
    other, _ = fitted(task, name, seed=1, budget=0)
    assert (method.tokens[0] != other.tokens[0]).any()


def test_global_triggers_are_the_same_for_all_and_user_triggers_are_not(task):
    method, report = fitted(task)
    assert (method.tokens[:, :2] == method.tokens[0, :2]).all()
    assert 0 < report.trials <= 24
    bare, _ = fitted(task, "paprec/global")
    assert bare.tokens.shape[1] == 2 and (bare.tokens == bare.tokens[0]).all()


def found(task, **changes):
    """Triggers after every step, without what a held-out part makes of them."""
    seen = []
    method = PapRec(**{**QUICK, **changes})
    method.watch = lambda step, tokens: seen.append((step, tokens.copy()))
    method.fit(task, seed=0)
    return method, seen


def test_user_triggers_differ_between_users_after_a_user_round(task):
    _, seen = found(task, budget=60)
    after = [tokens for step, tokens in seen if step.kind == "user"]
    assert any(len(np.unique(tokens[:, 2:], axis=0)) > 1 for tokens in after)


@pytest.mark.parametrize("evidence", ["validation", "training"])
def test_the_frozen_model_never_changes(task, evidence):
    method, report = fitted(task, evidence=evidence)
    weights = torch.cat([p.detach().flatten() for p in method.scorer.model.parameters()])
    plain = torch.cat([p.detach().flatten() for p in load_backbone(task, "tiny-t5").model.parameters()])
    assert torch.equal(weights, plain)
    assert "global triggers: surrogate" in report.note and "held out" in report.note


def test_triggers_stay_when_the_wording_changes(task):
    method, _ = fitted(task)
    worded = replace(SEQUENTIAL[0], parts=parse("Judging by {history}, they go for"))
    other = replace(task.valid, templates={"sequential": (worded,) * 16})
    before = method.tokens.copy()
    assert not np.allclose(method.score(other), method.score(task.valid))
    np.testing.assert_array_equal(method.tokens, before)


def test_users_keep_their_triggers_in_any_order_of_requests(task):
    method, _ = fitted(task)
    method.tokens = np.random.default_rng(0).integers(5, 60, size=method.tokens.shape)
    rows = np.array([5, 2, 11])
    np.testing.assert_allclose(method.score(task.valid.select(rows)), method.score(task.valid)[rows], atol=1e-4)


def test_the_same_seed_gives_the_same_triggers_and_leaves_the_global_random_state_alone(task):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = fitted(task)[0], fitted(task)[0]
    np.testing.assert_array_equal(first.tokens, second.tokens)
    assert torch.equal(torch.rand(1), expected)


def test_what_was_found_is_written_down(task):
    method, report = fitted(task)
    files = method.artifacts
    decode = method.scorer.encoder.tokenizer.decode
    shared = " ".join(decode([token]).strip() for token in method.tokens[0, :2].tolist())
    assert files["triggers.md"].startswith(f"Global triggers: {shared}\n") and "held out" in files["triggers.md"]
    rows = list(csv.DictReader(io.StringIO(files["user-triggers.csv"])))
    assert [row["user"] for row in rows] == list(task.catalogue.user_ids)
    assert rows[3]["triggers"].split() == [decode([token]).strip() for token in method.tokens[3, 2:].tolist()]
    steps = list(csv.DictReader(io.StringIO(files["search.csv"])))
    assert int(steps[-1]["evaluations"]) == report.trials and {step["kind"] for step in steps} == {"global", "user"}


def test_a_planted_token_is_found(tmp_path):
    """All users want the same title. A word is given the embedding that raises its likelihood most."""
    task = make_titled_task(tmp_path, users=16, backbone=str(save(tmp_path / "hub", "Planted")))
    target = int(task.catalogue.titles.index("Silent Love"))
    candidates = task.valid.candidates.copy()
    candidates[candidates == target] = (target + 1) % len(task.catalogue.titles)
    candidates[np.arange(16), task.valid_positive] = target
    valid = replace(task.valid, candidates=candidates)
    train = Histories.of(np.append(row[row != target], target) for row in task.train)
    task = replace(task, valid=valid, train=train)
    settings = {**QUICK, "global_tokens": 1, "user_tokens": 0, "lists": 0, "top": 5, "budget": 5, "sample": 16}
    start = PapRec(**{**settings, "budget": 0})
    start.fit(task, seed=0)
    model, tokenizer = start.scorer.model, start.scorer.encoder.tokenizer
    shown = examples(start.scorer, task, 1, skip=0, count=1)
    gradient = trigger_gradients(model, shown, start.tokens).mean(0)[0]
    planted = tokenizer.convert_tokens_to_ids("Planted")
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        present = weight[start.tokens[0, 0]]
        weight[planted] = present - gradient / gradient.norm() * present.norm()
    model.save_pretrained(tmp_path / "hub")
    search = PapRec(**settings)
    search.fit(task, seed=0)
    assert search.tokens[0, 0] == planted


def test_unknown_evidence_is_refused():
    with pytest.raises(registry.MethodError, match="evidence is 'validation' or 'training'"):
        registry.create("paprec", {"evidence": "test"})
