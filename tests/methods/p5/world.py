"""The small world of the language model tests, with prompts whose answer is a title, and small T5 models."""

from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from data.prompts.template import Template, parse
from methods.base import Task
from methods.lm.encdec import BLANK, SENTINEL
from methods.lm.words import word_tokenizer
from tests.methods.lm.small import TEMPLATES, WORDS, make_task

SEQUENTIAL = (
    Template("after", "sequential", "seen", parse("After {history} comes")),
    Template("then", "sequential", "seen", parse("They {consumed} {history}, then")),
)
CHOOSE = (Template("which", "choose", "seen", parse("After {history}, which of {candidates}?")),)


def make_titled_task(cache: Path, users: int = 60, seed: int = 0, **compute: object) -> Task:
    """Users who choose only space films or only love films, asked for titles."""
    task = make_task(cache, users, seed, **compute)
    worded = tuple(SEQUENTIAL[user % len(SEQUENTIAL)] for user in range(users))
    return replace(
        task,
        valid=replace(task.valid, templates={**task.valid.templates, "sequential": worded}),
        templates={**task.templates, "sequential": SEQUENTIAL, "choose": CHOOSE},
    )


def make_t5(vocabulary: int, seed: int = 0, **config: object) -> T5ForConditionalGeneration:
    """A random T5 in evaluation mode."""
    sizes = {"vocab_size": vocabulary, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    tokens = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 3, "initializer_factor": 0.9}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return T5ForConditionalGeneration(T5Config(**{**sizes, **tokens, **config})).eval()


def make_tokenizer(*more: str):
    texts = [*(t.source for t in (*TEMPLATES, *SEQUENTIAL, *CHOOSE)), *(f"{word} Space Love" for word in WORDS)]
    return word_tokenizer([f"Yes No Answer watched {BLANK}", *texts, *more], 256)


def save_pieces(folder: Path) -> Path:
    """A random T5 with a unigram tokenizer as T5's own: pieces, ``\u2581`` before words, sentinels, an end token."""
    texts = [*(f"{word} Space, {word} Love" for word in WORDS), *(t.source for t in (*TEMPLATES, *SEQUENTIAL, *CHOOSE))]
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>", SENTINEL]
    backend.train_from_iterator(
        texts, trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokens = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "extra_special_tokens": [SENTINEL]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=256, **tokens)
    make_t5(len(tokenizer), eos_token_id=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save(folder: Path, *more: str) -> Path:
    """A random T5 and its tokenizer, as the hub would have them."""
    tokenizer = make_tokenizer(*more)
    make_t5(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
