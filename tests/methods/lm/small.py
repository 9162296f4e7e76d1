"""Small language models in the hub's format, and a small world with an obvious pattern."""

from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from data.dataset import Catalogue, Domain
from data.histories import Histories
from data.prompts.template import Template, parse
from methods.base import Compute, Requests, Task
from methods.lm.words import word_tokenizer

WORDS = [
    "Red",
    "Blue",
    "Green",
    "Black",
    "White",
    "Gold",
    "Iron",
    "Stone",
    "River",
    "Night",
    "Day",
    "Winter",
    "Summer",
    "Silent",
    "Last",
    "First",
]
TEMPLATES = (
    Template(
        "last",
        "recommend",
        "seen",
        parse("They {consumed} {history}. Will they {consume} {target} next? Answer:"),
    ),
    Template("first", "recommend", "seen", parse("Is {target} the next choice after {history}?")),
    Template(
        "twice",
        "recommend",
        "seen",
        parse("{history}; then {target}. Is {target} right, {positive} or {negative}:"),
    ),
)
FAMILIES = ("llama", "qwen2", "qwen3", "gpt2")
OTHERS = {"mistral": {"sliding_window": None}, "gemma": {"head_dim": 8}, "phi3": {}}


def make_task(cache: Path, users: int = 60, seed: int = 0, **compute: object) -> Task:
    """Users who choose only space films or only love films; titles say which."""
    rng = np.random.default_rng(seed)
    titles = tuple(f"{word} {kind}" for kind in ("Space", "Love") for word in WORDS)
    half = len(WORDS)
    taste = np.arange(users) % 2
    rows = [rng.permutation(half)[:9] + half * t for t in taste.tolist()]
    catalogue = Catalogue(
        "two-tastes",
        tuple(f"u{user}" for user in range(users)),
        tuple(f"i{item}" for item in range(2 * half)),
        titles,
        domain=Domain("movie", "movies", "watch", "watched", "watching", "viewer"),
    )
    positive = rng.integers(6, size=users)
    candidates = np.stack([rng.permutation(half)[:6] + half * (1 - t) for t in taste.tolist()])
    candidates[np.arange(users), positive] = [row[-1] for row in rows]
    train = Histories.of(row[:-1] for row in rows)
    worded = {"recommend": tuple(TEMPLATES[user % len(TEMPLATES)] for user in range(users))}
    valid = Requests(np.arange(users), train.last(5), candidates, catalogue, worded)
    settings = Compute(cache=cache, **compute)
    return Task(catalogue, train, valid, positive, {"recommend": TEMPLATES}, 5, settings)


def make_model(family: str, vocabulary: int, positions: int = 256) -> PreTrainedModel:
    """A random model of a family, in evaluation mode."""
    sizes = {"vocab_size": vocabulary, "max_position_embeddings": positions}
    wide = {**sizes, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    torch.manual_seed(0)
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**wide, **heads)).eval()
    if family == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**wide, **heads)).eval()
    if family == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**wide, **heads, head_dim=8)).eval()
    if family in OTHERS:
        config = AutoConfig.for_model(family, **wide, **heads, **OTHERS[family], pad_token_id=0)
        return AutoModelForCausalLM.from_config(config).eval()
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=positions, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2
    )
    return GPT2LMHeadModel(config).eval()


def make_tokenizer(window: int = 256) -> PreTrainedTokenizerFast:
    words = ["Yes No Alien Answer", *(f"{word} Space Love" for word in WORDS), *(t.source for t in TEMPLATES)]
    return word_tokenizer(words, window)
