"""The five attributes of a data set: what most of its users seem to look for.

The paper's template is filled with a user's history, and a source says what fits in the place of the attribute. The
five most frequent fillings are the attributes of the data set (section 3.2). The paper's source is BERT.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from data.dataset import CATEGORY_FIELDS, SPACED_FIELDS, Catalogue
from data.fingerprint import fingerprint
from data.prompts.template import Prompt, Template
from data.random import generator
from methods.base import NotRunnable, Requests, Task
from methods.ganprompt.choices import AttributeSource
from methods.lm.answers import LlmError
from methods.lm.client import LlmClient, NotAnswered
from methods.lm.open import LlmChoice, open_client
from methods.lm.sentences import SentenceEncoder
from methods.lm.store import Store

log = logging.getLogger(__name__)
SEPARATORS = r"[,>|;/]"
GENERAL = (
    "brand",
    "price",
    "quality",
    "design",
    "style",
    "size",
    "colour",
    "material",
    "features",
    "durability",
    "popularity",
    "reviews",
    "age",
    "plot",
    "director",
    "cast",
    "characters",
    "soundtrack",
    "language",
    "release date",
)
"""Ours, beside the data set's own categories."""
FILLERS = frozenset(
    {"and", "any", "for", "its", "some", "that", "the", "their", "them", "these", "this", "those", "what"}
)
"""Frequent words that are no attributes; shorter ones are none anyway."""


class Source(Protocol):
    """Fills in attributes."""

    @property
    def identity(self) -> str:
        """All that its fillings depend on, for the cache; empty where they are not to be kept there."""
        ...

    def fill(self, prompts: Sequence[Prompt]) -> list[list[str]]:
        """Fillings of the open slot ``{attribute}`` of every prompt, the best one first; empty if there is none.

        Raises:
            NotRunnable: if the model it needs is not there.
        """
        ...


@dataclass(frozen=True)
class LexiconSource:
    """Ranks a lexicon by the similarity of each word to the prompt, in the space of a sentence encoder (ours).

    Args:
        words: to choose from.
        encoder: texts to vectors.
    """

    words: tuple[str, ...]
    encoder: SentenceEncoder

    @property
    def identity(self) -> str:
        """Words and encoder."""
        return fingerprint("lexicon", self.words, self.encoder.model, self.encoder.revision)

    def fill(self, prompts: Sequence[Prompt]) -> list[list[str]]:
        """The whole lexicon for every prompt, words alike the prompt first."""
        texts = self.encoder.encode([prompt.prefix.rstrip() for prompt in prompts])
        similarity = texts @ self.encoder.encode(self.words).T
        return [[self.words[n] for n in row] for row in np.argsort(-similarity, axis=1, kind="stable").tolist()]


@dataclass(frozen=True)
class MaskedSource:
    """A masked language model, as in the paper.

    Args:
        model: Hugging Face id or local folder.
        device: torch device.
        batch: prompts per forward pass.
        depth: fillings per prompt.
    """

    model: str
    device: str = "cpu"
    batch: int = 16
    depth: int = 10

    @property
    def identity(self) -> str:
        """The model; what is in a local folder may change."""
        return "" if Path(self.model).exists() else fingerprint("masked", self.model, self.depth)

    def fill(self, prompts: Sequence[Prompt]) -> list[list[str]]:
        """The most probable words in place of the mask."""
        import torch
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        from methods.lm.hub import load_model, load_part, source_of

        source, what = source_of(self.model), "masked language model"
        tokenizer = load_part(AutoTokenizer, self.model, source, what)
        model = load_model(AutoModelForMaskedLM, self.model, source, what).to(self.device).eval()
        if tokenizer.mask_token is None:
            raise NotRunnable(f"{self.model!r} has no mask token: attribute_model takes a masked language model")
        words = whole_words(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))))
        names = list(words.values())
        texts = [prompt.with_value("attribute", tokenizer.mask_token).text for prompt in prompts]
        found: list[list[str]] = []
        tokenizer.truncation_side = "left"  # the mask stands at the end
        for start in range(0, len(texts), self.batch):
            inputs = tokenizer(texts[start : start + self.batch], padding=True, truncation=True, return_tensors="pt")
            inputs = inputs.to(self.device)
            with torch.inference_mode():
                logits = model(**inputs).logits[inputs["input_ids"] == tokenizer.mask_token_id][:, list(words)]
            best = logits.topk(min(self.depth, len(words))).indices.tolist()
            found += [list(dict.fromkeys(names[n] for n in row)) for row in best]  # cased models know words twice
        return found


