"""The small world of the language model tests, with templates that hold demonstrations."""

from dataclasses import replace
from pathlib import Path

from data.prompts.template import Template, parse
from methods.base import Task
from methods.lm.prompts import Encoder
from methods.lm.words import word_tokenizer
from methods.lrgd.check import random_model
from tests.methods.lm.small import TEMPLATES, WORDS, make_task

DEMONSTRATE = (
    Template("lines", "demonstrate", "seen", parse("Complete the last line.{demonstrations}\n{history} => {target}")),
    Template(
        "asked", "demonstrate", "seen", parse("Which is next?{demonstrations}\nAfter {history}?\nAnswer: {target}")
    ),
)


def make_world(cache: Path, users: int = 40, **compute: object) -> Task:
    task = make_task(cache, users, **compute)
    rows = {role: row for role, row in task.valid.templates.items()}
    rows["demonstrate"] = tuple(DEMONSTRATE[user % 2] for user in range(users))
    templates = {**task.templates, "demonstrate": DEMONSTRATE}
    return replace(task, valid=replace(task.valid, templates=rows), templates=templates)


def make_encoder(window: int = 256) -> Encoder:
    words = ["Yes No Alien", *(f"{word} Space Love" for word in WORDS), *(t.source for t in (*DEMONSTRATE, *TEMPLATES))]
    return Encoder(word_tokenizer(words, window), window, local=True)


def make_decoder(encoder: Encoder, family: str = "llama"):
    return random_model(family, vocabulary=len(encoder.tokenizer))
