"""Soft prompts: a decoder-only model answers behind the projected states of a frozen encoder."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from methods.base import Task
from methods.ganprompt.soft import Projection, SoftAnswers
from methods.ganprompt.stage2 import label_loss, tune
from methods.ganprompt.training import Example
from methods.lm.backbone import Backbone
from methods.lm.lora import Lora
from methods.lm.questions import Window
from tests.methods.ganprompt.world import answers, batch, lessons, make, tokenizer
from tests.methods.lm.small import FAMILIES, make_model


@pytest.fixture
def task(tmp_path) -> Task:
    return make(tmp_path)


def soft(task: Task, family: str = "llama", window: int = 256) -> SoftAnswers:
    words = tokenizer()
    decoder = Backbone(make_model(family, len(words)), words, "decoder", family, window, embedded=True)
    return SoftAnswers(answers(task), decoder, Lora(4, 8, 0.0), seed=0, projection_rate=1e-2)


def plain(found: SoftAnswers, task: Task, row: int, title: str) -> float:
    """Log-odds from one forward pass without cache and padding."""
    request = task.valid
    prompt = request.prompt("recommend", row).with_value("target", found.own.reader.blank).text
    ids = torch.tensor([found.own.encoder.tokenizer(prompt)["input_ids"]])
    states = found.own.model.get_encoder()(input_ids=ids).last_hidden_state
    embed = found._model.get_input_embeddings()
    start, *question = found.decoder.tokenizer(f"{title}?")["input_ids"]
    assert start == found.decoder.tokenizer.bos_token_id
    soft = torch.tanh(found._projection.linear(states))
    inputs = torch.cat([embed(torch.tensor([[start]])), soft, embed(torch.tensor([question]))], dim=1)
    logits = found._model(inputs_embeds=inputs).logits[0, -1]
    yes, no = (found.decoder.tokenizer.convert_tokens_to_ids(word) for word in ("Yes", "No"))
    return float(logits[yes] - logits[no])


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_one_question_at_a_time(task, family):
    found = soft(task, family)
    scores = found.score(task.valid.select(np.arange(3)))
    with torch.no_grad():
        for row, column in np.ndindex(3, 4):
            title = task.catalogue.titles[int(task.valid.candidates[row, column])]
            assert scores[row, column] == pytest.approx(plain(found, task, row, title), abs=1e-4)
    assert scores.std() > 1e-3


def test_questions_that_are_read_a_few_at_a_time_have_the_same_scores(task):
    found = soft(task)
    expected = found.score(task.valid)
    found.own.batch_size = 2
    np.testing.assert_allclose(found.score(task.valid), expected, atol=1e-5)


def test_in_half_precision_the_projection_learns_in_single_precision(task):
    words = tokenizer()
    decoder = Backbone(
        make_model("llama", len(words)).to(torch.bfloat16), words, "decoder", "llama", 256, embedded=True
    )
    found = SoftAnswers(answers(task), decoder, Lora(4, 8, 0.0), seed=0, projection_rate=1e-5)
    before = found._projection.linear.weight.detach().clone()
    measured = iter(range(99))
    tune(found, lessons(task, 12, 4), 1, 1e-4, lambda: next(measured), patience=9)
    assert found._projection.linear.weight.dtype == torch.float32
    assert (found._projection.linear.weight != before).float().mean() > 0.9
    assert np.isfinite(found.score(task.valid)).all()


def test_the_odds_learnt_are_the_scores_ranked_by(task):
    found = soft(task)
    examples = [
        Example(task.valid.templates["recommend"][row], Window(task.valid.histories[row], items, items >= 0))
        for row, items in enumerate(task.valid.candidates[:3])
    ]
    with torch.no_grad():
        odds = found.odds(examples).view(3, -1).numpy()
    np.testing.assert_allclose(odds, found.score(task.valid.select(np.arange(3))), atol=1e-5)


def test_the_history_is_cut_until_the_longest_question_fits_behind_it(task):
    titles = (*task.catalogue.titles[:-1], "Red Space Love " * 30)
    longest = replace(task.catalogue, titles=titles)
    found, item = soft(task, window=110), len(titles) - 1
    template, history = task.valid.templates["recommend"][0], task.valid.histories[0]
    (short,), _ = found._groups([(template, history, np.array([0]))], longest)
    assert found.own.encoder.shortened == 0
    (cut,), _ = found._groups([(template, history, np.array([0, item]))], longest)
    assert found.own.encoder.shortened == 1
    assert len(cut.prefix) < len(short.prefix)
    assert len(cut.suffixes[1]) > 64 and len(cut.prefix) + len(cut.suffixes[1]) <= 110


def test_the_projection_has_a_rate_of_its_own(task):
    adapters, projection = soft(task).parts()
    assert adapters.rate is None and projection.rate == 1e-2


def test_another_seed_gives_another_projection():
    assert not torch.equal(*(Projection(torch.ones(8), torch.eye(8), seed).linear.weight for seed in (0, 1)))


def test_soft_embeddings_begin_with_the_size_of_the_decoders_own(task):
    own, words = answers(task), tokenizer()
    with torch.no_grad():
        own.model.get_encoder().final_layer_norm.weight.mul_(0.2)
    decoder = Backbone(make_model("llama", len(words)), words, "decoder", "llama", 256, embedded=True)
    found = SoftAnswers(own, decoder, Lora(4, 8, 0.0), seed=0, projection_rate=1e-2)
    prompts = [task.valid.prompt("recommend", row).with_value("target", "").text for row in range(24)]
    ids = [torch.tensor([found.own.encoder.tokenizer(text)["input_ids"]]) for text in prompts]
    with torch.no_grad():
        states = torch.cat([found.own.model.get_encoder()(input_ids=one).last_hidden_state[0] for one in ids])
        spread = float(found._model.get_input_embeddings().weight.std())
        assert float(found._projection(states).std()) == pytest.approx(spread, rel=0.3)


def test_the_encoder_does_not_change_and_adapters_and_projection_learn(task):
    found = soft(task)
    encoder = {name: value.clone() for name, value in found.own.model.state_dict().items()}
    shown, projection = batch(task, 12), found._projection.linear.weight.detach().clone()
    with torch.no_grad():
        before = float(label_loss(found, shown))
    measured = iter(range(99))
    tune(found, lessons(task, 12, 4), 6, 1e-2, lambda: next(measured), patience=9)
    with torch.no_grad():
        assert float(label_loss(found, shown)) < before
    torch.testing.assert_close(found.own.model.state_dict(), encoder, rtol=0, atol=0)
    assert not torch.equal(found._projection.linear.weight, projection)
    assert found.tokens > 0