@dataclass(frozen=True)
class LlmSource:
    """A language model that goes on where the prompt ends, behind the response cache.

    Args:
        client: whom to ask.
        words: attributes that are looked for in its answers first.
    """

    client: LlmClient
    words: tuple[str, ...]
    identity = ""

    def fill(self, prompts: Sequence[Prompt]) -> list[list[str]]:
        """The attribute that every answer names."""
        try:
            answers = self.client.ask([prompt.prefix.rstrip() for prompt in prompts], what="attributes")
        except NotAnswered as error:
            raise NotRunnable(f"{error}; {HOW_TO_FILL}") from error
        return [named(answer or "", self.words) for answer in answers]


HOW_TO_FILL = (
    "to have a language model name attributes: OPENAI_BASE_URL=... OPENAI_API_KEY=... python -m benchmarks.run "
    "--methods ganprompt --set ganprompt.attributes=llm --llm endpoint:MODEL"
)


def open_source(task: Task, kind: AttributeSource, model: str, choice: LlmChoice) -> Source:
    """The source of a kind.

    Args:
        task: whose attributes are wanted.
        kind: ``lexicon``, ``llm`` or ``masked``.
        model: masked language model; BERT if empty.
        choice: language model for ``llm``.

    Raises:
        NotRunnable: if nobody would answer.
    """
    compute = task.compute
    if kind == "masked":
        return MaskedSource(model or "bert-base-uncased", compute.device)
    if kind == "lexicon":
        return LexiconSource(
            lexicon(task.catalogue), SentenceEncoder(device=compute.device, cache=compute.cache / "embeddings")
        )
    try:
        client = open_client(choice, task.catalogue.name, compute)
    except LlmError as error:
        raise NotRunnable(f"{error}; {HOW_TO_FILL}") from error
    return LlmSource(client, lexicon(task.catalogue))


def lexicon(catalogue: Catalogue, most: int = 60, everywhere: float = 0.9) -> tuple[str, ...]:
    """The most frequent categories of a data set's items, and general attributes.

    A category that more than ``everywhere`` of the items have tells no user from another, and is left out.
    """
    fields = {name: catalogue.fields[name] for name in CATEGORY_FIELDS if name in catalogue.fields}
    texts = zip(*(_separated(name, column) for name, column in fields.items()), strict=True)
    parts = (dict.fromkeys(part.strip().lower() for part in re.split(SEPARATORS, ",".join(item))) for item in texts)
    counts = Counter(part for item in parts for part in item if part)
    frequent = [word for word, count in counts.most_common(most) if count <= everywhere * catalogue.n_items]
    return tuple(dict.fromkeys([*frequent, *GENERAL]))


def _separated(name: str, texts: Sequence[str]) -> Sequence[str]:
    """Texts of a field with separators between the categories."""
    spaced = name in SPACED_FIELDS and not any(re.search(SEPARATORS, text) for text in texts)
    return [",".join(text.split()) for text in texts] if spaced else texts


