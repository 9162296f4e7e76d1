"""Attributes without a word get one; a tokenizer that knows them is left alone."""

import torch

from methods.ganprompt.vocabulary import learn_words
from tests.methods.ganprompt.world import model, tokenizer


def test_unknown_attributes_become_different_tokens_and_nothing_else_changes() -> None:
    words = tokenizer()
    encoder_decoder = model(len(words))
    text = "Red Space. People look for plot."
    known, before = words(text)["input_ids"], encoder_decoder.get_input_embeddings().weight.detach().clone()
    assert learn_words(encoder_decoder, words, ["plot", "zeitgeist", "pretend play"]) == 2
    weight = encoder_decoder.get_input_embeddings().weight
    assert len(weight) == len(before) + 2 and torch.equal(weight[: len(before)], before)
    assert 0.5 < float(weight[len(before) :].std() / before.std()) < 1.5
    assert words(text)["input_ids"] == known
    first, second = (words(word, add_special_tokens=False)["input_ids"] for word in ("zeitgeist", "pretend play"))
    assert len(first) == len(second) == 1 and first != second
    assert words.unk_token_id not in words("for zeitgeist.")["input_ids"]


def test_the_new_words_are_the_same_every_time_and_the_global_state_is_left_alone() -> None:
    torch.manual_seed(3)
    made = [model(len(tokenizer())) for _ in range(2)]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    for one in made:
        learn_words(one, tokenizer(), ["zeitgeist"])
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(made[0].get_input_embeddings().weight, made[1].get_input_embeddings().weight)


def test_known_words_change_nothing() -> None:
    words = tokenizer()
    encoder_decoder = model(len(words))
    assert learn_words(encoder_decoder, words, ["plot", "cast"]) == 0
    assert len(encoder_decoder.get_input_embeddings().weight) == len(tokenizer())
