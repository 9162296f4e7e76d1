"""The embedded encoder-decoder backbone: a small T5 made and trained on the spot."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from data.dataset import Catalogue
from data.histories import Histories
from data.prompts.template import Slot, Template
from data.random import generator
from methods.lm.encdec import BLANK, Reader
from methods.lm.encdec_questions import decoded_questions, next_titles
from methods.lm.layout import Group
from methods.lm.logits import word_odds
from methods.lm.pretraining import Material, blanked, optimise, own_odds, self_taught, title_likelihoods
from methods.lm.prompts import Encoder
from methods.lm.questions import Sampling, Window, pick, windows
from methods.lm.t5 import decoder_loss, decoder_states
from methods.lm.word_vectors import word_vectors
from methods.lm.words import word_tokenizer

HISTORY = (Slot("history"),)
"""The shortest prompt there is."""


@dataclass(frozen=True)
class TinyT5:
    """A T5 of about 0.8 M parameters, trained on the training part of a data set.

    First the encoder reads a history, alone or in a seen template, and behind it the decoder writes, each on its
    own, the titles that were chosen next: that is dense, and all it needs has to come through the encoder. Then
    the decoder is asked about titles, and learns the answers mostly from what it would write itself, as
    :class:`methods.lm.tiny.TinyLlama` does. The target stands in the decoder: one encoder pass serves all.

    Args:
        steps: optimiser steps.
        writing: share of the steps that only write titles.
        layers: layers of the encoder and of the decoder.
        width: size of the hidden states.
        inner: size of the feed-forward layers.
        heads: attention heads.
        spread: standard deviation of the first embeddings.
        branch: factor of the first weights at the end of every residual branch.
        window: longest sequence.
        prompts: histories per step, half of them without the words of a template.
        ahead: titles written after each history.
        histories: histories asked about per step.
        asked: items that come next, and as many others, per history.
        bits: weight of the chosen bit beside the odds.
        often: mean training interactions of an item from which titles count as known by heart; below it, one prompt
            of a step has no history, and what titles are worth without one is taken off their odds.
        rate: highest learning rate of the first phase; half of it in the second.
        warmup: share of the steps of a phase in which the rate rises.
        decay: weight decay.
        seed: seed of the weights and of what is drawn.
    """

    steps: int = 3000
    writing: float = 0.75
    layers: int = 2
    width: int = 128
    inner: int = 128
    heads: int = 4
    spread: float = 0.06
    branch: float = 0.2
    window: int = 512
    prompts: int = 12
    ahead: int = 8
    histories: int = 6
    asked: int = 6
    bits: float = 0.3
    often: float = 30.0
    rate: float = 4e-3
    warmup: float = 0.05
    decay: float = 0.05
    seed: int = 0


def train_tiny_t5(
    recipe: TinyT5, catalogue: Catalogue, train: Histories, templates: Sequence[Template]
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, int]:
    """Make and train the backbone; returns model, tokenizer and the number of tokens seen."""
    material = Material(catalogue, train, templates, recipe.often)
    tokenizer = word_tokenizer([*material.texts(), BLANK], recipe.window)
    end_texts(tokenizer)
    model = make_tiny_t5(recipe, tokenizer)
    known = set(train.items.tolist())
    titles = [title if item in known else "" for item, title in enumerate(catalogue.titles)]
    tokens = tokenizer(titles, add_special_tokens=False)["input_ids"]
    start_embeddings(model, word_vectors(tokens, train, len(tokenizer), recipe.width), recipe.spread)
    reader = Reader.of(model, Encoder(tokenizer, recipe.window, local=True))
    rng = generator(recipe.seed, "tiny-t5")
    coming = windows(train, Sampling(positives=recipe.ahead, negatives=0), rng)
    questions = windows(train, Sampling(positives=recipe.asked, negatives=recipe.asked), rng)
    bare = replace(material.templates[0], parts=HISTORY)

    def writing() -> tuple[Tensor, int]:
        worded = [bare if n % 2 else pick(material.templates, rng) for n in range(recipe.prompts)]
        shown = [next(coming) for _ in worded]
        if not material.by_heart:
            shown[0] = _without_history(shown[0])
        written = [next_titles(reader, catalogue, *asked) for asked in zip(worded, shown, strict=True)]
        groups = [titles.group for titles in written]
        loss = decoder_loss(model, groups, [count for titles in written for count in titles.answers])
        return loss, sum(group.tokens for group in groups)

    def answers() -> tuple[Tensor, int]:
        asked = [next(questions) for _ in range(recipe.histories)]
        worded = [blanked(pick(material.templates, rng), rng) for _ in asked]
        return _question_loss(model, reader, material, asked, [[bare] * len(asked), worded], recipe.bits)

    first = round(recipe.steps * recipe.writing)
    with tqdm(total=recipe.steps, desc="training tiny-t5", unit="step") as bar:
        seen = optimise(model, recipe, first, recipe.rate, writing, bar.update)
        seen += optimise(model, recipe, recipe.steps - first, recipe.rate / 2, answers, bar.update)
    return model.eval(), tokenizer, seen


def end_texts(tokenizer: PreTrainedTokenizerFast) -> None:
    """Put an end token behind every text, as T5 has it.

    The decoder's attention to the encoder knows no positions: which title is the latest has to be found by
    the encoder, from how far it is from the end.
    """
    from tokenizers import processors

    start, end = tokenizer.bos_token, tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(start, tokenizer.bos_token_id), (end, tokenizer.eos_token_id)],
    )


def make_tiny_t5(recipe: TinyT5, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """The untrained model.

    T5's initialiser, with embeddings of size 1, is made for an optimiser whose steps grow with the weights;
    with Adam such embeddings never move. Here they start small. The decoder's last layer norm takes back the
    division by the root of the width before the output layer, so that logits are of order one at first; and
    residual branches start small, so that what words mean is not drowned before the branches are any use.
    """
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(  # type: ignore[call-arg]
        vocab_size=len(tokenizer),
        d_model=recipe.width,
        d_kv=recipe.width // recipe.heads,
        d_ff=recipe.inner,
        num_layers=recipe.layers,
        num_heads=recipe.heads,
        n_positions=recipe.window,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.decoder_start_token_id = tokenizer.bos_token_id
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(recipe.seed)
        model = T5ForConditionalGeneration(config)
        model.shared.weight.normal_(std=recipe.spread)
        model.decoder.final_layer_norm.weight.fill_(recipe.width**0.5)
        for name, parameter in model.named_parameters():
            if name.endswith((".o.weight", ".wo.weight")):
                parameter.mul_(recipe.branch)
    return model


def start_embeddings(model: PreTrainedModel, vectors: np.ndarray, spread: float) -> None:
    """Put the vectors, scaled, in place of the embeddings of all words that have one."""
    found = torch.from_numpy(np.flatnonzero(vectors.any(axis=1)))
    layer: Any = model.get_input_embeddings()
    with torch.no_grad():
        layer.weight[found] = spread * torch.from_numpy(vectors).to(layer.weight.dtype)[found]


def _question_loss(
    model: PreTrainedModel,
    reader: Reader,
    material: Material,
    asked: Sequence[Window],
    worded: Sequence[Sequence[Template]],
    bits: float,
) -> tuple[Tensor, int]:
    """Titles that come next, and their odds under every wording against what the first wording's titles say.

    Returns:
        Loss, and the number of tokens computed.
    """

    def groups_of(templates: Sequence[Template], shown: Sequence[Window]) -> list[Group]:
        questions = (
            decoded_questions(reader, material.catalogue, template, window).group
            for template, window in zip(templates, shown, strict=True)
        )
        return [Group(group.prefix, tuple(suffix[:-1] for suffix in group.suffixes)) for group in questions]

    def alone() -> Tensor:
        bare = groups_of(worded[0], [_without_history(window) for window in asked])
        return _titles_and_odds(model, reader, material, bare)[0]

    items = np.concatenate([window.items for window in asked])
    chosen = torch.from_numpy(np.concatenate([window.chosen for window in asked]))
    loss, target, tokens = torch.zeros(()), None, 0
    for templates in worded:
        groups = groups_of(templates, asked)
        titles, lengths, odds = _titles_and_odds(model, reader, material, groups)
        target = own_odds(titles, items, material, alone) if target is None else target
        loss = loss - titles[chosen].sum() / lengths[chosen].sum() + self_taught(odds, target, chosen, bits)
        tokens += sum(group.tokens for group in groups)
    return loss, tokens


def _without_history(shown: Window) -> Window:
    return replace(shown, history=shown.history[:0])


def _titles_and_odds(
    model: PreTrainedModel, reader: Reader, material: Material, groups: Sequence[Group]
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability of the title in every question, its tokens, and the odds of yes behind it.

    Args:
        model: the model.
        reader: makes its questions.
        material: whose label words the odds are of.
        groups: questions: start token, title and cue.

    Returns:
        Three tensors of shape ``[questions]``.
    """
    sequences = [suffix for group in groups for suffix in group.suffixes]
    lengths = np.array([len(sequence) for sequence in sequences])
    states = decoder_states(model, groups, lengths.tolist())
    titles = title_likelihoods(model, states, sequences, behind=1)
    labels = [reader.label(word, in_decoder=True)[0] for word in material.templates[0].labels]
    odds = word_odds(model, states[torch.from_numpy(np.cumsum(lengths) - 1)], labels)
    return titles, torch.from_numpy(lengths - 2), odds
