"""Encoder-decoder scores are those of a plain forward pass, prompt by prompt, whatever shortcut is taken."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration

from data.prompts.template import Template, parse
from methods.base import Requests
from methods.lm import encdec as module
from methods.lm.encdec import BLANK, SENTINEL, EncDecScorer, Reader
from methods.lm.encdec_questions import decoded_questions, encoded_questions, next_titles
from methods.lm.lora import Lora, add_lora, inner, merged
from methods.lm.prompts import Encoder, PromptError
from methods.lm.questions import Window
from methods.lm.scoring import ScoringError
from methods.lm.t5 import decoder_loss, decoder_states, pooled_states, supports_folding
from methods.lm.words import word_tokenizer
from tests.methods.lm.small import TEMPLATES, WORDS, make_model, make_task

KINDS = ("t5", "t5-v1.1", "mt5")
FORMS = ("label_odds", "decoded_odds")


def make_tokenizer(*more: str):
    words = [f"Yes No Answer {BLANK}", *(f"{word} Space Love" for word in WORDS), *(t.source for t in TEMPLATES)]
    return word_tokenizer([*words, *more], 256)


def make_t5(kind: str, vocabulary: int):
    sizes = {"vocab_size": vocabulary, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    tokens = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 3, "initializer_factor": 0.9}
    torch.manual_seed(0)
    if kind == "mt5":
        return MT5ForConditionalGeneration(MT5Config(**sizes, **tokens)).eval()
    more = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False} if kind == "t5-v1.1" else {}
    return T5ForConditionalGeneration(T5Config(**sizes, **tokens, **more)).eval()


@pytest.fixture
def requests(tmp_path) -> Requests:
    return make_task(tmp_path, users=7).valid


@pytest.fixture
def tokenizer():
    return make_tokenizer()


def scorer(tokenizer, kind: str = "t5", **settings) -> EncDecScorer:
    return EncDecScorer(make_t5(kind, len(tokenizer)), Encoder(tokenizer, 256, True), **settings)


def log_probability(model, tokenizer, text: str, read: str, answer: str) -> float:
    """Log-probability of the answer after what the decoder read: one plain forward pass over the one prompt."""
    prompt = tokenizer(text)["input_ids"]
    start = [model.config.decoder_start_token_id, *tokenizer(read, add_special_tokens=False)["input_ids"]]
    gold = tokenizer(answer, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([start + gold])).logits[0]
    logp = logits.log_softmax(-1)
    return sum(float(logp[len(start) - 1 + n, token]) for n, token in enumerate(gold))


def plain(requests: Requests, one) -> np.ndarray:
    """``one(row, title, fill)`` for every candidate; ``fill`` puts a target into the row's prompt."""
    scores = np.empty(requests.candidates.shape)
    for row, column in np.ndindex(*scores.shape):
        title = requests.catalogue.titles[requests.candidates[row, column]]
        prompt = requests.prompt("recommend", row)
        scores[row, column] = one(row, title, lambda target, p=prompt: p.with_value("target", target).text)
    return scores


