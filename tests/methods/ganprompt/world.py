"""A small T5 in the hub's format, a task for it, and attributes that need no model."""

from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from data.prompts import library
from methods import registry
from methods.base import Task
from methods.ganprompt.diversity import Diversity
from methods.ganprompt.method import GanPrompt
from methods.ganprompt.prompts import Attributes
from methods.ganprompt.stage2 import EncDecAnswers
from methods.ganprompt.training import Example, Lessons
from methods.lm.encdec import BLANK
from methods.lm.prompts import Encoder
from methods.lm.questions import Sampling
from methods.lm.words import word_tokenizer
from tests.methods.lm.small import TEMPLATES, WORDS, make_task

NAMES = ("plot", "cast", "price")
SEEN = tuple(template for template in library.templates("attribute") if template.family == "seen")
ATTRIBUTES = Attributes(NAMES, SEEN)
DIVERSITY = Diversity(alpha=1.0, beta=1.0, gamma=1.0)
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


def tokenizer(*more: str) -> PreTrainedTokenizerFast:
    templates = (t.source for t in (*TEMPLATES, *SEEN))
    return word_tokenizer([f"Yes No {BLANK}", *(f"{w} Space Love" for w in WORDS), *templates, *NAMES, *more], 256)


def model(vocabulary: int, dropout: float = 0.1) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": vocabulary, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    tokens = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 3, "initializer_factor": 0.3}
    return T5ForConditionalGeneration(T5Config(**sizes, **tokens, dropout_rate=dropout)).eval()


def saved(folder: Path, dropout: float = 0.1) -> Path:
    words = tokenizer()
    model(len(words), dropout).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def make(cache: Path, users: int = 24, **compute: object) -> Task:
    """The two tastes of the language model tests, with attribute wordings beside."""
    task = make_task(cache, users=users, **compute)
    worded = {**task.valid.templates, "attribute": SEEN[:1] * users}
    return replace(task, templates={**task.templates, "attribute": SEEN}, valid=replace(task.valid, templates=worded))


def answers(task: Task, side: str = "decoder") -> EncDecAnswers:
    words = tokenizer()
    return EncDecAnswers(model(len(words)), Encoder(words, 256, True), task.catalogue, side)


def lessons(task: Task, windows: int = 8, batch: int = 4, attributes: Attributes | None = None) -> Lessons:
    return Lessons(task, Sampling(2, 4, 1, 2), attributes, windows, batch, 0, "test")


def batch(task: Task, size: int = 4, attributes: Attributes | None = None) -> list[Example]:
    return next(lessons(task, size, size, attributes).epoch(0))


def fitted(task: Task, row: str = "ganprompt", **settings: object) -> GanPrompt:
    method = registry.create(row, {**QUICK, **settings})
    method.fit(task, seed=0)
    assert isinstance(method, GanPrompt)
    return method


def without(name: str) -> dict[str, object]:
    return {other: value for other, value in QUICK.items() if other != name}


class Stopped(Exception):
    """Far enough."""
