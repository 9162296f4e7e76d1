"""A task for GANPrompt, and a decoder-only model to answer behind its encoder."""

from pathlib import Path

import pytest

from methods.base import Task
from methods.ganprompt import attributes as attributes_module
from methods.lm.backbone import load_backbone
from tests.methods.ganprompt.test_attributes import Fixed
from tests.methods.ganprompt.world import NAMES, make, saved
from tests.methods.lm.small import make_model


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setattr(attributes_module, "open_source", lambda *_: Fixed([list(NAMES)]))
    return make(tmp_path, backbone=str(saved(tmp_path / "t5")))


@pytest.fixture
def llama(task: Task, tmp_path: Path) -> str:
    folder = saved(tmp_path / "llama")
    make_model("llama", len(load_backbone(task, "").tokenizer)).save_pretrained(folder)
    return str(folder)