def plain_odds(model, tokenizer, requests: Requests, form: str) -> np.ndarray:
    def one(row, title, fill):
        text, read = (fill(title), "") if form == "label_odds" else (fill(BLANK), f"{title}?")
        yes, no = (
            log_probability(model, tokenizer, text, read, word) for word in requests.templates["recommend"][row].labels
        )
        return yes - no

    return plain(requests, one)


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_odds_are_those_of_one_prompt_at_a_time(requests, tokenizer, kind, form, folded):
    scoring = scorer(tokenizer, kind, folded=folded)
    expected = plain_odds(scoring.model, tokenizer, requests, form)
    assert expected.std(axis=1).min() > 2e-3
    np.testing.assert_allclose(getattr(scoring, form)(requests, "recommend"), expected, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_labels_of_several_tokens_are_scored_whole_and_said_once(requests, tokenizer, form, caplog):
    template = replace(requests.templates["recommend"][0], labels=("Reds", "No"))
    requests = replace(requests, templates={"recommend": (template,) * len(requests)})
    scoring = scorer(tokenizer)
    with caplog.at_level(logging.WARNING):
        scores = getattr(scoring, form)(requests, "recommend")
        getattr(scoring, form)(requests, "recommend")
    assert caplog.text.count("scoring the whole words") == 1
    np.testing.assert_allclose(scores, plain_odds(scoring.model, tokenizer, requests, form), atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_label_words_the_tokenizer_does_not_know_are_refused(requests, tokenizer, form):
    template = replace(requests.templates["recommend"][0], labels=("Absolutely", "Never"))
    requests = replace(requests, templates={"recommend": (template,) * len(requests)})
    with pytest.raises(ScoringError, match="does not know the label words Absolutely and Never"):
        getattr(scorer(tokenizer), form)(requests, "recommend")


@pytest.mark.parametrize("folded", [True, False])
def test_title_likelihood_is_the_sum_over_the_tokens_of_the_title(requests, tokenizer, folded):
    scoring = scorer(tokenizer, folded=folded)
    blank = replace(requests, histories=requests.histories.last(0))

    def likelihood(shown):
        def one(row, title, _):
            text = shown.prompt("recommend", row).with_value("target", BLANK).text
            return log_probability(scoring.model, tokenizer, text, "", title)

        return plain(shown, one)

    expected, prior = likelihood(requests), likelihood(blank)
    length = plain(requests, lambda row, title, fill: len(tokenizer(title, add_special_tokens=False)["input_ids"]))
    score = scoring.title_likelihood
    np.testing.assert_allclose(score(requests, "recommend", normalised=False), expected, atol=1e-4)
    np.testing.assert_allclose(score(requests, "recommend"), expected / length, atol=1e-4)
    corrected = score(requests, "recommend", normalised=False, prior=0.5)
    np.testing.assert_allclose(corrected, expected - 0.5 * prior, atol=1e-4)


def test_pooling_is_the_mean_of_the_encoder_states(tokenizer):
    scoring = scorer(tokenizer)
    texts = ["Red Space, Blue Love", "Night", "Red Space, Blue Love"]
    vectors = scoring.pooled([scoring.reader.text(text) for text in texts])
    for text, vector in zip(texts, vectors, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            states = scoring.model.get_encoder()(input_ids=ids).last_hidden_state[0]
        np.testing.assert_allclose(vector, states.mean(0).numpy(), atol=1e-4)


def test_in_bfloat16_the_mean_is_not_rounded(tokenizer):
    model = make_t5("t5", len(tokenizer)).to(torch.bfloat16)
    prompt = np.resize(np.arange(5, 20), 301)  # bfloat16 has no 301
    with torch.inference_mode():
        states = model.get_encoder()(input_ids=torch.from_numpy(prompt[None])).last_hidden_state[0]
        torch.testing.assert_close(pooled_states(model, [prompt])[0], states.float().mean(0), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 5])
@pytest.mark.parametrize("form", [*FORMS, "title_likelihood"])
def test_batch_size_does_not_matter(requests, tokenizer, form, batch_size):
    expected = getattr(scorer(tokenizer), form)(requests, "recommend")
    again = getattr(scorer(tokenizer, batch_size=batch_size), form)(requests, "recommend")
    np.testing.assert_allclose(again, expected, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_workers_do_not_matter(requests, tokenizer, form):
    one, several = (getattr(scorer(tokenizer, batch_size=4, workers=n), form) for n in (1, 3))
    np.testing.assert_allclose(several(requests, "recommend"), one(requests, "recommend"), atol=1e-5)


def test_one_encoder_pass_serves_all_candidates_and_equal_prompts(requests, tokenizer, monkeypatch):
    scoring = scorer(tokenizer)
    twice = requests.select(np.array([0, 1, 0, 1]))
    seen = []
    encode = scoring.model.encoder.forward
    monkeypatch.setattr(
        scoring.model.encoder, "forward", lambda **inputs: seen.append(len(inputs["input_ids"])) or encode(**inputs)
    )
    scoring.decoded_odds(twice, "recommend")
    assert sum(seen) == 2
    seen.clear()
    scoring.label_odds(twice, "recommend")
    assert sum(seen) == 2 * twice.candidates.shape[1]


def test_t5_sentinels_stand_for_the_target(requests):
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [SENTINEL]})
    scoring = scorer(tokenizer)
    text = requests.prompt("recommend", 0).with_value("target", SENTINEL).text
    title = requests.catalogue.titles[requests.candidates[0, 0]]
    expected = log_probability(scoring.model, tokenizer, text, f"{SENTINEL} {title}?", "Yes") - log_probability(
        scoring.model, tokenizer, text, f"{SENTINEL} {title}?", "No"
    )
    assert scoring.decoded_odds(requests, "recommend")[0, 0] == pytest.approx(expected, abs=1e-4)


def test_prompts_end_as_the_tokenizer_ends_texts(requests):
    from tokenizers import processors

    tokenizer = make_tokenizer()
    end = tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", end)]
    )
    scoring = scorer(tokenizer)
    expected = plain_odds(scoring.model, tokenizer, requests, "label_odds")
    np.testing.assert_allclose(scoring.label_odds(requests, "recommend"), expected, atol=1e-4)
    assert scoring.reader.text("Red")[-1] == end


