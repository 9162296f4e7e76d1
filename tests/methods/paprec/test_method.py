"""PAP-REC's rows: one frozen P5, and triggers that are searched, random, global or none."""

import csv
import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from data.histories import Histories
from data.prompts.template import parse
from methods import registry
from methods.lm.backbone import load_backbone
from methods.lm.tuning import valid_sample
from methods.p5.method import P5
from methods.paprec.gradients import trigger_gradients
from methods.paprec.method import PapRec
from methods.paprec.prompts import candidate_lists, earlier_lists, examples, word_initial
from methods.paprec.record import files
from methods.paprec.surrogate import surrogate
from tests.methods.p5.world import SEQUENTIAL, make_titled_task, save, save_pieces

QUICK = {
    **{"epochs": 0, "budget": 24, "negatives": 5, "sample": 12, "top": 2},
    **{"global_tokens": 2, "user_tokens": 2, "gradients": 1},
}


@pytest.fixture
def task(tmp_path):
    return make_titled_task(tmp_path, users=16, backbone=str(save(tmp_path / "hub")))


def fitted(task, name="paprec", seed=0, **changes):
    """A row with quick settings, without those that make the row what it is."""
    taken = registry.settings_of(name)
    method = registry.create(name, {key: value for key, value in {**QUICK, **changes}.items() if key in taken})
    return method, method.fit(task, seed)


ROWS = {
    "paprec": (),
    "paprec/shared": ("personal",),
    "paprec/global": ("user_tokens",),
    "paprec/random": ("budget",),
    "paprec/manual": ("global_tokens", "user_tokens"),
}


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_registered_under_its_name(name):
    method = registry.create(name)
    assert method.info.name == name and method.info.roles == {"sequential"}


@pytest.mark.parametrize(("name", "setting"), [(name, setting) for name in ROWS for setting in ROWS[name]])
def test_a_row_does_not_take_the_settings_that_make_it(name, setting):
    with pytest.raises(registry.MethodError, match=f"{name!r}: {setting} makes the row what it is"):
        registry.create(name, {setting: 1})


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


def test_the_row_without_personalisation_agrees_until_the_first_user_round(task):
    seen = {name: [] for name in ("paprec", "paprec/shared")}
    for name, steps in seen.items():
        method = registry.create(name, {k: v for k, v in QUICK.items() if k in registry.settings_of(name)})
        method.watch = lambda step, tokens, steps=steps: steps.append((step.kind, step.round, tokens))
        method.fit(task, seed=0)
    shared = [tokens for kind, number, tokens in seen["paprec/shared"] if number == 1]
    assert len(shared) == 2 and {kind for kind, *_ in seen["paprec/shared"]} == {"global"}
    for tokens, (kind, _, other) in zip(shared, seen["paprec"], strict=False):
        assert kind == "global"
        np.testing.assert_array_equal(tokens, other)
    assert seen["paprec"][2][0] == "user" and (method.tokens == method.tokens[0]).all()


def kinds(task, **changes):
    """A method at its start, and the kinds of rounds it would go on with."""
    method = PapRec(**{**QUICK, "budget": 0, **changes})
    method.fit(task, seed=0)
    return method, *method._kinds(task, seed=0)


def drawn(seed=1):
    return np.random.default_rng(seed).integers(5, 60, size=(16, 4))


ALL = np.ones(16, np.bool_)


def test_global_triggers_are_accepted_and_stopped_on_users_apart(task):
    _, shared, _ = kinds(task, sample=10)
    searched, held = (np.isfinite(measure(drawn(), ALL)) for measure in (shared.search, shared.held))
    assert searched.sum() == held.sum() == 5 and not (searched & held).any()


def test_what_stops_global_triggers_does_not_see_the_triggers_of_users(task):
    _, shared, _ = kinds(task)
    drawn_anew = [np.hstack([drawn()[:, :2], drawn(seed)[:, 2:]]) for seed in range(8)]
    searched, held = (
        {measure(tokens, ALL).tobytes() for tokens in drawn_anew} for measure in (shared.search, shared.held)
    )
    assert len(searched) > 1 == len(held)


@pytest.mark.parametrize("evidence", ["validation", "training"])
def test_user_triggers_are_accepted_on_the_evidence_and_stopped_on_the_rest(task, evidence):
    method, shared, own = kinds(task, evidence=evidence)
    by_validation, by_training = (own.search, own.held) if evidence == "validation" else (own.held, own.search)
    valid, earlier = valid_sample(task, 16, 5, 0), earlier_lists(task, 1, 5, 0)
    method.tokens = drawn()
    searched = np.isfinite(shared.search(method.tokens, ALL))
    expected = surrogate(method.score(valid))
    if evidence == "training":  # the held-out part has seen nothing of global rounds either
        expected[searched] = np.nan
    np.testing.assert_allclose(by_validation(method.tokens, ALL), expected)
    np.testing.assert_allclose(by_training(method.tokens, ALL), surrogate(method.score(earlier)))


