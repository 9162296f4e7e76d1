"""Embedded backbones: made once, from what may be seen, and the same every time."""

import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.protocol import Protocol, prepare
from data.histories import Histories
from data.prompts import library
from data.prompts.template import parse
from methods.base import Compute, NotRunnable
from methods.lm import embedded as module
from methods.lm.backbone import Backbone, read_embedded
from methods.lm.embedded import embedded
from methods.lm.pretraining import Material
from methods.lm.prompts import Encoder
from methods.lm.scoring import Scorer
from methods.lm.tiny import TinyLlama, train_tiny_llama
from tests.methods.lm.small import TEMPLATES, make_task

SMALL = {"steps": 2, "width": 16, "inner": 16, "heads": 2}


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_training_is_the_same_for_the_same_seed_and_differs_for_another(task):
    def train(seed):
        recipe = TinyLlama(**SMALL, seed=seed)
        return weights(train_tiny_llama(recipe, task.catalogue, task.train, task.templates["recommend"])[0])

    assert torch.equal(train(0), train(0))
    assert not torch.equal(train(0), train(1))


def test_a_decoder_learns_tastes_from_rare_titles(task):
    recipe = TinyLlama(steps=160, width=32, inner=32, heads=2, asked=4, often=1000.0)
    model, tokenizer, _ = train_tiny_llama(recipe, task.catalogue, task.train, task.templates["recommend"])
    scores = Scorer(model, Encoder(tokenizer, 512, True)).label_odds(task.valid, "recommend")
    own = np.take_along_axis(scores, task.valid_positive[:, None], axis=1)
    assert np.mean(own >= scores) > 0.9


def test_the_global_random_state_is_left_alone(task):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train_tiny_llama(TinyLlama(**SMALL), task.catalogue, task.train, task.templates["recommend"])
    assert torch.equal(torch.rand(1), expected)


def made(task, **changes) -> Backbone:
    return read_embedded("tiny-llama", *embedded("tiny-llama", task, SMALL | changes))


def test_it_is_trained_once_and_then_read(task, monkeypatch):
    first = made(task)

    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setitem(module.RECIPES, "tiny-llama", replace(module.RECIPES["tiny-llama"], train=never))
    again = made(task)
    assert torch.equal(weights(first.model), weights(again.model)) and again.tokens == first.tokens > 0
    assert [path.name for path in (task.compute.cache / "backbones").glob(".*")] == []


@pytest.mark.parametrize("change", ["history", "title", "template", "steps"])
def test_what_it_learns_from_is_part_of_its_key(task, change):
    recipe = module.RECIPES["tiny-llama"]
    key = module.cache_key("tiny-llama", recipe, recipe.settings, task)
    other, settings = task, recipe.settings
    if change == "history":
        other = replace(task, train=Histories.of(row[::-1] for row in task.train))
    elif change == "title":
        other = replace(task, catalogue=replace(task.catalogue, titles=("New", *task.catalogue.titles[1:])))
    elif change == "template":
        other = replace(task, templates={"recommend": TEMPLATES[:2]})
    else:
        settings = replace(settings, steps=7)
    assert module.cache_key("tiny-llama", recipe, settings, other) != key


def test_validation_and_test_lists_do_not_change_it(task):
    recipe = module.RECIPES["tiny-llama"]
    other = replace(task, valid=task.valid.select(np.arange(3)), valid_positive=task.valid_positive[:3])
    keys = {module.cache_key("tiny-llama", recipe, recipe.settings, t) for t in (task, other)}
    assert len(keys) == 1


def test_it_never_sees_an_item_outside_the_training_part(task):
    hidden = 0
    train = Histories.of(row[row != hidden] for row in task.train)
    titles = ("Unheard Thing", *task.catalogue.titles[1:])
    shown = " ".join(Material(replace(task.catalogue, titles=titles), train, TEMPLATES).texts())
    assert "Unheard" not in shown and titles[1] in shown


