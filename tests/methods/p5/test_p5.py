"""P5 learns from several families of prompts, once, and ranks by the likelihood of titles."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from methods import registry
from methods.base import NotRunnable
from methods.lm.backbone import load_backbone
from methods.lm.encdec import SENTINEL
from methods.lm.questions import Window
from methods.p5 import training
from methods.p5.method import P5
from methods.p5.training import FAMILIES, scorer
from methods.paprec.method import PapRec
from tests.methods.p5.world import CHOOSE, SEQUENTIAL, make_t5, make_titled_task, make_tokenizer, save
from tests.methods.test_tallrec import auc

QUICK = {"epochs": 1, "prompts": 8, "batch": 4, "valid_users": 4, "offered": 3}
SHOWN = Window(np.array([0, 1]), np.array([2, 3, 20, 21]), np.array([True, True, False, False]))


@pytest.fixture
def task(tmp_path):
    return make_titled_task(tmp_path, backbone=str(save(tmp_path / "hub")))


def texts(task, role, template):
    """Prompts and answers of a window in words."""
    reader = scorer(load_backbone(task, "tiny-t5"), None).reader
    asked = FAMILIES[role](reader, task.catalogue, template, SHOWN)
    decode = reader.encoder.tokenizer.decode
    return [
        (decode(one.group.prefix[1:]), decode(suffix[-count:]))
        for one in asked
        for suffix, count in zip(one.group.suffixes, one.answers, strict=True)
    ]


def test_it_is_registered_with_the_role_it_is_scored_with():
    method = registry.create("p5")
    assert method.info.name == "p5" and method.info.roles == {"sequential"}


def test_asked_for_the_next_title_every_coming_title_is_an_answer(task):
    prompt = "After Red Space, Blue Space comes"
    assert texts(task, "sequential", SEQUENTIAL[0]) == [(prompt, "Green Space"), (prompt, "Black Space")]


def test_asked_yes_or_no_the_title_is_in_the_prompt(task):
    asked = texts(task, "recommend", task.templates["recommend"][1])
    prompt = "Is {} the next choice after Red Space, Blue Space?"
    assert asked == [(prompt.format("Green Space"), "Yes"), (prompt.format("Gold Love"), "No")]


def test_asked_to_choose_the_titles_are_offered_and_the_next_is_the_answer(task):
    ((prompt, answer),) = texts(task, "choose", CHOOSE[0])
    offered = [task.catalogue.titles[item] for item in (2, 20, 21)]
    assert prompt == f"After Red Space, Blue Space, which of {', '.join(offered)}?"
    assert answer == "Green Space"


@pytest.mark.parametrize(
    ("questions", "choices", "roles"),
    [(0.0, 0.0, {"sequential"}), (1.0, 0.0, {"recommend"}), (0.0, 1.0, {"choose"}), (0.4, 0.3, set(FAMILIES))],
)
def test_shares_say_which_families_are_learnt(task, monkeypatch, questions, choices, roles):
    seen = set()

    def watched(role, ask):
        def wrapped(*arguments):
            seen.add(role)
            return ask(*arguments)

        return wrapped

    monkeypatch.setattr(training, "FAMILIES", {role: watched(role, ask) for role, ask in FAMILIES.items()})
    P5(**{**QUICK, "prompts": 40}, questions=questions, choices=choices).fit(task, seed=0)
    assert seen == roles


def test_an_obvious_pattern_is_learnt(tmp_path):
    task = make_titled_task(tmp_path, users=120, backbone=str(save(tmp_path / "hub")))
    method = P5(epochs=4, prompts=320, batch=16, valid_users=30, rate=3e-3, offered=3)
    report = method.fit(task, seed=0)
    fresh = make_titled_task(tmp_path, users=60, seed=9)
    assert auc(method.score(fresh.valid), fresh.valid_positive) > 0.8
    assert 1 <= report.epochs <= 4 and report.tokens > report.interactions > 0
    assert "trained as P5" in report.note and "validation AUC" in report.note


def test_the_embedded_backbone_is_the_default(tmp_path):
    method = P5(**QUICK, backbone_steps=2)
    report = method.fit(make_titled_task(tmp_path), seed=0)
    assert "tiny-t5" in report.note


def test_it_is_trained_once_for_rows_that_share_its_settings(task, monkeypatch):
    first = P5(**QUICK)
    report = first.fit(task, seed=0)
    monkeypatch.setattr(training, "tune", lambda *_, **__: pytest.fail("trained again"))
    again = PapRec(**QUICK, budget=0, global_tokens=0, user_tokens=0)
    repeated = again.fit(task, seed=0)
    np.testing.assert_allclose(again.score(task.valid), first.score(task.valid), atol=1e-5)
    assert repeated.tokens == report.tokens > 0


@pytest.mark.parametrize("change", ["seed", "rate", "template", "history", "valid"])
def test_what_it_depends_on_is_part_of_its_key(task, change):
    backbone = load_backbone(task, "tiny-t5")

    def key(task, settings=None, seed=0):
        return training._key(backbone, task, settings or P5(), seed)

    changed = {
        "seed": lambda: key(task, seed=1),
        "rate": lambda: key(task, P5(rate=5e-3)),
        "template": lambda: key(replace(task, templates={**task.templates, "sequential": SEQUENTIAL[:1]})),
        "history": lambda: key(replace(task, train=task.train.last(3))),
        "valid": lambda: key(replace(task, valid_positive=task.valid_positive[::-1])),
    }
    assert changed[change]() != key(task) == key(task, PapRec(budget=3))


def test_without_epochs_the_backbone_is_used_as_it_is(task):
    method = P5(epochs=0)
    report = method.fit(task, seed=0)
    plain = scorer(load_backbone(task, "tiny-t5"), None).title_likelihood(task.valid, "sequential", normalised=False)
    np.testing.assert_array_equal(method.score(task.valid), plain)
    assert report.epochs == report.tokens == 0 and "trained as P5" not in report.note


def test_the_decoder_writes_the_answer_without_a_sentinel(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([SENTINEL])
    make_t5(len(tokenizer)).save_pretrained(tmp_path / "hub")
    tokenizer.save_pretrained(tmp_path / "hub")
    task = make_titled_task(tmp_path, backbone=str(tmp_path / "hub"))
    reader = scorer(load_backbone(task, "tiny-t5"), None).reader
    assert reader.title("Red Space").tolist() == [0, *reader.tokens("Red Space")]


@pytest.mark.parametrize("role", ["sequential", "recommend", "choose"])
def test_every_family_needs_templates(task, role):
    some = {other: group for other, group in task.templates.items() if other != role}
    with pytest.raises(NotRunnable, match=f"p5 needs seen templates of role '{role}'"):
        P5(**QUICK).fit(replace(task, templates=some), seed=0)


def test_fitting_leaves_the_global_random_state_alone(task):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    P5(**QUICK).fit(task, seed=0)
    assert torch.equal(torch.rand(1), expected)


def test_the_same_seed_gives_the_same_scores(tmp_path):
    def scores(name, seed):
        task = make_titled_task(tmp_path / name, backbone=str(save(tmp_path / "hub")))
        method = P5(**{**QUICK, "prompts": 160, "batch": 16, "valid_users": 30}, rate=3e-3)
        method.fit(task, seed)
        return method.score(task.valid)

    np.testing.assert_array_equal(scores("a", 0), scores("b", 0))
    assert not np.array_equal(scores("a", 0), scores("a", 1))


@pytest.mark.parametrize("settings", [{"questions": 0.8, "choices": 0.4}, {"questions": -0.1}, {"offered": 0}])
def test_unfit_settings_are_refused(settings):
    with pytest.raises(registry.MethodError, match="'p5'"):
        registry.create("p5", settings)