def test_out_of_memory_halves_the_batch_and_goes_on(requests, tokenizer, monkeypatch, caplog):
    scoring = scorer(tokenizer)
    expected = scoring.decoded_odds(requests, "recommend")
    sizes = []

    def small_memory(model, groups, *settings):
        sizes.append(sum(len(group.suffixes) for group in groups))
        if sizes[-1] > 4:
            raise torch.OutOfMemoryError("no memory left")
        return decoder_states(model, groups, *settings)

    monkeypatch.setattr(module, "decoder_states", small_memory)
    np.testing.assert_allclose(scoring.decoded_odds(requests, "recommend"), expected, atol=1e-4)
    assert max(sizes) > 4 and "out of memory" in caplog.text


def test_scores_that_are_no_numbers_name_the_prompt(requests, tokenizer):
    scoring = scorer(tokenizer)
    with torch.no_grad():
        scoring.model.decoder.final_layer_norm.weight.fill_(float("nan"))
    for score in (scoring.label_odds, scoring.decoded_odds, scoring.title_likelihood):
        with pytest.raises(ScoringError, match=r"template 'last'.*They watched"):
            score(requests, "recommend")


@pytest.mark.parametrize("form", [*FORMS, "title_likelihood"])
def test_a_long_prompt_loses_its_oldest_items_and_keeps_its_question(requests, tokenizer, form):
    first = requests.select(np.array([0]))
    length = len(tokenizer(first.prompt("recommend", 0).with_value("target", "Red Love").text)["input_ids"])
    shorter = replace(first, histories=first.histories.last(len(first.histories[0]) - 2))
    expected = getattr(scorer(tokenizer), form)(shorter, "recommend")
    narrow = scorer(tokenizer)
    narrow.encoder.window = length - 5
    np.testing.assert_allclose(getattr(narrow, form)(first, "recommend"), expected, atol=1e-4)
    assert narrow.encoder.shortened > 0
    narrow.encoder.window = 8
    with pytest.raises(PromptError, match=r"'last' needs \d+ tokens without any history"):
        getattr(narrow, form)(first, "recommend")


def test_a_target_before_the_history_still_has_its_history(requests, tokenizer):
    template = Template("before", "recommend", "seen", parse("Is {target} right after {history}?"))
    requests = replace(requests, templates={"recommend": (template,) * len(requests)})
    other = replace(requests, histories=requests.histories.last(1))
    scores = [scorer(tokenizer).title_likelihood(shown, "recommend") for shown in (requests, other)]
    assert np.abs(scores[0] - scores[1]).max() > 1e-3


def test_other_architectures_are_refused(tokenizer):
    with pytest.raises(ScoringError, match="llama models cannot score: encoder-decoders known here are t5, mt5"):
        Reader.of(make_model("llama", 100), Encoder(tokenizer, 256, True))


def test_float16_takes_the_models_own_decoder():
    assert supports_folding(make_t5("t5", 50)) and not supports_folding(make_t5("t5", 50).half())


