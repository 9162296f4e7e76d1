"""An embedded backbone made used to demonstrations: training goes on in the format of the prompts.

A model of this size that never saw a demonstration takes it for more history, or for noise. It learns from the
training part and the seen templates only; the result is kept in the cache, beside the backbones.
"""

import copy
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import AutoModelForCausalLM, PreTrainedModel

from data.fingerprint import fingerprint
from data.prompts.template import Template
from data.random import generator
from methods.base import Task
from methods.lm.backbone import Backbone
from methods.lm.embedded import kept
from methods.lm.pretraining import optimise
from methods.lm.questions import pick
from methods.lrgd.attention import step_implementation
from methods.lrgd.demonstrations import Neighbours, PoolSize, pool, training_queries
from methods.lrgd.icl import Prompt, Query, answer_places, encode
from methods.lrgd.packed import Packed

log = logging.getLogger(__name__)
VERSION = 3
"""Raised whenever the same settings would give another model."""


@dataclass(frozen=True)
class IclTraining:
    """How training goes on.

    Args:
        steps: optimiser steps; 0 leaves the backbone as it is.
        batch: prompts per step.
        answers: items the user chose next, each of which is an answer.
        told: share of the prompts that show a later choice of the user as the choice of a demonstration whose
            answers are such choices only. Titles never came twice in what the backbone was trained on: it has
            to learn that an answer may be among what it was shown.
        weight: weight of the prompts' own tokens outside of demonstrations.
        shots: most demonstrations in a prompt; their number is drawn uniformly from 0 on.
        shortest: least number of history items of the query, where a prompt may show that many and so many came before.
        rate: highest learning rate.
        warmup: share of the steps in which the rate rises.
        seed: seed of what is drawn.
    """

    steps: int = 400
    batch: int = 12
    answers: int = 8
    told: float = 0.8
    weight: float = 0.5
    shots: int = 8
    shortest: int = 3
    rate: float = 2e-3
    warmup: float = 0.1
    seed: int = 0

    decay: ClassVar[float] = 0.05


@dataclass(frozen=True)
class Learnt:
    """What a backbone was accustomed with.

    Args:
        interactions: items the user chose next that it learnt to answer with.
        tokens: of prompts and answers.
    """

    interactions: int = 0
    tokens: int = 0


def accustomed(
    load: Callable[[str], Backbone], task: Task, training: IclTraining, size: PoolSize
) -> tuple[Backbone, Learnt]:
    """The backbone after training with demonstrations, from the cache or made now; and what it took.

    A backbone that came trained is left as it is, and the one that is loaded is never changed.

    Args:
        load: from a floating point type to the backbone in it.
        task: what to demonstrate.
        training: for how long, and how.
        size: of the pools of demonstrations.
    """
    used = load(task.compute.dtype)
    if not used.embedded or not training.steps:
        return used, Learnt()
    backbone = load("float32")  # whatever precision it is used in
    folder = task.compute.cache / "backbones" / f"icl-{_key(backbone, task, training, size)[:20]}"
    reused = backbone.reused + kept(folder, lambda scratch: _make(scratch, backbone, task, training, size))
    model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    model = model.to(device=used.model.device, dtype=used.model.dtype).eval()
    facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    learnt = Learnt(**facts["learnt"])
    description = f"{backbone.description}, {learnt.tokens / 1e6:.2f} M more with demonstrations"
    return replace(backbone, model=model, description=description, reused=reused), learnt


def _key(backbone: Backbone, task: Task, training: IclTraining, size: PoolSize) -> str:
    wording = [(t.source, t.labels, t.style) for t in task.templates["demonstrate"]]
    shown = (task.catalogue.titles, task.catalogue.domain, task.train, wording, task.history_length)
    weights = (parameter.detach().cpu().numpy() for parameter in backbone.model.parameters())
    return fingerprint(VERSION, training, size, *shown, backbone.model.device.type, *weights)


