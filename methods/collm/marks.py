"""Marks: one more token for every user and item, whose embedding comes from a collaborative model.

A mark is a text like any other until the tokenizer makes its one id of it, so whatever words, cuts, shares or
batches prompts treats it as a word. The ids lie behind those the language model knows; the input embedding is
extended by them, and nothing else of the model changes.
"""

from dataclasses import replace

import torch
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.dataset import Catalogue
from data.prompts.template import Template, Wording
from methods.base import NotRunnable, Requests


def user_mark(user: int) -> str:
    """The mark of a user."""
    return f"<user {user}>"


def item_mark(item: int) -> str:
    """The mark of an item."""
    return f"<item {item}>"


def add_marks(tokenizer: PreTrainedTokenizerBase, catalogue: Catalogue) -> int:
    """Teach the tokenizer the marks of all users, then of all items; returns the first id, the others follow.

    Raises:
        NotRunnable: if the tokenizer knows one of them already.
    """
    marks = [*map(user_mark, range(catalogue.n_users)), *map(item_mark, range(catalogue.n_items))]
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in marks])
    vocabulary = tokenizer.get_vocab()
    first, *others = (int(vocabulary[mark]) for mark in marks)
    if others != list(range(first + 1, first + len(marks))):
        raise NotRunnable(f"the tokenizer knows some of the marks {marks[0]} to {marks[-1]} already")
    return first


def with_titles(catalogue: Catalogue) -> Catalogue:
    """The catalogue with every item twice: as it was, and with its mark right behind its title."""
    marked = (title + item_mark(item) for item, title in enumerate(catalogue.titles))
    return replace(catalogue, titles=(*catalogue.titles, *marked))


def for_user(template: Template, user: int) -> Template:
    """The template with the user's mark in front of its first word."""
    return replace(template, parts=(Wording(user_mark(user)), *template.parts))


def marked(requests: Requests) -> Requests:
    """The requests with a mark in front of every prompt, for its user, and one behind every candidate's title.

    Histories stay as they are. A title that stands in a prompt twice has its mark twice.
    """
    templates = {
        role: tuple(for_user(template, user) for template, user in zip(worded, requests.users.tolist(), strict=True))
        for role, worded in requests.templates.items()
    }
    catalogue, candidates = with_titles(requests.catalogue), requests.candidates + requests.catalogue.n_items
    return replace(requests, candidates=candidates, catalogue=catalogue, templates=templates)


class MarkedEmbedding(nn.Module):
    """The input embedding of a language model, and for marks what an MLP makes of collaborative vectors.

    Args:
        words: the model's own input embedding.
        first: id of the first mark.
        vectors: one collaborative vector per mark, shape ``[marks, size]``.
        hidden: width of the MLP.
    """

    def __init__(self, words: nn.Embedding, first: int, vectors: Tensor, hidden: int) -> None:
        super().__init__()
        self.words, self.first = words, first
        self.vectors: Tensor
        self.mean: Tensor
        self.register_buffer("vectors", vectors)
        self.mlp = nn.Sequential(nn.Linear(vectors.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, words.embedding_dim))
        # All marks begin as the mean word: no vector counts before step 2 has learnt what it says.
        with torch.no_grad():  # as the model reads them: some scale the weights
            read = words(torch.arange(words.num_embeddings, device=words.weight.device)).float()
        self.register_buffer("mean", read.mean(dim=0))
        self.scale = float(read.std())
        for parameter in self.mlp[2].parameters():
            nn.init.zeros_(parameter)

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings of token ids of any shape, shape ``[*ids.shape, width]``."""
        marks = ids >= self.first
        embedded: Tensor = self.words(ids.masked_fill(marks, 0))
        tokens = self.mean + self.mlp(self.vectors[ids[marks] - self.first]) * self.scale
        return embedded.index_put((marks,), tokens.to(embedded.dtype))


def extend(model: PreTrainedModel, first: int, vectors: Tensor, hidden: int, seed: int) -> None:
    """Freeze a model and let it read marks; what makes their embeddings is all of it that learns.

    Args:
        model: a decoder-only model.
        first: id of the first mark.
        vectors: one collaborative vector per mark, shape ``[marks, size]``.
        hidden: width of the MLP.
        seed: seed of the MLP.
    """
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words = model.get_input_embeddings()
        assert isinstance(words, nn.Embedding)
        embedding = MarkedEmbedding(words, first, vectors, hidden)
    model.set_input_embeddings(embedding.to(model.device))
