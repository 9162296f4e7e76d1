"""The embedded decoder: a small Llama made and trained on the spot, for use without a network."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from data.dataset import Catalogue
from data.histories import Histories
from data.prompts.template import Slot, Template, Wording
from data.random import generator
from methods.lm.forward import answer_loss, hidden_states
from methods.lm.layout import Group
from methods.lm.logits import word_odds
from methods.lm.pretraining import Material, blanked, optimise, own_odds, self_taught, title_likelihoods
from methods.lm.prompts import Encoder, as_ids
from methods.lm.questions import Sampling, Window, ask, pick, windows
from methods.lm.words import word_tokenizer

CONTINUED = (Slot("history"), Wording(", "), Slot("target"))
"""A history that simply goes on: how plain language modelling sees the next item."""


@dataclass(frozen=True)
class TinyLlama:
    """A Llama of about 0.7 M parameters, trained on the training part of a data set.

    First it models sequences of titles: every title is a choice among all items, about a hundred times the
    signal of a yes or no. Then it learns to answer questions as the seen templates word them, mostly from
    itself: an item that is the next one or a uniformly drawn other one, each as likely, is the next one with
    log-odds ``log p(title | history) + log(items)`` (Bayes), and ``p(title | history)`` it already knows. These
    odds are a far denser target than the one bit whether the item was chosen, which is learnt beside them.

    Args:
        steps: optimiser steps.
        language: share of the steps that only model titles.
        layers: decoder layers.
        width: size of the hidden states.
        inner: size of the feed-forward layers.
        heads: attention heads.
        spread: standard deviation of the first weights.
        window: longest sequence.
        sequences: sequences of titles per step; fewer beside questions, not to forget them.
        titles: titles per sequence.
        histories: histories asked about per step.
        asked: items that come next, and as many others, per history.
        bits: weight of the chosen bit beside the odds.
        often: mean training interactions of an item from which titles count as known by heart; below it, what
            titles are worth without a history is taken off their odds.
        rate: highest learning rate of the first phase; two thirds of it in the second.
        warmup: share of the steps of a phase in which the rate rises.
        decay: weight decay.
        seed: seed of the weights and of what is drawn.
    """

    steps: int = 2000
    language: float = 0.5
    layers: int = 4
    width: int = 128
    inner: int = 128
    heads: int = 4
    spread: float = 0.05
    window: int = 512
    sequences: int = 8
    titles: int = 40
    histories: int = 4
    asked: int = 6
    bits: float = 0.3
    often: float = 30.0
    rate: float = 3e-3
    warmup: float = 0.05
    decay: float = 0.05
    seed: int = 0


def train_tiny_llama(
    recipe: TinyLlama, catalogue: Catalogue, train: Histories, templates: Sequence[Template]
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, int]:
    """Make and train the backbone; returns model, tokenizer and the number of tokens seen."""
    material = Material(catalogue, train, templates, recipe.often)
    tokenizer = word_tokenizer(material.texts(), recipe.window)
    model = _untrained(recipe, tokenizer)
    encoder = Encoder(tokenizer, recipe.window, local=True)
    rng = generator(recipe.seed, "tiny-llama")
    sequences = _title_sequences(recipe, encoder, material, rng)
    shown = windows(train, Sampling(positives=recipe.asked, negatives=recipe.asked), rng)

    def language() -> tuple[Tensor, int]:
        return _language_loss(model, [next(sequences) for _ in range(recipe.sequences)])

    def answers() -> tuple[Tensor, int]:
        few = [next(sequences) for _ in range(max(1, recipe.sequences // 4))]
        loss, tokens = _language_loss(model, few)
        asked = [next(shown) for _ in range(recipe.histories)]
        more, count = _question_loss(model, encoder, material, asked, recipe.bits, rng)
        return loss + more, tokens + count

    first = round(recipe.steps * recipe.language)
    with tqdm(total=recipe.steps, desc="training tiny-llama", unit="step") as bar:
        seen = optimise(model, recipe, first, recipe.rate, language, bar.update)
        seen += optimise(model, recipe, recipe.steps - first, recipe.rate * 2 / 3, answers, bar.update)
    return model.eval(), tokenizer, seen


def _untrained(recipe: TinyLlama, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.window,
        initializer_range=recipe.spread,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return LlamaForCausalLM(config)


def _title_sequences(
    recipe: TinyLlama, encoder: Encoder, material: Material, rng: np.random.Generator
) -> Iterator[Group]:
    """Stretches of histories, bare or behind the beginning of a seen template, without end."""
    train, catalogue = material.train, material.catalogue
    users = np.flatnonzero(train.lengths > 1)
    weights = train.lengths[users] / train.lengths[users].sum()
    bare = replace(material.templates[0], parts=(Slot("history"),))
    beginnings = [_up_to_history(template) for template in material.templates]
    while True:
        for user in rng.choice(users, 1024, p=weights).tolist():
            start = int(rng.integers(max(1, len(train[user]) - 8)))
            titles = catalogue.named(train[user][start : start + recipe.titles])
            template = pick(beginnings, rng) if rng.random() < 0.5 else bare
            prompt = template.fill(catalogue.domain, {"history": titles})
            yield Group(as_ids([]), (as_ids(encoder.filled(prompt, "target", [""])[0][: recipe.window]),))


def _up_to_history(template: Template) -> Template:
    """The beginning of a template; the history alone where the target comes before it."""
    names = [part.name if isinstance(part, Slot) else "" for part in template.parts]
    end = names.index("history")
    start = end if "target" in names[:end] else 0
    return replace(template, parts=template.parts[start : end + 1])


def _language_loss(model: PreTrainedModel, sequences: Sequence[Group]) -> tuple[Tensor, int]:
    """Mean cross-entropy over all tokens, and their number."""
    tokens = [len(group.suffixes[0]) - 1 for group in sequences]
    return answer_loss(model, sequences, tokens, "none"), sum(tokens)


def _question_loss(
    model: PreTrainedModel,
    encoder: Encoder,
    material: Material,
    asked: Sequence[Window],
    bits: float,
    rng: np.random.Generator,
) -> tuple[Tensor, int]:
    """Titles that come next, odds of the bare continuation and of a seen wording against what these titles say.

    Returns:
        Loss, and the number of tokens computed.
    """
    catalogue = material.catalogue
    chosen = torch.from_numpy(np.concatenate([window.chosen for window in asked]))
    items = np.concatenate([window.items for window in asked])
    continued = [_continued(encoder, material, window) for window in asked]
    titles, bare = _titles_and_odds(model, encoder, material, continued)

    def alone() -> Tensor:
        groups = [_alone(encoder, material, window) for window in asked]
        return _titles_and_odds(model, encoder, material, groups)[0]

    target = own_odds(titles, items, material, alone)

    worded = [ask(encoder, catalogue, blanked(pick(material.templates, rng), rng), window).group for window in asked]
    groups = [Group(group.prefix, tuple(suffix[:-1] for suffix in group.suffixes)) for group in worded]
    odds = _odds(model, encoder, material, hidden_states(model, groups, "tree"))

    lengths = torch.tensor([len(suffix) - 1 for group in continued for suffix in group.suffixes])
    loss = -titles[chosen].sum() / lengths[chosen].sum()
    for guess in (bare, odds):
        loss = loss + self_taught(guess, target, chosen, bits)
    return loss, sum(group.tokens for group in (*continued, *groups))


def _continued(encoder: Encoder, material: Material, window: Window) -> Group:
    """The history, then each title; the suffixes begin with the token before the title."""
    titles = material.catalogue.named(window.items)
    history = material.catalogue.named(window.history)
    template = replace(material.templates[0], parts=CONTINUED)
    sequences = encoder.fitting(template, material.catalogue.domain, history, titles)
    start = len(sequences[0]) - len(encoder.word(titles[0])) - 1
    return Group(as_ids(sequences[0][:start]), tuple(as_ids(sequence[start:]) for sequence in sequences))


def _alone(encoder: Encoder, material: Material, window: Window) -> Group:
    """Each title as the first of a sequence."""
    titles = material.catalogue.named(window.items)
    prompt = replace(material.templates[0], parts=CONTINUED[-1:]).fill(material.catalogue.domain, {})
    return Group(as_ids([]), tuple(as_ids(sequence) for sequence in encoder.filled(prompt, "target", titles)))


def _titles_and_odds(
    model: PreTrainedModel, encoder: Encoder, material: Material, groups: Sequence[Group]
) -> tuple[Tensor, Tensor]:
    """Log-probability of every title after its history, and the odds of yes right behind it, shape ``[titles]``."""
    suffixes = [suffix for group in groups for suffix in group.suffixes]
    lengths = np.array([len(suffix) for suffix in suffixes])
    states = hidden_states(model, groups, "tree", lengths.tolist())
    titles = title_likelihoods(model, states, suffixes)
    last = torch.from_numpy(np.cumsum(lengths) - 1)
    return titles, _odds(model, encoder, material, states[last])


def _odds(model: PreTrainedModel, encoder: Encoder, material: Material, states: Tensor) -> Tensor:
    """Logit of the positive minus that of the negative label word, shape ``[states]``."""
    words = [encoder.word(label)[0] for label in material.templates[0].labels]
    return word_odds(model, states, words)
