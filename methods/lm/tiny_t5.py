"""The embedded encoder-decoder backbone: a small T5 made and trained on the spot."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data.dataset import Catalogue
from data.histories import Histories
from data.prompts.template import Part, Role, Slot, Template, Wording
from data.random import generator
from methods.lm.attention import Group
from methods.lm.encdec import BLANK, Reader
from methods.lm.encdec_questions import decoded_questions, encoded_questions, next_titles
from methods.lm.prompts import Encoder
from methods.lm.questions import Sampling, Window, pick, windows
from methods.lm.t5 import answer_losses
from methods.lm.tiny import texts
from methods.lm.tuning import warmup_cosine
from methods.lm.word_vectors import word_vectors
from methods.lm.words import word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class TinyT5:
    """A T5 of about 1 M parameters, trained on the training part of a data set.

    The encoder reads a history, alone or in a seen template. Behind every such prompt the decoder writes,
    each on its own, the titles that were chosen next: that is dense, and all it needs has to come through the
    encoder. Later it is also asked whether titles come next, with the title in the decoder and in the encoder.

    Args:
        steps: optimiser steps.
        layers: layers of the encoder and of the decoder.
        width: size of the hidden states.
        inner: size of the feed-forward layers.
        heads: attention heads.
        spread: standard deviation of the first embeddings.
        branch: factor of the first weights at the end of every residual branch.
        window: longest sequence.
        prompts: histories per step.
        short: share of the prompts without the words of a template.
        ahead: titles written after each history.
        writing: share of the steps before the first question.
        negatives: titles asked about beside those chosen next.
        popular: share of them drawn as often as they are chosen.
        questions: questions per step with the title in the encoder.
        weight: weight of the loss of each kind of questions beside that of the titles.
        rate: highest learning rate.
        warmup: share of the steps in which the rate rises.
        decay: weight decay.
        seed: seed of the weights and of what is drawn.
    """

    steps: int = 700
    layers: int = 2
    width: int = 128
    inner: int = 256
    heads: int = 4
    spread: float = 0.06
    branch: float = 0.2
    window: int = 512
    prompts: int = 12
    short: float = 0.5
    ahead: int = 8
    writing: float = 0.4
    negatives: int = 8
    popular: float = 0.25
    questions: int = 0
    weight: float = 0.5
    rate: float = 4e-3
    warmup: float = 0.05
    decay: float = 0.05
    seed: int = 0


def train_tiny_t5(
    recipe: TinyT5, catalogue: Catalogue, train: Histories, templates: Mapping[Role, Sequence[Template]]
) -> tuple["PreTrainedModel", "PreTrainedTokenizerFast", int]:
    """Make and train the backbone; returns model, tokenizer and the number of tokens seen."""
    words = texts(catalogue, train, [t for role in sorted(templates) for t in templates[role]])
    tokenizer = word_tokenizer([*words, BLANK], recipe.window)
    end_texts(tokenizer)
    model = make_tiny_t5(recipe, tokenizer)
    known = set(train.items.tolist())
    titles = [title if item in known else "" for item, title in enumerate(catalogue.titles)]
    tokens = tokenizer(titles, add_special_tokens=False)["input_ids"]
    start_embeddings(model, word_vectors(tokens, train, len(tokenizer), recipe.width), recipe.spread)
    reader = Reader.of(model, Encoder(tokenizer, recipe.window, local=True))
    seen = _optimise(model, recipe, _steps(recipe, reader, catalogue, train, templates["recommend"]))
    return model.eval(), tokenizer, seen


def end_texts(tokenizer: "PreTrainedTokenizerFast") -> None:
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


def make_tiny_t5(recipe: TinyT5, tokenizer: "PreTrainedTokenizerFast") -> "PreTrainedModel":
    """The untrained model.

    T5's initialiser, with embeddings of size 1, is made for an optimiser whose steps grow with the weights;
    with Adam such embeddings never move. Here they start small. The decoder's last layer norm takes back the
    division by the root of the width before the output layer, so that logits are of order one at first; and
    residual branches start small, so that what words mean is not drowned before the branches are any use.
    """
    from transformers import T5Config, T5ForConditionalGeneration

    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "d_model": recipe.width,
        "d_kv": recipe.width // recipe.heads,
        "d_ff": recipe.inner,
        "num_layers": recipe.layers,
        "num_heads": recipe.heads,
        "n_positions": recipe.window,
    }
    config = T5Config(
        **sizes,
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


def start_embeddings(model: "PreTrainedModel", vectors: np.ndarray, spread: float) -> None:
    """Put the vectors, scaled, in place of the embeddings of all words that have one."""
    found = torch.from_numpy(np.flatnonzero(vectors.any(axis=1)))
    layer: Any = model.get_input_embeddings()
    with torch.no_grad():
        layer.weight[found] = spread * torch.from_numpy(vectors).to(layer.weight.dtype)[found]


HISTORY = (Slot("history"),)
QUESTION = (Slot("history"), Wording(". "), Slot("target"))
"""The shortest prompts there are, with the title in the decoder and in the encoder."""

TITLE, DECODED, ENCODED = range(3)
"""Kinds of tokens learnt: those of titles, and labels with the title in the decoder and in the encoder."""


@dataclass(frozen=True)
class Step:
    """What one optimiser step learns from.

    Args:
        groups: prompts and decoder sequences.
        kinds: kind of each learnt token at the end of every sequence.
    """

    groups: tuple[Group, ...]
    kinds: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """Number of tokens computed."""
        return sum(group.tokens for group in self.groups)


def _steps(
    recipe: TinyT5, reader: Reader, catalogue: Catalogue, train: Histories, templates: Sequence[Template]
) -> Iterator[Step]:
    rng = generator(recipe.seed, "tiny-t5")
    many = windows(train, Sampling(positives=recipe.ahead, negatives=recipe.negatives, popular=recipe.popular), rng)
    single = windows(train, Sampling(), rng)
    for step in range(recipe.steps):
        late = step >= recipe.writing * recipe.steps
        worded = _worded(recipe, templates, recipe.prompts, HISTORY, rng)
        parts = [_behind_one_prompt(reader, catalogue, template, next(many), late) for template in worded]
        for template in _worded(recipe, templates, recipe.questions // 2 if late else 0, QUESTION, rng):
            asked = encoded_questions(reader, catalogue, template, next(single))
            parts += [(one.group, [(ENCODED,) * one.answers[0]]) for one in asked]
        yield Step(tuple(group for group, _ in parts), tuple(kinds for _, part in parts for kinds in part))


def _worded(
    recipe: TinyT5, templates: Sequence[Template], count: int, bare: tuple[Part, ...], rng: np.random.Generator
) -> list[Template]:
    """So many templates, some of which have only their most necessary parts."""
    worded = [pick(templates, rng) for _ in range(count)]
    short = round(recipe.short * count)
    return [replace(template, parts=bare) for template in worded[:short]] + worded[short:]


def _behind_one_prompt(
    reader: Reader, catalogue: Catalogue, template: Template, shown: Window, asked: bool
) -> tuple[Group, list[tuple[int, ...]]]:
    """The titles chosen next, and, if asked, whether they are, together with titles that are not."""
    if not asked:
        titles = next_titles(reader, catalogue, template, shown)
        return titles.group, [(TITLE,) * count for count in titles.answers]
    questions = decoded_questions(reader, catalogue, template, shown)
    before = 1 + len(reader.lead)
    kinds = []
    for suffix, count, chosen in zip(questions.group.suffixes, questions.answers, shown.chosen.tolist(), strict=True):
        written = chosen * (len(suffix) - before - count)
        kinds.append((TITLE,) * written + (DECODED,) * count)
    return questions.group, kinds


def _optimise(model: "PreTrainedModel", recipe: TinyT5, steps: Iterator[Step]) -> int:
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, warmup_cosine(recipe.steps, recipe.warmup))
    model.train()
    tokens = 0
    for step in tqdm(steps, total=recipe.steps, desc="training tiny-t5", unit="step"):
        _loss(model, step, recipe.weight).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        tokens += step.tokens
    return tokens


def _loss(model: "PreTrainedModel", step: Step, weight: float) -> Tensor:
    """Mean over the tokens of titles, and ``weight`` times the mean over each kind of labels."""
    each = answer_losses(model, step.groups, [len(kinds) for kinds in step.kinds])
    kinds = torch.tensor([kind for sequence in step.kinds for kind in sequence])
    loss = each[kinds == TITLE].mean()
    for kind in (DECODED, ENCODED):
        if (kinds == kind).any():
            loss = loss + weight * each[kinds == kind].mean()
    return loss
