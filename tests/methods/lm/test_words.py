"""The word tokenizer."""

import string

from hypothesis import given, settings
from hypothesis import strategies as st

from data.dataset import Domain
from data.prompts.template import Template, parse
from methods.lm.prompts import Encoder
from methods.lm.words import word_tokenizer
from tests.methods.lm.small import make_tokenizer

TOKENIZER = make_tokenizer()
TEXT = st.text(alphabet=string.ascii_letters + string.digits + " .,;:?!'()[]-_\né̂", max_size=30)


def test_known_words_are_one_token_and_symbols_stand_alone():
    assert TOKENIZER.tokenize("Is Red Space right?") == ["Is", "Red", "Space", "right", "?"]


def test_line_breaks_are_kept():
    assert TOKENIZER.tokenize("Red\nBlue") == ["Red", "\n", "Blue"]


def test_further_forms_of_a_known_word_are_the_word_and_an_ending():
    assert TOKENIZER.tokenize("Reds") == ["Red", "##s"]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=50) | st.sampled_from(["मेरा नाम जोकर", "ต้มยำกุ้ง", "cafe\u0301 H₂O"]))
def test_every_word_of_the_texts_is_known_in_any_script(text):
    tokenizer = word_tokenizer([text], 512)
    assert tokenizer.unk_token not in tokenizer.tokenize(text)


def test_another_word_is_one_unknown_token():
    assert TOKENIZER.tokenize("Spaec Red") == [TOKENIZER.unk_token, "Red"]


def test_a_prompt_starts_with_the_start_token_and_ends_open():
    ids = TOKENIZER("Red")["input_ids"]
    assert ids[0] == TOKENIZER.bos_token_id and ids[-1] != TOKENIZER.eos_token_id


@settings(max_examples=300, deadline=None)
@given(TEXT, TEXT, TEXT, st.lists(TEXT, min_size=1, max_size=3))
def test_pieces_give_the_tokens_of_the_whole_prompt(before, between, after, values):
    text = f"{before}{{target}}{between}{{target}}{after}"
    prompt = Template("t", "recommend", "seen", parse(text)).fill(Domain(), {})
    whole = Encoder(TOKENIZER, 512, local=False).filled(prompt, "target", values)
    assert Encoder(TOKENIZER, 512, local=True).filled(prompt, "target", values) == whole


def test_values_are_remembered_and_nothing_of_a_user():
    encoder = Encoder(TOKENIZER, 512, local=True)
    template = Template("t", "recommend", "seen", parse("Is {target} right after {history}?"))
    for history in (["Red Night"], ["Blue Day"]):
        encoder.fitting(template, Domain(), history, ["Iron Space", "Gold Love"])
    assert set(encoder._pieces) == {"Iron Space", "Gold Love"}
