"""Tuning learns answers, keeps the best weights and stops when validation no longer gets better."""

from itertools import islice

import numpy as np
import pytest
import torch

from data.histories import Histories
from methods.lm import tuning
from methods.lm.forward import answer_loss
from methods.lm.lora import Lora, add_lora, inner
from methods.lm.prompts import Encoder
from methods.lm.questions import Sampling, ask, windows
from methods.lm.tuning import Schedule, tune, valid_sample
from tests.methods.lm.small import TEMPLATES, make_model, make_tokenizer


@pytest.fixture
def model():
    return inner(add_lora(make_model("llama", len(make_tokenizer())), Lora())).eval()


def questions(task, count=32):
    encoder, rng = Encoder(make_tokenizer(), 256, True), np.random.default_rng(0)
    shown = islice(windows(task.train, Sampling(), rng), count)
    return [ask(encoder, task.catalogue, TEMPLATES[n % 3], window) for n, window in enumerate(shown)]


def loss(model, batch):
    with torch.inference_mode():
        return float(answer_loss(model, [q.group for q in batch], [n for q in batch for n in q.answers], "tree"))


def trained(model):
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def test_adapters_learn_the_answers(task, model):
    batch = questions(task)
    before = loss(model, batch)
    values = iter(range(100))
    tuned = tune(model, [[batch]] * 30, lambda: next(values), Schedule(rate=1e-2, steps=30), seed=0)
    assert loss(model, batch) < before - 1
    assert tuned.epochs == 30 and tuned.questions == 30 * 64 and not tuned.converged


def test_the_best_weights_are_kept_and_patience_ends_it(task, model):
    batch, seen = questions(task, 4), []
    values = iter([0.5, 0.9, 0.2, 0.1])

    def measure():
        seen.append(trained(model))
        return next(values)

    tuned = tune(model, [[batch]] * 50, measure, Schedule(rate=1e-2, steps=50, patience=2), seed=0)
    assert (tuned.epochs, tuned.converged, tuned.best) == (3, True, 0.9)
    assert torch.equal(trained(model), seen[1]) and not torch.equal(seen[1], seen[3])


def test_what_does_not_fit_into_memory_is_learnt_from_in_pieces(task, monkeypatch, caplog):
    batch, values = questions(task, 7), iter(range(9))
    whole, pieces = (
        inner(add_lora(make_model("llama", len(make_tokenizer())), Lora(dropout=0.0))).eval() for _ in range(2)
    )
    tune(whole, [[batch]], lambda: next(values), Schedule(rate=1e-2, steps=1), seed=0)

    sizes = []

    def tight(model, groups, *rest):
        sizes.append(len(groups))
        if len(groups) > 4 or sizes == [7, 4, 3]:  # the second piece, when the first has left gradients
            raise torch.OutOfMemoryError("no memory left")
        return answer_loss(model, groups, *rest)

    monkeypatch.setattr(tuning, "answer_loss", tight)
    tuned = tune(pieces, [[batch]], lambda: next(values), Schedule(rate=1e-2, steps=1), seed=0)
    assert sizes == [7, 4, 3, 2, 2, 2, 1] and tuned.questions == 14
    assert torch.allclose(trained(pieces), trained(whole), atol=1e-6) and "pieces of 2" in caplog.text


def test_one_question_that_does_not_fit_into_memory_is_an_error(task, model, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(tuning, "answer_loss", full)
    with pytest.raises(torch.OutOfMemoryError):
        tune(model, [[questions(task, 3)]], lambda: 0.0, Schedule(rate=1e-2, steps=1), seed=0)


def test_negatives_were_chosen_by_others_but_not_by_the_user(task):
    mine, others = task.train[0], Histories.of([task.train[0], task.train[1]])
    for shown in islice(windows(others, Sampling(negatives=3, popular=0.5), np.random.default_rng(1)), 200):
        own = task.train[0] if shown.history[0] in mine else task.train[1]
        assert np.isin(shown.items[shown.chosen], own).all()
        assert not np.isin(shown.items[~shown.chosen], own).any()
        assert np.isin(shown.items, others.items).all()


def test_the_validation_sample_has_its_positive_in_front(task):
    sample, rows = valid_sample(task, 20, 3, seed=0)
    assert sample.candidates.shape == (20, 4)
    targets = task.valid.candidates[np.arange(len(task.valid)), task.valid_positive]
    np.testing.assert_array_equal(sample.candidates[:, 0], targets[rows])
