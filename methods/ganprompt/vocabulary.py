"""Attributes that an embedded backbone has no word for."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.random import generator


def learn_words(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> int:
    """Give words that the tokenizer does not know a token of their own; returns how many.

    An embedded backbone knows the words of its data set's titles and templates only: without this, all attributes
    it does not know would be one token. Their embeddings are random, of the size of the others, and the same draw for
    every seed. Tokenizers of the hub spell what they do not know, and nothing happens.
    """
    from tokenizers import AddedToken

    unknown = [w for w in words if tokenizer.unk_token_id in tokenizer(w, add_special_tokens=False)["input_ids"]]
    if not unknown:
        return 0
    tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=False) for word in unknown])
    old: Any = model.get_input_embeddings().weight
    before, spread = len(old), float(old.detach().float().std())
    size = max(before, len(tokenizer))
    rows = spread * generator("ganprompt words").standard_normal((size - before, old.shape[1]))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model.resize_token_embeddings(size, mean_resizing=False)
        new: Any = model.get_input_embeddings().weight
        new[before:] = torch.from_numpy(rows).to(new)
    return len(unknown)
