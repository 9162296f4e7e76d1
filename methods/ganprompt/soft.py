"""The decoder-only variant: encoder states, projected, are soft prompts of another language model.

Source: the paper's section 3.3, sigma(W E + b). The target stands behind the soft prompt, as in its formula.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from data.dataset import Catalogue
from data.prompts.template import Template
from data.types import FloatArray, IntArray
from methods.base import Requests
from methods.ganprompt.stage2 import Contrast, EncDecAnswers, contrasted
from methods.ganprompt.training import Example
from methods.lm.backbone import Backbone
from methods.lm.encdec import CUE, Reader
from methods.lm.forward import padded, remembered
from methods.lm.layout import Group
from methods.lm.lora import Lora, add_lora, inner, merged
from methods.lm.prompts import as_ids
from methods.lm.scoring import check_scores, in_chunks
from methods.lm.t5 import encoded
from methods.lm.tuning import Part

QUESTIONS = 256
"""Questions per forward pass in scoring."""


class Projection(nn.Module):
    """tanh(W e + b), from encoder states to token embeddings.

    The paper does not say what its sigma is. tanh has both signs, as embeddings have; W starts so that the soft
    embeddings are of the size of the decoder's own. It learns in single precision, whatever the models have.

    Args:
        norm: weights of the last layer norm of the encoder, whose root mean square is that of its states,
            shape ``[size]``.
        embeddings: of the decoder's words, as it reads them, shape ``[words, width]``.
        seed: of the first weights.
    """

    def __init__(self, norm: Tensor, embeddings: Tensor, seed: int) -> None:
        super().__init__()
        size = float(norm.float().square().sum().sqrt())
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            self.linear = nn.Linear(len(norm), embeddings.shape[1])
            self.linear.weight.normal_(std=float(embeddings.float().std()) / size)
            self.linear.bias.zero_()
        self.to(embeddings.device)

    def forward(self, states: Tensor) -> Tensor:
        """Soft embeddings ``[..., width]`` of encoder states ``[..., size]``."""
        soft: Tensor = torch.tanh(self.linear(states.to(self.linear.weight)))
        return soft


@dataclass
class SoftAnswers:
    """A decoder-only model behind the encoder of another.

    Args:
        own: the encoder-decoder whose encoder reads the prompt.
        decoder: the language model that answers.
        lora: its adapters.
        seed: of adapters and projection.
        projection_rate: learning rate of the projection, which begins untaught whatever the decoder knows.
        tokens: tokens computed in training, those of ``own`` counted.
    """

    own: EncDecAnswers
    decoder: Backbone
    lora: Lora
    seed: int
    projection_rate: float
    tokens: int = field(init=False)
    _questions: dict[str, IntArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tokens = self.own.tokens
        self._adapted = add_lora(self.decoder.model, self.lora, self.seed).eval()
        self._model = inner(self._adapted)
        self._encoder = self.decoder.encoder()
        self._start = as_ids(self._encoder.encode([""])[0])
        norm: Any = self.own.model.get_encoder().final_layer_norm.weight
        words: Any = self._model.get_input_embeddings()
        with torch.no_grad():
            read = self._embedded(np.arange(words.num_embeddings))
        self._projection = Projection(norm.detach(), read, self.seed)

    def _embedded(self, ids: IntArray) -> Tensor:
        """Embeddings of token ids as the decoder reads them, which some models scale, shape ``[ids, width]``."""
        words: Any = self._model.get_input_embeddings()
        return words(torch.as_tensor(ids, device=self._model.device))  # type: ignore[no-any-return]

    def parts(self) -> list[Part]:
        """Adapters and projection."""
        adapters = tuple(p for p in self._model.parameters() if p.requires_grad)
        projection = Part(self._projection, tuple(self._projection.parameters()), self.projection_rate)
        return [Part(self._model, adapters), projection]

    def finish(self) -> None:
        """Add the adapters to the weights."""
        self._model = merged(self._adapted)

    def odds(self, batch: Sequence[Example]) -> Tensor:
        """Log-odds of the label words for every item of every example."""
        asked = [(e.template, e.shown.history, e.shown.items) for e in batch]
        groups, words = self._groups(asked, self.own.catalogue)
        # the prompt is read by both models
        self.tokens += sum(len(self._start) + len(group.prefix) + group.tokens for group in groups)
        return contrasted(self._model, self._states(groups), words)

    def score(self, requests: Requests) -> FloatArray:
        """Log-odds for every candidate, shape ``[rows, candidates]``."""
        templates = requests.templates["recommend"]
        scores = np.empty(requests.candidates.shape)

        def ask(rows: list[int]) -> tuple[list[Group], list[Contrast]]:
            asked = [(templates[row], requests.histories[row], requests.candidates[row]) for row in rows]
            return self._groups(asked, requests.catalogue)

        for rows, (groups, words) in in_chunks(len(requests), ask):
            with torch.inference_mode():
                odds = contrasted(self._model, self._states(groups, self.own.batch_size or QUESTIONS), words)
            scores[rows] = odds.cpu().numpy().reshape(len(rows), -1)
        check_scores(scores, requests, "recommend")
        return scores

    def _groups(
        self, asked: Sequence[tuple[Template, IntArray, IntArray]], catalogue: Catalogue
    ) -> tuple[list[Group], list[Contrast]]:
        """What the encoder and, behind it, the decoder read of template, history and items; and the label words."""
        groups, words = [], []
        for template, history, items in asked:
            word = Contrast.of(*(self._encoder.word(label, CUE) for label in template.labels))
            titles = [catalogue.named(some) for some in (history, items)]
            questions = tuple(as_ids([*self._question(title), *word.shared]) for title in titles[1])
            reader = self._reader(room=len(self._start) + max(map(len, questions)))
            groups.append(Group(reader.prompt(template, catalogue.domain, titles[0]), questions))
            self.own.encoder.shortened = reader.encoder.shortened
            words += [word] * len(questions)
        return groups, words

    def _reader(self, room: int) -> Reader:
        """Makes prompts that leave room for start tokens and questions in the decoder's window."""
        window = min(self.own.encoder.window, self.decoder.window - room)
        return replace(self.own.reader, encoder=replace(self.own.encoder, window=window))

    def _question(self, title: str) -> IntArray:
        if title not in self._questions:
            self._questions[title] = as_ids(self._encoder.encode([title + CUE])[0][len(self._start) :])
        return self._questions[title]

    def _states(self, groups: Sequence[Group], most: int | None = None) -> Tensor:
        """Last hidden state behind every question, ``most`` per forward pass, shape ``[questions, width]``."""
        states, mask = encoded(self.own.model, [group.prefix for group in groups])
        soft = self._projection(states).to(self._model.dtype)
        start, lengths = self._embedded(self._start), mask.sum(1).tolist()
        read = [torch.cat([start, own[:length]]) for own, length in zip(soft, lengths, strict=True)]
        return torch.cat([self._behind(own, g.suffixes, most) for own, g in zip(read, groups, strict=True)])

    def _behind(self, soft: Tensor, questions: Sequence[IntArray], most: int | None) -> Tensor:
        """States behind the questions of one group: the soft prompt is computed once for all of them."""
        past = DynamicCache(config=self._model.config)
        remembered(self._model.base_model, past, inputs_embeds=soft[None])
        parts = [questions[start : start + most] for start in range(0, len(questions), most)] if most else [questions]
        # Reading a part uses its cache up: all but the last get a copy. With gradients there is one part, and no copy.
        caches = chain((deepcopy(past) for _ in parts[1:]), [past])
        return torch.cat([self._read(len(soft), cache, part) for cache, part in zip(caches, parts, strict=True)])

    def _read(self, behind: int, past: DynamicCache, questions: Sequence[IntArray]) -> Tensor:
        """States of questions ``behind`` so many tokens, whose cache is used up."""
        ids, mask = padded(questions, self._model.device)
        past.batch_repeat_interleave(len(ids))
        states = remembered(
            self._model.base_model,
            past,
            input_ids=ids,
            attention_mask=torch.cat([mask.new_ones(len(ids), behind), mask], dim=1),
            position_ids=torch.arange(behind, behind + ids.shape[1], device=ids.device)[None],
        )
        return states[torch.arange(len(ids), device=ids.device), mask.sum(1) - 1]
