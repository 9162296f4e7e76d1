"""Settings of GANPrompt: what they follow, what is refused, and what is said."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from methods import registry
from methods.base import NotRunnable, Task
from methods.ganprompt import stage1, stage2
from methods.ganprompt.training import Lessons
from methods.lm.backbone import load_backbone
from methods.lm.lora import Lora
from methods.lm.questions import Sampling
from tests.methods.ganprompt.world import NAMES, QUICK, Stopped, fitted, make


@pytest.mark.parametrize(
    ("embedded", "expected"),
    [
        ((False, False), [(5e-5, 42), (1e-5, 25)]),
        ((False, True), [(5e-5, 42), (3e-3, 12)]),
        ((True, False), [(1e-3, 16), (1e-5, 25)]),
        ((True, True), [(1e-3, 16), (3e-3, 12)]),
    ],
)
def test_rates_and_batches_follow_the_model_that_learns(
    task: Task, llama: str, monkeypatch: pytest.MonkeyPatch, embedded: tuple[bool, bool], expected: list[object]
) -> None:
    paces = []

    def played(game: stage1.Game, language: object, lessons: Lessons, rate: float) -> None:
        paces.append((rate, lessons.batch))

    def tuned(answers: stage2.Answers, lessons: Lessons, epochs: int, rate: float, **more: object) -> None:
        paces.append((rate, lessons.batch))
        raise Stopped

    monkeypatch.setattr(stage1, "generate", played)
    monkeypatch.setattr(stage2, "tune", tuned)
    task = replace(task, compute=replace(task.compute, backbone=None if embedded[0] else task.compute.backbone))
    paced = {name: None for name in ("stage1_rate", "stage1_batch", "rate", "batch", "target_side")}
    decoder = "tiny-llama" if embedded[1] else llama
    method = registry.create(
        "ganprompt", {**QUICK, **paced, "negatives": 4, "decoder_backbone": decoder, "backbone_steps": 2}
    )
    with pytest.raises(Stopped):
        method.fit(task, seed=0)
    assert paces == expected


def test_stage_1_asks_plain_questions_and_stage_2_diversified_ones(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Lessons] = []

    def tuned(answers: stage2.Answers, lessons: Lessons, *_: object, least: int, **__: object) -> None:
        asked.append(lessons)
        assert least == 1
        raise Stopped

    monkeypatch.setattr(stage1, "generate", lambda game, language, lessons, rate: asked.append(lessons))
    monkeypatch.setattr(stage2, "tune", tuned)
    settings = {"least_epochs": 1, "negatives": 3, "shortest": 2}
    with pytest.raises(Stopped):
        registry.create("ganprompt", {**QUICK, **settings}).fit(task, seed=3)
    first, second = asked
    assert first.attributes is None and second.attributes is not None and second.attributes.names == NAMES
    assert (first.windows, first.batch, first.seed) == (6, 3, 3)
    assert first.sampling == second.sampling == Sampling(2, task.history_length, 1, 3)


def test_adapters_are_those_of_the_settings(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Lora, int]] = []
    adapt = stage2.EncDecAnswers.adapt

    def spy(self: stage2.EncDecAnswers, lora: Lora, seed: int) -> None:
        made.append((lora, seed))
        adapt(self, lora, seed)

    monkeypatch.setattr(stage2.EncDecAnswers, "adapt", spy)
    settings = {**QUICK, "epochs": 0, "rank": 3, "lora_alpha": 5, "dropout": 0.2}
    registry.create("ganprompt/no-gan", settings).fit(task, seed=4)
    assert made == [(Lora(3, 5, 0.2), 4)]


def test_both_backbones_are_named_and_their_training_is_counted(task: Task) -> None:
    settings = {**QUICK, "target_side": None, "decoder_backbone": "tiny-llama", "backbone_steps": 2, "epochs": 0}
    report = registry.create("ganprompt/no-gan", settings).fit(task, seed=0)
    here = replace(task, compute=replace(task.compute, backbone=None))
    decoder = load_backbone(here, "tiny-llama", steps=2)
    assert "t5, " in report.note and decoder.description in report.note
    assert report.tokens == decoder.tokens > 0


def test_what_stage_1_did_is_kept_and_said(task: Task) -> None:
    method = registry.create("ganprompt", QUICK)
    report = method.fit(task, seed=0)
    assert set(method.artifacts) == {
        "stage1.csv",
        "embeddings.csv",
        "embeddings-before.png",
        "embeddings-after.png",
    }
    assert len(method.artifacts["stage1.csv"].splitlines()) == 1 + QUICK["stage1_steps"]
    for words in ("plot, cast, price", "diversity", "discriminator accuracy", "silhouette", "validation AUC"):
        assert words in report.note
    assert report.tokens > 0 and report.interactions == 2 * 3 + report.epochs * 12
    assert registry.create("ganprompt/no-gan", QUICK).artifacts == {}


def test_what_is_missing_is_said(task: Task) -> None:
    for role in ("recommend", "attribute"):
        some = {other: group for other, group in task.templates.items() if other != role}
        with pytest.raises(NotRunnable, match=f"ganprompt/js needs seen templates of role '{role}'"):
            registry.create("ganprompt/js").fit(replace(task, templates=some), seed=0)
    with pytest.raises(
        registry.MethodError, match="adversarial is 'cooperative' or 'zero-sum' or 'none', not 'friendly'"
    ):
        registry.create("ganprompt", {"adversarial": "friendly"})
    with pytest.raises(registry.MethodError, match="leave target_side out"):
        registry.create("ganprompt", {"decoder_backbone": "tiny-llama", "target_side": "encoder"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        *(
            ({name: 0}, f"{name} is at least 1, not 0")
            for name in ("count", "stage1_batch", "negatives", "rank", "batch", "valid_users", "patience")
        ),
        ({"stage1_steps": -1}, "stage1_steps is at least 0, not -1"),
        ({"shown_users": 1}, "shown_users is at least 2, not 1"),
        *(({name: 0.0}, f"{name} is more than 0, not 0.0") for name in ("rate", "stage1_rate", "projection_rate")),
        ({"discriminator_rate": float("nan")}, "discriminator_rate is more than 0"),
        ({"lora_alpha": -16}, "lora_alpha is more than 0, not -16"),
        *(({"dropout": share}, "dropout is at least 0 and below 1") for share in (-0.1, 1.0)),
        *(({name: float("inf")}, f"{name} is a finite number") for name in ("alpha", "gamma", "adversarial_weight")),
        ({"epochs": 2, "least_epochs": 3}, "least_epochs is at most epochs, which is 2, not 3"),
        ({"literal_sign": True, "distance": "mmd"}, "leave distance 'mmd' out"),
        ({"gan": False, "joint": True}, "leave joint and scoring out"),
        ({"gan": False, "scoring": "mean"}, "leave joint and scoring out"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(registry.MethodError, match=said):
        registry.create("ganprompt", settings)


def test_an_estimate_is_made_without_asking(tmp_path: Path) -> None:
    task = make(tmp_path)
    assert registry.create("ganprompt").estimate(task, []) == "asks nothing"
    llm = {"attributes": "llm", "llm": "endpoint:some-model", "attribute_users": 7}
    assert registry.create("ganprompt", llm).estimate(task, []).startswith("7 requests")
    unknown = registry.create("ganprompt", {**llm, "llm": "bogus:x"}).estimate(task, [])
    assert unknown.startswith("llm 'bogus:x': give recorded")


@pytest.mark.parametrize(("stage", "setting"), [("generate", "stage1_batch, now 3"), ("tune", "batch, now 8")])
def test_a_batch_that_does_not_fit_into_memory_says_which_setting_to_lower(
    task: Task, monkeypatch: pytest.MonkeyPatch, stage: str, setting: str
) -> None:
    def full(*_: object, **more: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(stage1 if stage == "generate" else stage2, stage, full)
    with pytest.raises(NotRunnable, match=f"out of memory: lower ganprompt.{setting}"):
        fitted(task)


def test_the_ledger_names_what_was_minimised(task: Task) -> None:
    losses = {
        "ganprompt": "binary cross-entropy + diversity + game, then binary cross-entropy",
        "ganprompt/language-only": "binary cross-entropy, then binary cross-entropy",
        "ganprompt/joint": "binary cross-entropy + diversity + game",
        "ganprompt/no-gan": "binary cross-entropy",
    }
    assert {row: registry.create(row, QUICK).fit(task, seed=0).loss for row in losses} == losses
