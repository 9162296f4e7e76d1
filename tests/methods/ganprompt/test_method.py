"""GANPrompt: what it shares with plain tuning, what it shows a model, and what it leaves behind."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.protocol import Protocol, prepare
from data.prompts import library
from data.prompts.template import Prompt, Role
from data.random import generator
from methods import registry
from methods.base import Task
from methods.ganprompt import attributes as attributes_module
from methods.ganprompt import stage1, stage2
from methods.ganprompt.prompts import joined
from methods.ganprompt.training import Lessons
from methods.lm.backbone import load_backbone
from methods.lm.lora import Lora, add_lora, inner
from methods.lm.prompts import Encoder
from methods.lm.questions import Sampling, pick, windows
from methods.lm.tuning import warmup_cosine
from tests.methods.ganprompt.test_attributes import Fixed
from tests.methods.ganprompt.world import NAMES, QUICK, fitted, saved, without


def encoder(answers: stage2.Answers) -> dict[str, torch.Tensor]:
    model = getattr(answers, "own", answers).model
    return {name: value.clone() for name, value in model.get_encoder().state_dict().items()}


def plain_tuning(task: Task, epochs: int, side: str) -> Callable[[Prompt, str], float]:
    """Yes/no tuning of the decoder as it is told in the textbook: one question at a time through the whole model."""
    backbone = load_backbone(task, "")
    places = tuple(
        name
        for name, _ in backbone.model.named_modules()
        if name.startswith("decoder.") and name.endswith((".q", ".v"))
    )
    model = inner(add_lora(backbone.model, Lora(8, 16, 0.0, places), 0)).eval()
    yes, no = (backbone.tokenizer.convert_tokens_to_ids(word) for word in ("Yes", "No"))

    def odds(prompt: Prompt, title: str) -> torch.Tensor:
        question, target = [0], title
        if side == "decoder":
            question, target = [0, *backbone.tokenizer(f"{title}?", add_special_tokens=False)["input_ids"]], "___"
        ids = torch.tensor([backbone.tokenizer(prompt.with_value("target", target).text)["input_ids"]])
        logits = model(input_ids=ids, decoder_input_ids=torch.tensor([question])).logits[0, -1]
        return logits[yes] - logits[no]

    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learnt, lr=QUICK["rate"], weight_decay=0.0)
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, warmup_cosine(3 * QUICK["epochs"], 0.1))
    for epoch in range(epochs):
        rng = generator(0, "ganprompt stage 2", epoch)
        drawn = windows(task.train, Sampling(3, task.history_length, 1, 1), rng)
        for _ in range(3):
            asked, chosen = [], []
            for shown in (next(drawn) for _ in range(4)):
                template = pick(task.templates["recommend"], rng)
                history = [task.catalogue.titles[item] for item in shown.history.tolist()]
                prompt = template.fill(task.catalogue.domain, {"history": history})
                asked += [odds(prompt, task.catalogue.titles[item]) for item in shown.items.tolist()]
                chosen += shown.chosen.tolist()
            binary_cross_entropy_with_logits(torch.stack(asked), torch.tensor(chosen, dtype=torch.float)).backward()
            torch.nn.utils.clip_grad_norm_(learnt, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            rates.step()
    return lambda prompt, title: float(odds(prompt, title).detach())


@pytest.mark.parametrize("side", ["decoder", "encoder"])
def test_without_gan_it_is_plain_yes_no_tuning_of_the_same_backbone(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    backbone = str(saved(tmp_path / "no-dropout", dropout=0.0))
    task = replace(task, compute=replace(task.compute, backbone=backbone))
    quality = iter([0.0, 0.1, 0.2])
    monkeypatch.setattr("methods.lm.tuning.list_auc", lambda scores: next(quality))
    monkeypatch.setattr(attributes_module, "open_source", None)
    method = fitted(task, "ganprompt/no-gan", rank=8, target_side=side)
    reference, scores = plain_tuning(task, QUICK["epochs"], side), method.score(task.valid)
    untuned = plain_tuning(task, 0, side)
    moved = 0.0
    for row, column in np.ndindex(3, 3):
        title = task.catalogue.titles[int(task.valid.candidates[row, column])]
        prompt = task.valid.prompt("recommend", row)
        assert scores[row, column] == pytest.approx(reference(prompt, title), abs=2e-4)
        moved = max(moved, abs(reference(prompt, title) - untuned(prompt, title)))
    assert moved > 1e-2


@pytest.mark.parametrize("variant", ["decoder", "encoder", "soft"])
def test_stage_2_does_not_change_the_encoder_by_one_bit(
    task: Task, monkeypatch: pytest.MonkeyPatch, llama: str, variant: str
) -> None:
    settings = {"decoder_backbone": llama, "target_side": None} if variant == "soft" else {"target_side": variant}
    between = {}
    tune = stage2.tune

    def spy(answers: stage2.Answers, *rest: object, **more: object) -> object:
        between.update(encoder(answers))
        return tune(answers, *rest, **more)

    monkeypatch.setattr(stage2, "tune", spy)
    after = encoder(fitted(task, **settings)._answers)
    assert all(torch.equal(after[name], value) for name, value in between.items()) and len(between) == len(after)
    before = encoder(fitted(task, "ganprompt/no-gan", **settings)._answers)
    assert not all(torch.equal(after[name], value) for name, value in before.items() if "embed" not in name)


def test_joint_training_changes_encoder_and_decoder_together(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    quality = iter([0.0, 0.1, 0.2])
    monkeypatch.setattr("methods.lm.tuning.list_auc", lambda scores: next(quality))
    method = fitted(task, "ganprompt/joint")
    untouched = load_backbone(task, "").model.state_dict()
    changed = {name for name, value in method._answers.model.state_dict().items() if name in untouched}
    changed = {
        n for n in changed if "block" in n and not torch.equal(method._answers.model.state_dict()[n], untouched[n])
    }
    assert any(name.startswith("encoder") for name in changed) and any(name.startswith("decoder") for name in changed)


@pytest.mark.parametrize(("quality", "kept"), [((0.0, 0.1, 0.2), 2), ((0.0, 0.1, 0.0), 1), ((0.2, 0.1, 0.0), 0)])
def test_joint_training_says_what_the_kept_weights_have_become(
    task: Task, monkeypatch: pytest.MonkeyPatch, quality: tuple[float, ...], kept: int
) -> None:
    values = iter(quality)
    monkeypatch.setattr("methods.lm.tuning.list_auc", lambda scores: next(values))
    method = registry.create("ganprompt/joint", QUICK)
    note = method.fit(task, seed=0).note
    steps = list(csv.DictReader(method.artifacts["stage1.csv"].splitlines()))
    first, last = (float(steps[n]["diversity"]) for n in (0, max(0, kept * len(steps) // 2 - 1)))
    assert f"diversity {first:.4f} to {last:.4f}" in note


@pytest.mark.parametrize("row", ["ganprompt", "ganprompt/joint", "ganprompt/no-gan"])
def test_whatever_learns_in_single_precision_rows_are_scored_in_the_precision_asked_for(task: Task, row: str) -> None:
    half = replace(task, compute=replace(task.compute, dtype="bfloat16"))
    model = fitted(half, row)._answers.model
    assert {p.dtype for name, p in model.named_parameters() if "lora" not in name} == {torch.bfloat16}


@pytest.mark.parametrize("row", ["ganprompt/joint", "ganprompt/no-gan"])
def test_nothing_is_learnt_in_no_passes(task: Task, row: str) -> None:
    method = registry.create(row, {**QUICK, "epochs": 0})
    report = method.fit(task, seed=0)
    assert (report.epochs, report.converged) == (0, None) and np.isfinite(method.score(task.valid)).all()


def test_without_stage_1_the_decoder_learns_diversified_prompts_behind_the_encoder_as_it_came(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage1, "generate", None)
    drawn, tune = [], stage2.tune

    def spy(answers: stage2.Answers, lessons: Lessons, *rest: object, **more: object) -> object:
        drawn.extend(example.template.source for batch in lessons.epoch(0) for example in batch)
        return tune(answers, lessons, *rest, **more)

    monkeypatch.setattr(stage2, "tune", spy)
    method = registry.create("ganprompt/no-stage1", without("stage1_steps"))
    report = method.fit(task, seed=0)
    assert any(name in source for name in NAMES for source in drawn)
    untouched = load_backbone(task, "").model.get_encoder().state_dict()
    assert all(torch.equal(value, untouched[name]) for name, value in encoder(method._answers).items())
    assert method.artifacts == {} and report.interactions == report.epochs * 12 and "plot, cast, price" in report.note


def test_only_seen_wordings_are_ever_shown_in_training(
    task: Task, monkeypatch: pytest.MonkeyPatch, atomic: Path
) -> None:
    roles: tuple[Role, ...] = ("recommend", "attribute")
    wording = {role: library.templates(role) for role in roles}
    task = prepare(str(atomic), Protocol(negatives=5), wording).task(task.compute)
    shown = set()
    fitting = Encoder.fitting

    def spy(self: Encoder, template, *rest, **more):  # type: ignore[no-untyped-def]
        shown.add((template.id, template.source.split("{history}")[0]))
        return fitting(self, template, *rest, **more)

    monkeypatch.setattr(Encoder, "fitting", spy)
    fitted(task, max_prompts=120, stage1_steps=8)
    seen = {template.id for group in wording.values() for template in group if template.family == "seen"}
    assert {identity for identity, _ in shown} == seen
    assert any(name in start for name in NAMES for identity, start in shown if not identity.startswith("attribute"))


def test_the_mean_scores_are_those_over_the_attributes(task: Task) -> None:
    method = fitted(task, scoring="mean")
    assert method.info.roles == {"recommend", "attribute"}
    worded, each = task.valid.templates, []
    for name in NAMES:
        rows = zip(worded["recommend"], worded["attribute"], strict=True)
        templates = {"recommend": tuple(joined(template, wording, name) for template, wording in rows)}
        each.append(method._answers.score(replace(task.valid, templates=templates)))
    np.testing.assert_allclose(method.score(task.valid), np.mean(each, axis=0))
    assert np.std(each, axis=0).max() > 1e-4


def test_the_target_stands_in_the_prompt_of_trained_backbones_and_in_front_of_the_answer_of_embedded_ones(
    task: Task,
) -> None:
    assert fitted(task, target_side=None)._answers.target_side == "encoder"
    embedded = replace(task, compute=replace(task.compute, backbone=None))
    method = fitted(embedded, target_side=None, backbone_steps=2)
    assert method._answers.target_side == "decoder"
    assert np.isfinite(method.score(task.valid)).all()


@pytest.mark.parametrize("settings", [{}, {"joint": True}, {"gan": False}, {"scoring": "mean"}], ids=str)
def test_a_decoder_only_model_answers_behind_the_encoder(task: Task, llama: str, settings: dict[str, object]) -> None:
    method = fitted(task, decoder_backbone=llama, target_side=None, **settings)
    assert np.isfinite(method.score(task.valid)).all() and method.score(task.valid).std() > 0


@pytest.mark.parametrize("behind", [False, True])
def test_prompts_cut_to_the_window_are_counted(task: Task, llama: str, behind: bool) -> None:
    method = fitted(task, **({"decoder_backbone": llama, "target_side": None} if behind else {}))
    assert method.scorer.encoder.shortened == 0
    method.scorer.encoder.window = 24
    method.score(task.valid)
    assert method.scorer.encoder.shortened > 0


def test_soft_prompts_hold_no_target_in_stage_1_either(task: Task, llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, generate = [], stage1.generate

    def spy(game: stage1.Game, language: partial[torch.Tensor], *rest: object) -> None:
        asked.append(language.args[0].target_side)
        generate(game, language, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(stage1, "generate", spy)
    fitted(task, decoder_backbone=llama, target_side=None)
    assert asked == ["decoder"]


@pytest.mark.parametrize(("side", "passes"), [("decoder", 1), ("encoder", 6)])
def test_with_the_target_in_the_decoder_one_encoder_pass_serves_a_user(task: Task, side: str, passes: int) -> None:
    method, rows = fitted(task, target_side=side), []
    method._answers.model.get_encoder().register_forward_pre_hook(
        lambda _, __, given: rows.append(len(given["input_ids"])), with_kwargs=True
    )
    method.score(task.valid)
    assert task.valid.candidates.shape == (24, 6) and sum(rows) == 24 * passes


def test_five_attributes_make_six_classes(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["plot", "cast", "price", "Space", "Love", "Red"]
    monkeypatch.setattr(attributes_module, "open_source", lambda *_: Fixed([names]))
    method = registry.create("ganprompt", without("count"))
    method.fit(task, seed=0)
    rows = csv.DictReader(io.StringIO(str(method.artifacts["embeddings.csv"])))
    assert {row["class"] for row in rows} == {"plain", *names[:5]}


def test_a_history_shorter_than_the_shortest_wanted_is_enough(task: Task) -> None:
    fitted(replace(task, history_length=2))


def test_a_single_validation_user_is_enough_to_fit(task: Task) -> None:
    only = np.arange(1)
    method = registry.create("ganprompt", QUICK)
    report = method.fit(replace(task, valid=task.valid.select(only), valid_positive=task.valid_positive[only]), seed=0)
    assert set(method.artifacts) == {"stage1.csv"} and "silhouette" not in report.note
    assert "discriminator accuracy" in report.note


def test_the_same_seed_gives_the_same_scores_and_another_one_others(task: Task) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = fitted(task).score(task.valid)
    assert torch.equal(torch.rand(1), expected)
    np.testing.assert_array_equal(first, fitted(task).score(task.valid))
    other = registry.create("ganprompt", QUICK)
    other.fit(task, seed=1)
    assert not np.array_equal(first, other.score(task.valid))


def test_stage_2_can_be_made_to_count(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    for least, kept in ((0, "before tuning"), (1, "after epoch 2"), (2, "after epoch 2")):
        quality = iter([0.9, 0.1, 0.2])
        monkeypatch.setattr("methods.lm.tuning.list_auc", lambda scores, quality=quality: next(quality))
        report = registry.create("ganprompt", {**QUICK, "least_epochs": least}).fit(task, seed=0)
        assert report.note.endswith(kept)


@pytest.mark.parametrize("row", ["ganprompt", "ganprompt/joint"])
def test_in_half_precision_the_encoder_takes_the_small_steps_of_the_paper(task: Task, row: str) -> None:
    task = replace(task, compute=replace(task.compute, dtype="bfloat16"))
    before = load_backbone(task, "").model.get_encoder().state_dict()
    method = fitted(task, row, stage1_rate=5e-5, stage1_steps=8, least_epochs=1, max_prompts=96)
    after = encoder(method._answers)
    names = [name for name in before if name.endswith((".q.weight", ".wi.weight"))]
    moved = [float((after[name] != before[name]).float().mean()) for name in names]
    assert min(moved) > 0.1
    assert np.isfinite(method.score(task.valid)).all()


def test_what_a_backbone_keeps_in_single_precision_beside_float16_stays_so(task: Task) -> None:
    task = replace(task, compute=replace(task.compute, dtype="float16"))
    expected = {name: value.dtype for name, value in load_backbone(task, "").model.named_parameters()}
    model = fitted(task)._answers.model
    found = {name.replace(".base_layer", ""): value.dtype for name, value in model.named_parameters()}
    assert {found[name] for name in expected} == {torch.float16, torch.float32}
    assert {name: found[name] for name in expected} == expected
