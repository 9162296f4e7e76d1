"""GANPrompt's rows: what they share with plain tuning, what they show a model, and what they leave behind."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks import suite
from data.random import generator
from methods import registry
from methods.base import NotRunnable, Task
from methods.ganprompt import attributes as attributes_module
from methods.ganprompt import stage2
from methods.ganprompt.method import GanPrompt
from methods.ganprompt.prompts import joined
from methods.lm.backbone import load_backbone
from methods.lm.lora import Lora, add_lora, inner
from methods.lm.prompts import Encoder
from methods.lm.questions import Sampling, pick, windows
from methods.lm.tuning import warmup_cosine
from tests.methods.ganprompt.test_attributes import Fixed
from tests.methods.ganprompt.world import NAMES, make, saved
from tests.methods.lm.small import make_model

ROWS = [name for name in registry.REGISTRY if name.startswith("ganprompt")]
QUICK = {
    "count": 3,
    "stage1_steps": 2,
    "stage1_batch": 3,
    "stage1_rate": 1e-3,
    "rate": 1e-2,
    "epochs": 2,
    "max_prompts": 24,
    "batch": 8,
    "negatives": 1,
    "dropout": 0.0,
    "valid_users": 4,
    "shown_users": 6,
    "target_side": "decoder",
}


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setattr(attributes_module, "open_source", lambda *_: Fixed([list(NAMES)]))
    return make(tmp_path, backbone=str(saved(tmp_path / "t5")))


def fitted(task: Task, row: str = "ganprompt", **settings: object) -> GanPrompt:
    method = registry.create(row, {**QUICK, **settings})
    method.fit(task, seed=0)
    assert isinstance(method, GanPrompt)
    return method


def encoder(method: GanPrompt) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in method._answers.model.get_encoder().state_dict().items()}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_the_name_it_is_registered_under_and_settings_of_its_own(row: str) -> None:
    method, full = registry.create(row), registry.create("ganprompt")
    assert method.info.name == row and method.info.roles == {"recommend"}
    others = {name for name in GanPrompt.__dataclass_fields__ if getattr(method, name) != getattr(full, name)}
    assert row == "ganprompt" or len(others) == 2  # its name, and what it is about


def test_the_suite_runs_every_row() -> None:
    assert set(registry.names(suite.load("ablation-ganprompt").methods)) == set(ROWS)


def plain_tuning(task: Task, epochs: int) -> Callable[[str, str], float]:
    """Yes/no tuning of the decoder as it is told in the textbook: one question at a time through the whole model."""
    backbone = load_backbone(task, "")
    places = tuple(
        name
        for name, _ in backbone.model.named_modules()
        if name.startswith("decoder.") and name.endswith((".q", ".v"))
    )
    model = inner(add_lora(backbone.model, Lora(8, 16, 0.0, places), 0)).eval()
    yes, no = (backbone.tokenizer.convert_tokens_to_ids(word) for word in ("Yes", "No"))

    def odds(prompt: str, title: str) -> torch.Tensor:
        question = [0, *backbone.tokenizer(f"{title}?", add_special_tokens=False)["input_ids"]]
        ids = torch.tensor([backbone.tokenizer(prompt)["input_ids"]])
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
                prompt = template.fill(task.catalogue.domain, {"history": history, "target": "___"}).text
                asked += [odds(prompt, task.catalogue.titles[item]) for item in shown.items.tolist()]
                chosen += shown.chosen.tolist()
            binary_cross_entropy_with_logits(torch.stack(asked), torch.tensor(chosen, dtype=torch.float)).backward()
            torch.nn.utils.clip_grad_norm_(learnt, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            rates.step()
    return lambda prompt, title: float(odds(prompt, title).detach())


def test_without_stage_1_it_is_plain_yes_no_tuning_of_the_same_backbone(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = str(saved(tmp_path / "no-dropout", dropout=0.0))
    task = replace(task, compute=replace(task.compute, backbone=backbone))
    quality = iter([0.0, 0.1, 0.2])
    monkeypatch.setattr("methods.lm.tuning.list_auc", lambda scores: next(quality))
    monkeypatch.setattr(attributes_module, "open_source", None)
    method = fitted(task, "ganprompt/no-gan", rank=8)
    reference, scores = plain_tuning(task, QUICK["epochs"]), method.score(task.valid)
    untuned = plain_tuning(task, 0)
    moved = 0.0
    for row, column in np.ndindex(3, 3):
        title = task.catalogue.titles[int(task.valid.candidates[row, column])]
        prompt = task.valid.prompt("recommend", row).with_value("target", "___").text
        assert scores[row, column] == pytest.approx(reference(prompt, title), abs=2e-4)
        moved = max(moved, abs(reference(prompt, title) - untuned(prompt, title)))
    assert moved > 1e-2


def test_stage_2_does_not_change_the_encoder_by_one_bit(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    between = {}
    tune = stage2.tune

    def spy(answers: stage2.Answers, *rest: object, **more: object) -> object:
        between.update({name: value.clone() for name, value in answers.model.get_encoder().state_dict().items()})
        return tune(answers, *rest, **more)

    monkeypatch.setattr(stage2, "tune", spy)
    after = encoder(fitted(task))
    assert all(torch.equal(after[name], value) for name, value in between.items()) and len(between) == len(after)
    before = encoder(fitted(task, "ganprompt/no-gan"))
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


def test_only_seen_wordings_are_ever_shown_in_training(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = set()
    fitting = Encoder.fitting

    def spy(self: Encoder, template, *rest, **more):  # type: ignore[no-untyped-def]
        shown.add((template.id, template.source.split("{history}")[0]))
        return fitting(self, template, *rest, **more)

    monkeypatch.setattr(Encoder, "fitting", spy)
    fitted(task, max_prompts=120, stage1_steps=8)
    seen = {template.id for group in task.templates.values() for template in group}
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


def test_a_decoder_only_model_answers_behind_the_encoder(task: Task, tmp_path: Path) -> None:
    folder = saved(tmp_path / "llama")
    words = load_backbone(task, "").tokenizer
    make_model("llama", len(words)).save_pretrained(folder)
    method = fitted(task, decoder_backbone=str(folder), target_side=None)
    assert np.isfinite(method.score(task.valid)).all() and method.score(task.valid).std() > 0


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
    assert report.tokens > 0 and report.interactions == report.epochs * 12
    assert registry.create("ganprompt/no-gan", QUICK).artifacts == {}


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


def test_what_is_missing_is_said(task: Task) -> None:
    for role in ("recommend", "attribute"):
        some = {other: group for other, group in task.templates.items() if other != role}
        with pytest.raises(NotRunnable, match=f"ganprompt/js needs seen templates of role '{role}'"):
            registry.create("ganprompt/js").fit(replace(task, templates=some), seed=0)
    with pytest.raises(registry.MethodError, match="adversarial is one of cooperative, zero-sum, none, not 'friendly'"):
        registry.create("ganprompt", {"adversarial": "friendly"})
    with pytest.raises(registry.MethodError, match="leave target_side out"):
        registry.create("ganprompt", {"decoder_backbone": "tiny-llama", "target_side": "encoder"})


def test_an_estimate_is_made_without_asking(tmp_path: Path) -> None:
    task = make(tmp_path)
    assert registry.create("ganprompt").estimate(task, []) == "asks nothing"
    llm = {"attributes": "llm", "llm": "endpoint:some-model", "attribute_users": 7}
    assert registry.create("ganprompt", llm).estimate(task, []).startswith("7 requests")