def _make(folder: Path, backbone: Backbone, task: Task, training: IclTraining, size: PoolSize) -> None:
    """Train and save."""
    model = copy.deepcopy(backbone.model)
    learnt = train(model, backbone, task, training, size)
    model.save_pretrained(folder)
    facts = {"learnt": asdict(learnt), "settings": asdict(training)}
    (folder / "training.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    log.info("%s: %d tokens with demonstrations", backbone.description, learnt.tokens)


def train(model: PreTrainedModel, backbone: Backbone, task: Task, training: IclTraining, size: PoolSize) -> Learnt:
    """Language modelling of prompts with demonstrations and of their right answers."""
    prompts, interactions = training_prompts(backbone, task, training, size), 0

    def draw() -> tuple[Tensor, int]:
        nonlocal interactions
        batch = [next(prompts) for _ in range(training.batch)]
        interactions += sum(len(prompt.answers) for prompt in batch)
        tokens = sum(len(prompt.ids) + sum(map(len, prompt.answers)) for prompt in batch)
        return _loss(model, batch, training.weight), tokens

    with tqdm(total=training.steps, desc="training with demonstrations", unit="step") as bar:
        tokens = optimise(model, training, training.steps, training.rate, draw, bar.update)
    model.eval()
    return Learnt(interactions, tokens)


def _loss(model: PreTrainedModel, prompts: Sequence[Prompt], weight: float) -> Tensor:
    """Mean over prompts of the mean over their answers' tokens, and ``weight`` times that of what asks for them."""
    packed = Packed.of([prompt.group for prompt in prompts], model.device, model.dtype)
    with step_implementation(model):
        states = model.base_model(
            input_ids=packed.ids, position_ids=packed.positions, use_cache=False, packed=packed
        ).last_hidden_state[0]
    logits = model.get_output_embeddings()(states)
    places, targets = answer_places(prompts)
    each = cross_entropy(
        logits[torch.from_numpy(places)], torch.from_numpy(targets).to(logits.device), reduction="none"
    )
    counts = np.array([sum(map(len, prompt.answers)) for prompt in prompts])
    shares = torch.from_numpy(np.repeat(1 / counts / len(counts), counts)).to(each.device, each.dtype)
    ends = np.cumsum([len(prompt.ids) for prompt in prompts])
    within = np.setdiff1d(np.arange(ends[-1]), ends - 1)
    owner = np.concatenate([prompt.owner for prompt in prompts])
    # Demonstrations are read, not predicted: each ends in a choice of its own, so that predicting them would
    # teach that a choice once shown does not come again.
    asked = torch.from_numpy(within[owner[within + 1] < 0])
    return (each * shares).sum() + weight * cross_entropy(logits[asked], packed.ids[0, asked + 1])


def training_prompts(backbone: Backbone, task: Task, training: IclTraining, size: PoolSize) -> Iterator[Prompt]:
    """Prompts with what their users chose next, one after the other, as answers; without end."""
    rng = generator(training.seed, "lrgd training")
    neighbours, encoder = Neighbours(task.train, task.catalogue.n_items), backbone.encoder()
    templates: Sequence[Template] = task.templates["demonstrate"]
    shortest = min(training.shortest, task.history_length)
    for user, at in training_queries(task.train, rng):
        row, length = task.train[user], int(rng.integers(shortest, task.history_length + 1))
        found = pool(neighbours, user, at, task.history_length, size)
        shots = min(int(rng.integers(training.shots + 1)), len(found))
        chosen = tuple(found[n] for n in rng.permutation(len(found))[:shots].tolist())
        history, following = tuple(row[max(0, at - length) : at].tolist()), row[at:]
        told = following[np.isin(following, [one.choice for one in chosen])]
        if len(told) and rng.random() < training.told:
            following = told
        template = pick(templates, rng)
        answers = task.catalogue.named(following[: training.answers])
        yield encode(encoder, Query(template, task.catalogue, history, chosen), answers)
