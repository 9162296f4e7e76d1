"""P5's training: several families of templates in one language-model loss. The result is kept in the cache."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from itertools import islice
from pathlib import Path

import numpy as np

from data.dataset import Catalogue
from data.fingerprint import fingerprint
from data.prompts.template import Role, Slot, Template, Wording
from data.random import generator
from methods.base import NotRunnable, Task
from methods.lm.backbone import Backbone, load_backbone
from methods.lm.embedded import FACTS, kept
from methods.lm.encdec import EncDecScorer, Reader
from methods.lm.encdec_questions import encoded_questions, next_titles
from methods.lm.prompts import PromptError
from methods.lm.questions import Questions, Sampling, Window, pick, windows
from methods.lm.tuning import Schedule, Tuned, list_auc, tune, valid_sample
from methods.p5.method import P5, ROLE

DEFAULT_BACKBONE = "tiny-t5"
VERSION = 2
"""Raised whenever the same settings would give another model."""

Ask = Callable[[Reader, Catalogue, Template, Window, np.random.Generator], Sequence[Questions]]


def next_title(
    reader: Reader, catalogue: Catalogue, template: Template, shown: Window, rng: np.random.Generator
) -> Sequence[Questions]:
    """History in, title out."""
    return [next_titles(reader, catalogue, template, shown)]


def yes_or_no(
    reader: Reader, catalogue: Catalogue, template: Template, shown: Window, rng: np.random.Generator
) -> Sequence[Questions]:
    """History and title in, yes or no out: one prompt for the item that comes next and one for a negative."""
    return encoded_questions(reader, catalogue, template, _next_against(shown, 1))


def direct_choice(
    reader: Reader, catalogue: Catalogue, template: Template, shown: Window, rng: np.random.Generator
) -> Sequence[Questions]:
    """History and several titles in, the title that comes next out; titles are offered once each, in a random order.

    Raises:
        NotRunnable: if the titles do not fit into the window together, even without a history.
    """
    asked = _next_against(shown)
    titles = list(dict.fromkeys(catalogue.named(asked.items)))
    offered = offering(template, [titles[place] for place in rng.permutation(len(titles)).tolist()])
    try:
        return [next_titles(reader, catalogue, offered, asked)]
    except PromptError as error:
        raise NotRunnable(f"{error}; lower the setting offered, or set choices to 0") from error


FAMILIES: Mapping[Role, Ask] = {ROLE: next_title, "recommend": yes_or_no, "choose": direct_choice}
"""Roles of the templates that are learnt, and what a window is made into for each."""


def offering(template: Template, titles: Sequence[str]) -> Template:
    """The template with ``{candidates}`` filled.

    >>> from data.prompts.template import parse
    >>> offering(Template("t", "choose", "seen", parse("{history}: {candidates}?")), ["Alien", "Brazil"]).source
    '{history}: Alien, Brazil?'
    """
    text = Wording(template.style.join(titles))
    return replace(template, parts=tuple(text if part == Slot("candidates") else part for part in template.parts))


def _next_against(shown: Window, negatives: int | None = None) -> Window:
    """The item that comes next, and negatives: all or so many, fewer where fewer could be drawn."""
    places = np.append(np.flatnonzero(shown.chosen)[:1], np.flatnonzero(~shown.chosen)[:negatives])
    return Window(shown.history, shown.items[places], shown.chosen[places])


def scorer(backbone: Backbone, batch_size: int | None) -> EncDecScorer:
    """A scorer whose decoder writes the answer at once: no prompt has a blank, so none needs a sentinel."""
    made = EncDecScorer(backbone.model, backbone.encoder(), batch_size)
    made.reader = replace(made.reader, lead=())
    return made


def trained(task: Task, settings: P5, seed: int) -> tuple[Backbone, Tuned]:
    """The backbone trained as P5, from the cache or now, and what that took.

    Raises:
        NotRunnable: if the backbone cannot be had or is no encoder-decoder, or titles to choose from do not fit its
            window.
    """

    def load(name: str | None, dtype: str) -> Backbone:
        compute = replace(task.compute, backbone=name, dtype=dtype)
        where = replace(task, compute=compute)
        return load_backbone(where, DEFAULT_BACKBONE, ("encoder-decoder",), settings.backbone_steps)

    compute = task.compute
    if not settings.epochs:
        return load(compute.backbone, compute.dtype), Tuned(0, None, float("nan"), 0, questions=0, tokens=0)
    # Trained with weights as they were read, whatever precision they are used in.
    plain = load(compute.backbone, "float32")
    folder = compute.cache / "backbones" / f"p5-{_key(plain, task, settings, seed)[:20]}"
    reused = plain.reused + kept(folder, lambda scratch: _train_into(scratch, plain, task, settings, seed))
    tuned = Tuned(**json.loads((folder / FACTS).read_text(encoding="utf-8")))
    description = f"{plain.description}, trained as P5 on {tuned.tokens / 1e6:.2f} M tokens"
    model = load(str(folder), compute.dtype).model
    return replace(plain, model=model, description=description, reused=reused), tuned


def _key(backbone: Backbone, task: Task, settings: P5, seed: int) -> str:
    """SHA-256 of all the trained model depends on: of the settings, those that other methods add do not count."""
    own = {field.name: getattr(settings, field.name) for field in fields(P5)}
    wording = [(t.source, t.labels, t.style) for role in FAMILIES for t in task.templates[role]]
    worded = [(t.source, t.style) for t in task.valid.templates[ROLE]]
    shown = (task.catalogue.titles, task.catalogue.domain, task.train, task.history_length, wording)
    valid = (task.valid.histories, task.valid.candidates, task.valid_positive, worded)
    # The configuration holds the version of transformers, too.
    config = {name: value for name, value in backbone.model.config.to_dict().items() if name != "_name_or_path"}
    read = (config, backbone.tokenizer.get_vocab(), backbone.window, backbone.model.device.type)
    weights = (parameter.detach().cpu().numpy() for parameter in backbone.model.parameters())
    return fingerprint(VERSION, own, seed, *shown, *valid, *read, *weights)


def _train_into(folder: Path, backbone: Backbone, task: Task, settings: P5, seed: int) -> None:
    """Train and save."""
    scoring = scorer(backbone, task.compute.batch_size)
    valid = valid_sample(task, settings.valid_users, settings.valid_negatives, seed)
    tuned = tune(
        backbone.model,
        epochs=(
            _batches(scoring.reader, task, settings, generator(seed, "p5", epoch)) for epoch in range(settings.epochs)
        ),
        measure=lambda: list_auc(scoring.title_likelihood(valid, ROLE, settings.normalised)),
        schedule=Schedule(
            rate=settings.rate,
            steps=settings.epochs * -(-settings.prompts // settings.batch),
            patience=settings.patience,
            warmup=settings.warmup,
        ),
        seed=seed,
        label="p5",
        by_prompt=settings.mean_over == "prompts",
    )
    backbone.model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    (folder / FACTS).write_text(json.dumps(asdict(tuned), indent=1) + "\n", encoding="utf-8")


def _batches(reader: Reader, task: Task, settings: P5, rng: np.random.Generator) -> Iterator[list[Questions]]:
    """Batches of one pass; every window is for a family drawn by its share, worded with one of its templates."""
    rest = max(0.0, 1 - settings.questions - settings.choices)  # of .9 and .1 a little less than nothing is left
    shares = [rest, settings.questions, settings.choices]
    sampling = Sampling(settings.shortest, task.history_length, settings.ahead, settings.offered)
    shown = islice(windows(task.train, sampling, rng), settings.prompts)
    roles = list(FAMILIES)
    while batch := list(islice(shown, settings.batch)):
        asked: list[Questions] = []
        for window in batch:
            role = roles[int(rng.choice(len(roles), p=shares))]
            asked += FAMILIES[role](reader, task.catalogue, pick(task.templates[role], rng), window, rng)
        yield asked