def test_likelihoods_are_divided_by_the_length_of_titles_where_that_is_set(task):
    titles = tuple(f"{title}{' Space' * (item % 3)}" for item, title in enumerate(task.catalogue.titles))
    catalogue = replace(task.catalogue, titles=titles)
    task = replace(task, catalogue=catalogue, valid=replace(task.valid, catalogue=catalogue))
    scores = []
    for normalised in (False, True):
        method, _, own = kinds(task, normalised=normalised)
        method.tokens = drawn()
        scores.append(method.score(task.valid))
        accepted = surrogate(method.score(valid_sample(task, 16, 5, 0)))
        np.testing.assert_allclose(own.search(drawn(), ALL), accepted)
    lengths = np.array([len(method.scorer.reader.tokens(title)) for title in titles])[task.valid.candidates]
    np.testing.assert_allclose(scores[1], scores[0] / lengths, rtol=1e-5)


def test_no_step_lowers_the_surrogate_it_accepts_on(task):
    more = {"global_tokens": 4, "user_tokens": 4, "top": 4, "budget": 60}
    _, shared, own = kinds(task, **{**more, "budget": 0})
    changed = {"global": 0, "user": 0}
    for (last, before), (step, after) in pairwise(found(task, **more)[1]):
        if (last.kind, last.round) == (step.kind, step.round):  # between rounds, one may be undone
            measure = shared.search if step.kind == "global" else own.search
            change = measure(after, ALL) - measure(before, ALL)
            assert np.nanmean(change) >= 0 and (step.kind == "global" or (change >= 0).all())
            changed[step.kind] += step.changed
    assert all(changed.values())


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
    assert {step["undone"] for step in steps} <= {"True", "False"}


def test_the_account_counts_user_triggers_that_are_not_those_of_the_start(task):
    method, _ = fitted(task, budget=0)
    start, search = method.tokens[0].copy(), method._search(task, np.arange(5, 60), 0)
    tokenizer = method.scorer.encoder.tokenizer
    word = int(tokenizer.convert_tokens_to_ids("Space"))
    search.tokens = method.tokens.copy()
    search.tokens[:3, 2] = word
    text = files(search, start, 2, task.catalogue.user_ids, tokenizer)["triggers.md"]
    assert text.endswith("|---|---|\n| Space | 3 |\n")
    assert "User triggers that are still those of the start: 29 of 32." in text


@pytest.mark.parametrize("budget", [1, 10_000])
def test_the_note_says_why_the_search_ended(task, budget):
    why = "ended with its budget" if budget == 1 else "ended by itself"
    assert fitted(task, budget=budget)[1].note.endswith(f"search {why}")


def test_it_runs_on_a_t5_with_pieces(tmp_path):
    task = make_titled_task(tmp_path, users=16, backbone=str(save_pieces(tmp_path / "hub")))
    method, report = fitted(task, epochs=1, prompts=8, batch=4, valid_users=4, offered=3)
    words = method.scorer.encoder.tokenizer.convert_ids_to_tokens(np.unique(method.tokens).tolist())
    assert all(word.startswith("\u2581") for word in words) and report.tokens and report.trials
    assert np.isfinite(method.score(task.valid)).all()
    lists = candidate_lists(method.scorer, task.valid, 4)
    assert all(group.prefix[-1] == method.scorer.encoder.tokenizer.eos_token_id for group in lists.groups)


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
    settings = {**QUICK, "global_tokens": 1, "user_tokens": 0, "top": 5, "budget": 5, "sample": 16}
    start = PapRec(**{**settings, "budget": 0})
    start.fit(task, seed=0)
    model, tokenizer = start.scorer.model, start.scorer.encoder.tokenizer
    shown = examples(start.scorer, task, 1, skip=1, count=1)
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


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("top", n) for n in (0, -1)),
        *[("global_tokens", -1), ("user_tokens", -1), ("sample", 1), ("lists", 0), ("negatives", 0), ("gradients", 0)],
        *[("gradient_sample", 0), ("budget", -5), ("batch", 0)],
    ],
)
def test_settings_below_the_least_that_makes_sense_are_refused(setting, value):
    with pytest.raises(registry.MethodError, match=f"{setting} is at least"):
        registry.create("paprec", {setting: value})