def test_adapters_start_neutral_then_matter_and_merge_exactly(requests, tokenizer):
    expected = scorer(tokenizer).decoded_odds(requests, "recommend")
    model = add_lora(make_t5("t5", len(tokenizer)), Lora()).eval()

    def odds(model):
        return EncDecScorer(model, Encoder(tokenizer, 256, True)).decoded_odds(requests, "recommend")

    np.testing.assert_allclose(odds(inner(model)), expected, atol=1e-5)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    apart = odds(inner(model))
    assert np.abs(apart - expected).max() > 1e-2
    np.testing.assert_allclose(odds(merged(model)), apart, atol=1e-4)


def test_the_loss_is_that_of_the_model_itself(requests, tokenizer):
    scoring = scorer(tokenizer)
    reader = scoring.reader
    template, domain = requests.templates["recommend"][0], requests.catalogue.domain
    prompt, label = reader.prompt(template, domain, ["Red Space"]), reader.label("Yes", True)
    question = np.append(reader.question("Blue Love"), label)
    group = module.Group(prompt, (question,))
    loss = decoder_loss(scoring.model, [group], [len(question) - 1])
    inputs = {"input_ids": torch.tensor(prompt)[None], "labels": torch.tensor(question[1:])[None]}
    assert float(loss.detach()) == pytest.approx(float(scoring.model(**inputs).loss.detach()), abs=1e-5)


def test_a_mean_over_prompts_counts_each_the_same(requests, tokenizer):
    scoring = scorer(tokenizer)
    reader = scoring.reader
    template, domain = requests.templates["recommend"][0], requests.catalogue.domain
    prompt, label = reader.prompt(template, domain, ["Red Space"]), reader.label("Yes", True)
    one, other = (np.append(reader.question(title), label) for title in ("Blue Love", "Red Space"))
    groups = [module.Group(prompt, (one, other)), module.Group(prompt[1:], (label_only := one[-2:],))]
    answers = [len(one) - 1, len(other) - 1, len(label_only) - 1]
    apart = [decoder_loss(scoring.model, [g], n) for g, n in zip(groups, (answers[:2], answers[2:]), strict=True)]
    torch.testing.assert_close(decoder_loss(scoring.model, groups, answers, by_prompt=True), sum(apart) / 2)
    tokens = decoder_loss(scoring.model, groups, answers)
    assert abs((tokens - sum(apart) / 2).item()) > 1e-3


def shown() -> Window:
    return Window(np.array([0, 1]), np.array([2, 3, 20]), np.array([True, True, False]))


def test_questions_are_what_is_scored(requests, tokenizer):
    scoring = scorer(tokenizer)
    template = requests.templates["recommend"][0]
    decoded = decoded_questions(scoring.reader, requests.catalogue, template, shown())
    encoded = encoded_questions(scoring.reader, requests.catalogue, template, shown())
    text = template.fill(requests.catalogue.domain, {"history": ["Red Space", "Blue Space"]})
    blank = tokenizer(text.with_value("target", BLANK).text)["input_ids"]
    assert decoded.group.prefix.tolist() == blank and decoded.answers == (1, 1, 1)
    read = [tokenizer.decode(suffix[1:]) for suffix in decoded.group.suffixes]
    assert read == ["Green Space? Yes", "Black Space? Yes", "White Love? No"]
    assert [one.group.prefix.tolist() for one in encoded] == [
        tokenizer(text.with_value("target", title).text)["input_ids"]
        for title in ("Green Space", "Black Space", "White Love")
    ]
    assert [tokenizer.decode(one.group.suffixes[0][1:]) for one in encoded] == ["Yes", "Yes", "No"]


def test_only_chosen_titles_are_written(requests, tokenizer):
    scoring = scorer(tokenizer)
    written = next_titles(scoring.reader, requests.catalogue, requests.templates["recommend"][0], shown())
    assert [tokenizer.decode(suffix[1:]) for suffix in written.group.suffixes] == ["Green Space", "Black Space"]
    assert written.answers == (2, 2)
