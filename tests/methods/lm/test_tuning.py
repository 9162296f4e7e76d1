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
from methods.lm.tuning import Part, Schedule, _Backward, list_auc, optimise, tune, valid_sample
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


def part(*layers, rate=None):
    module = torch.nn.Sequential(*layers)
    return Part(module, tuple(module.parameters()), rate)


def squares(*parts):
    return lambda batch: sum(one.module(batch).square().mean() for one in parts)


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


def test_weights_that_are_only_as_good_as_the_best_do_not_replace_them():
    learnt, schedule = part(torch.nn.Linear(2, 1)), Schedule(0.1, 9, patience=2)
    before = learnt.parameters[0].detach().clone()
    outcome = optimise([learnt], [[torch.ones(1, 2)]] * 9, squares(learnt), schedule, 0, "test", lambda: 0.5)
    assert (outcome.epochs, outcome.kept) == (2, 0) and torch.equal(learnt.parameters[0], before)


def test_steps_are_those_of_adam_without_decay_clipped_along_a_rise_and_a_cosine():
    learnt, twin = part(torch.nn.Linear(3, 2, bias=False)), torch.nn.Linear(3, 2, bias=False)
    twin.weight.data.copy_(learnt.parameters[0])
    batches = [torch.randn(4, 3) * size for size in (1, 50, 0.1, 20, 5, 1)]
    optimise([learnt], [batches], squares(learnt), Schedule(0.1, 6, warmup=0.5), 0, "test")
    adam = torch.optim.Adam(twin.parameters())
    falling = [0.5 * (1 + np.cos(np.pi * n / 3)) for n in range(3)]
    for batch, factor in zip(batches, [1 / 3, 2 / 3, 1, *falling], strict=True):
        adam.param_groups[0]["lr"] = 0.1 * factor
        adam.zero_grad()
        twin(batch).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        adam.step()
    torch.testing.assert_close(learnt.parameters[0].data, twin.weight.data)


def test_a_part_learns_at_its_own_rate():
    parts = [part(torch.nn.Linear(1, 1, bias=False), rate=rate) for rate in (None, 0.5)]
    before = [one.parameters[0].item() for one in parts]
    optimise(parts, [[torch.ones(1, 1)]], squares(*parts), Schedule(0.01, 1), 0, "test")
    moved = [abs(one.parameters[0].item() - start) for one, start in zip(parts, before, strict=True)]
    assert moved == pytest.approx([0.01, 0.5], rel=1e-3)


def test_what_does_not_learn_stays_in_evaluation_mode_where_the_part_that_learns_is_named(task):
    model, modes = make_model("gpt2", len(make_tokenizer())).eval(), []
    model.requires_grad_(False)
    learns = model.get_input_embeddings().requires_grad_(True)
    learns.register_forward_hook(lambda *_: modes.append((learns.training, model.training)))
    tune(model, [[questions(task, 2)]], lambda: 0.0, Schedule(rate=1e-2, steps=1), seed=0, learns=learns)
    assert modes == [(True, False)] and not learns.training


def test_dropout_is_on_in_training_and_that_of_the_seed():
    def run(seed, state):
        torch.manual_seed(0)
        learnt = part(torch.nn.Linear(8, 8), torch.nn.Dropout(0.5))
        torch.manual_seed(state)
        optimise([learnt], [[torch.ones(4, 8)] * 3], squares(learnt), Schedule(0.1, 3), seed, "test")
        return learnt.parameters[0].detach()

    assert torch.equal(run(0, 1), run(0, 2)) and not torch.equal(run(0, 1), run(1, 1))


def test_pieces_count_with_the_weight_of_their_members():
    weight = torch.zeros(1, requires_grad=True)

    def mean(batch):  # over the tokens of all members
        return sum(n * value * weight for n, value in batch).sum() / sum(n for n, _ in batch)

    backward = _Backward(mean, lambda member: member[0], torch.optim.SGD([weight], lr=1.0), most=2)
    backward([(1, 2.0), (2, 3.0), (9, 5.0)])
    assert float(weight.grad) == pytest.approx((1 * 2 + 2 * 3 + 9 * 5) / 12)


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


def test_windows_show_what_came_right_before_in_order(task):
    for shown in islice(windows(task.train, Sampling(2, 4), np.random.default_rng(0)), 100):
        row, length = task.train[shown.user].tolist(), len(shown.history)
        at = row.index(shown.items[0])
        assert shown.history.tolist() == row[max(0, at - length) : at]
        assert length == at or 2 <= length <= 4


@pytest.mark.parametrize(("popular", "expected"), [(0.0, 0.5), (1.0, 0.97)])
def test_popular_negatives_are_drawn_as_often_as_they_are_chosen(popular, expected):
    train, rng = Histories.of([[0, 1], *([[2, 3]] * 30), [4, 5]]), np.random.default_rng(0)
    shown = (one for one in windows(train, Sampling(1, 2, 1, 2, popular), rng) if one.user == 0)
    drawn = np.concatenate([one.items[1:] for one in islice(shown, 30)])
    assert np.isin(drawn, [2, 3]).mean() == pytest.approx(expected, abs=0.15)


def test_negatives_were_chosen_by_others_but_not_by_the_user(task):
    mine, others = task.train[0], Histories.of([task.train[0], task.train[1]])
    for shown in islice(windows(others, Sampling(negatives=3, popular=0.5), np.random.default_rng(1)), 200):
        own = task.train[0] if shown.history[0] in mine else task.train[1]
        assert np.isin(shown.items[shown.chosen], own).all()
        assert not np.isin(shown.items[~shown.chosen], own).any()
        assert np.isin(shown.items, others.items).all()


def test_the_validation_sample_has_its_positive_in_front(task):
    sample = valid_sample(task, 20, 3, seed=0)
    assert sample.candidates.shape == (20, 4)
    targets = task.valid.candidates[np.arange(len(task.valid)), task.valid_positive]
    np.testing.assert_array_equal(sample.candidates[:, 0], targets[np.isin(task.valid.users, sample.users)])


def test_another_seed_asks_other_validation_users_and_negatives(task):
    one, other = (valid_sample(task, 20, 3, seed) for seed in (0, 1))
    assert one.users.tolist() != other.users.tolist() and one.candidates.tolist() != other.candidates.tolist()


def test_ties_count_half():
    assert list_auc(np.array([[1.0, 1.0, 1.0, 0.0]])) == pytest.approx(2 / 3)