def test_a_failed_training_leaves_nothing_behind(task, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(module.RECIPES, "tiny-llama", replace(module.RECIPES["tiny-llama"], train=fail))
    with pytest.raises(KeyboardInterrupt):
        embedded("tiny-llama", task, SMALL)
    assert [path for path in (task.compute.cache / "backbones").iterdir() if path.is_dir()] == []


def test_unknown_settings_and_missing_templates_are_refused(task):
    with pytest.raises(NotRunnable, match="no setting 'depth'"):
        embedded("tiny-llama", task, {"depth": 3})
    with pytest.raises(NotRunnable, match="seen templates of role 'recommend'"):
        embedded("tiny-llama", replace(task, templates={}), SMALL)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_histories_of_one_item_are_refused(task, name):
    single = Histories.of(row[:1] for row in task.train)
    with pytest.raises(NotRunnable, match=f"{name} learns from users with two or more training items"):
        embedded(name, replace(task, train=single), SMALL)


def test_waiting_for_another_process_is_not_counted_twice(tmp_path, monkeypatch):
    clock = iter([0.0, 10.0, 40.0, 100.0, 125.0, 200.0, 200.0])  # asked, begun, done; asked, had the lock; the same
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert [module.kept(tmp_path / "made", lambda folder: None) for _ in range(3)] == [0.0, 5.0, 30.0]


def _make(cache):
    return float(weights(made(make_task(Path(cache)), steps=20).model).sum())


def test_two_processes_train_it_once(tmp_path):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        other = pool.submit(_make, str(tmp_path))
        own = _make(str(tmp_path))
        assert other.result(timeout=120) == own
    folders = [path for path in (tmp_path / "backbones").iterdir() if path.is_dir()]
    assert len(folders) == 1 and (folders[0] / "training.json").exists()


def test_templates_of_other_roles_do_not_change_it(task):
    recipe = module.RECIPES["tiny-llama"]
    other = replace(TEMPLATES[0], id="x", role="sequential", parts=parse("After {history} comes"))
    more = replace(task, templates={**task.templates, "sequential": (other,)})
    assert len({module.cache_key("tiny-llama", recipe, recipe.settings, t) for t in (task, more)}) == 1


@pytest.fixture
def shipped(task, tmp_path, monkeypatch):
    """Weights of the task in the folder of those that come with the project, and no way to train others."""
    folder, _ = embedded("tiny-llama", task, SMALL)
    monkeypatch.setattr(module, "SHIPPED", tmp_path / "weights")
    shutil.copytree(folder, tmp_path / "weights" / "tiny-llama")
    shutil.rmtree(task.compute.cache / "backbones")

    def never(*_):
        raise AssertionError("trained")

    monkeypatch.setitem(module.RECIPES, "tiny-llama", replace(module.RECIPES["tiny-llama"], train=never))
    return tmp_path / "weights" / "tiny-llama"


def test_shipped_weights_are_used_for_what_they_were_trained_on(task, shipped):
    assert made(task).tokens > 0


def test_shipped_weights_are_not_used_for_another_split(task, shipped):
    other = replace(task, train=Histories.of(row[1:] for row in task.train))
    with pytest.raises(AssertionError, match="trained"):
        embedded("tiny-llama", other, SMALL)


def test_damaged_shipped_weights_are_refused(task, shipped):
    path = shipped / "model.safetensors"
    path.write_bytes(bytes([*path.read_bytes()[:-1], 0]))
    with pytest.raises(NotRunnable, match="is damaged"):
        embedded("tiny-llama", task, SMALL)


def test_weights_that_come_with_the_project_are_for_the_embedded_protocol():
    pytest.importorskip("recbole")
    shipped = list(module.SHIPPED.iterdir())
    assert {folder.name for folder in shipped} == {"tiny-llama", "tiny-t5"}
    for folder in shipped:
        recipe = module.RECIPES[folder.name]
        problem = prepare("ml-100k", Protocol(users=2, valid_users=2), {"recommend": library.templates("recommend")})
        key = module.cache_key(folder.name, recipe, recipe.settings, problem.task(Compute()))
        assert module.shipped_folder(folder.name, key) == folder
        assert (folder / "model.safetensors").stat().st_size <= 12e6