def prompts(task: Task, template: Template, users: int) -> list[Prompt]:
    """The template filled with the latest training items of some users who have any, the same for all seeds."""
    able = np.flatnonzero(task.train.lengths)
    rows = np.sort(able[generator("attribute users").permutation(len(able))[:users]])
    latest = task.train.select(rows).last(task.history_length)
    nothing = np.empty((len(rows), 0), np.int64)
    asked = Requests(rows, latest, nothing, task.catalogue, {"attribute": (template,) * len(rows)})
    return [asked.prompt("attribute", row) for row in range(len(rows))]


def attributes(task: Task, source: Source, asked: Sequence[Prompt], count: int) -> tuple[str, ...]:
    """The most frequent fillings, kept in the cache by source and prompts.

    Not so those of a language model, whose client keeps its answers, and of a model in a folder, which may change.

    Raises:
        NotRunnable: if the source finds fewer, or what it needs is not there.
    """
    names = _kept(task, source, asked, count) if source.identity else _found(source, asked, count)
    log.info("attributes of %s: %s", task.catalogue.name, ", ".join(names))
    return names


def _kept(task: Task, source: Source, asked: Sequence[Prompt], count: int) -> tuple[str, ...]:
    key = fingerprint(source.identity, [prompt.segments for prompt in asked], count)
    with closing(Store(task.compute.cache / "attributes.sqlite")) as store:
        if key not in store.get([key]):
            store.put({key: json.dumps(_found(source, asked, count)).encode()})
        return tuple(json.loads(store.get([key])[key]))


def _found(source: Source, asked: Sequence[Prompt], count: int) -> tuple[str, ...]:
    found = most_frequent(source.fill(asked), count)
    if len(found) < count:
        names = f"{', '.join(found)}; lower the setting count" if found else "none"
        raise NotRunnable(f"{len(found)} attributes found, {count} are needed: {names}")
    return tuple(found)


def most_frequent(fillings: Sequence[Sequence[str]], count: int) -> list[str]:
    """The fillings that are the best one of most prompts; where too few ever are, those that come next.

    Ties are broken by the mean place in the lists, then by the alphabet.

    >>> most_frequent([["plot", "cast"], ["plot", "price"], ["cast", "price"]], 2)
    ['plot', 'cast']
    """
    first = Counter(words[0] for words in fillings if words)
    places: dict[str, list[int]] = {}
    for words in fillings:
        for place, word in enumerate(words):
            places.setdefault(word, []).append(place)
    longest = max(map(len, fillings), default=0)

    def order(word: str) -> tuple[float, float, str]:
        missing = len(fillings) - len(places[word])
        return -first[word], sum(places[word]) + missing * longest, word

    return sorted(places, key=order)[:count]


def named(answer: str, words: Sequence[str]) -> list[str]:
    """The first of the words that an answer holds; else the last one that could be an attribute, if there is one.

    Only what stands behind a last "focus on" counts, if anything does.

    >>> named("Based on the history, focus on the plot.", ["plot"]), named("Sure! Genre.", ["plot"])
    (['plot'], ['genre'])
    >>> named("As an AI language model, I would focus on the plot.", ["language", "plot"])
    ['plot']
    """
    text, longest_first = answer.lower(), sorted(words, key=len, reverse=True)
    text = re.split(r"focus(?:es|ing)? on(?=.*[a-z])", text, flags=re.DOTALL)[-1]
    found = re.search(rf"\b({'|'.join(map(re.escape, longest_first))})\b", text)
    return [found[0]] if found else list(filter(_is_word, re.findall(r"[a-z]+", text)))[-1:]


def whole_words(tokens: Sequence[str]) -> dict[int, str]:
    """Words that could be attributes, by token; where the vocabulary marks the beginnings of words, only those."""
    for mark in ("▁", "Ġ", ""):
        whole = {n: token.removeprefix(mark) for n, token in enumerate(tokens) if token.startswith(mark)}
        if words := {n: word.lower() for n, word in whole.items() if _is_word(word)}:
            return words
    return {}


def _is_word(token: str) -> bool:
    return token.isalpha() and len(token) > 2 and token.lower() not in FILLERS
