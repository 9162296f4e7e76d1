"""Yes/no questions and next titles for encoder-decoders: what they learn from."""

import numpy as np

from data.dataset import Catalogue
from data.prompts.template import Template
from methods.lm.encdec import Reader
from methods.lm.layout import Group
from methods.lm.prompts import as_ids
from methods.lm.questions import Questions, Window


def decoded_questions(reader: Reader, catalogue: Catalogue, template: Template, shown: Window) -> Questions:
    """All questions of a window behind one prompt, with the target in the decoder and the label learnt.

    Raises:
        PromptError: if the prompt does not fit into the model's window even without a history.
    """
    labels = [reader.label(template.labels[not chosen], in_decoder=True) for chosen in shown.chosen.tolist()]
    questions = [reader.question(title) for title in catalogue.named(shown.items)]
    suffixes = tuple(as_ids([*q, *label]) for q, label in zip(questions, labels, strict=True))
    return Questions(Group(_prompt(reader, catalogue, template, shown), suffixes), tuple(map(len, labels)))


def encoded_questions(reader: Reader, catalogue: Catalogue, template: Template, shown: Window) -> tuple[Questions, ...]:
    """Each question of a window in a prompt of its own, the label learnt at the start of the decoder.

    Raises:
        PromptError: if a prompt does not fit into the model's window even without a history.
    """
    history, targets = catalogue.named(shown.history), catalogue.named(shown.items)
    prompts = reader.prompts(template, catalogue.domain, history, targets)
    labels = [reader.label(template.labels[not chosen], in_decoder=False) for chosen in shown.chosen.tolist()]
    return tuple(
        Questions(Group(prompt, (as_ids([reader.start, *label]),)), (len(label),))
        for prompt, label in zip(prompts, labels, strict=True)
    )


def next_titles(reader: Reader, catalogue: Catalogue, template: Template, shown: Window) -> Questions:
    """The chosen titles of a window behind one prompt, each written on its own and learnt whole."""
    titles = [reader.title(title) for title in catalogue.named(shown.items[shown.chosen])]
    lead = 1 + len(reader.lead)
    group = Group(_prompt(reader, catalogue, template, shown), tuple(titles))
    return Questions(group, tuple(len(title) - lead for title in titles))


def _prompt(reader: Reader, catalogue: Catalogue, template: Template, shown: Window) -> np.ndarray:
    return reader.prompt(template, catalogue.domain, catalogue.named(shown.history))
