"""Fixtures of the language model tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from methods.base import Task
from tests.methods.lm.small import make_model, make_task, make_tokenizer


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return make_task(tmp_path)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Saves a random model of a family as the hub would have it, and gives the folder."""

    def save(family: str = "llama", **changes: object) -> Path:
        tokenizer = make_tokenizer()
        folder = tmp_path / f"hub-{family}"
        make_model(family, len(tokenizer), **changes).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save
