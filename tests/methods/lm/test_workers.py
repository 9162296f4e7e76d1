"""Batches side by side: everything is done once, errors end everything, and scores do not depend on it."""

import threading

import numpy as np
import pytest
import torch

from methods.lm.prompts import Encoder
from methods.lm.scoring import Scorer
from methods.lm.workers import ahead, side_by_side, workers_for
from tests.methods.lm.small import FAMILIES, make_model, make_task, make_tokenizer


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_the_next_thing_is_made_while_the_last_one_is_used():
    begun = [threading.Event() for _ in range(3)]

    def make(number: int) -> int:
        begun[number].set()
        if number == 2:
            raise KeyError(number)
        return number

    made = ahead(lambda number=number: make(number) for number in range(3))  # type: ignore[misc]
    assert next(made) == 0 and begun[1].wait(10)
    assert next(made) == 1
    with pytest.raises(KeyError):
        next(made)
    assert list(ahead([])) == []


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_tasks_and_what_is_left_of_them_are_done_once(four_threads, workers):
    done: list[int] = []

    def work(number: int) -> list[int]:
        if number >= 10:
            return [number // 2, number - number // 2]
        done.append(number)
        return []

    side_by_side([5, 40, 9], work, workers)
    assert sum(done) == 54 and max(done) < 10


def test_threads_divide_the_cores_and_give_them_back(four_threads):
    met, seen = threading.Barrier(2, timeout=60), []

    def work(_: int) -> list[int]:
        met.wait()  # both threads are at work at the same time
        seen.append(torch.get_num_threads())
        return []

    side_by_side(range(2), work, 2)
    assert seen == [2, 2] and torch.get_num_threads() == 4


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_ends_everything(four_threads, workers):
    begun = []

    def work(number: int) -> list[int]:
        begun.append(number)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        side_by_side(range(100), work, workers)
    assert len(begun) <= workers and torch.get_num_threads() == 4


def test_a_gpu_gets_one_batch_at_a_time(four_threads):
    assert workers_for(torch.device("cpu")) == 4 and workers_for(torch.device("cuda")) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_do_not_depend_on_the_number_of_workers(tmp_path, family):
    tokenizer = make_tokenizer()
    model, requests = make_model(family, len(tokenizer)), make_task(tmp_path, users=12).valid
    usual = model.config._attn_implementation
    one, four = (Scorer(model, Encoder(tokenizer, 256, True), 4, workers=workers) for workers in (1, 4))
    for score in ("label_odds", "title_likelihood"):
        expected = getattr(one, score)(requests, "recommend")
        for _ in range(3):
            np.testing.assert_allclose(getattr(four, score)(requests, "recommend"), expected, atol=1e-5)
    assert model.config._attn_implementation == usual
    assert all("forward" not in vars(module) for module in model.modules())


def test_a_batch_without_room_is_halved_beside_others(tmp_path, monkeypatch, caplog):
    import methods.lm.scoring as scoring

    tokenizer = make_tokenizer()
    model, requests = make_model("llama", len(tokenizer)), make_task(tmp_path, users=7).valid
    expected = Scorer(model, Encoder(tokenizer, 256, True), workers=1).label_odds(requests, "recommend")
    real = scoring.hidden_states

    def small_memory(model, groups, shortcut, reads=None):
        if sum(len(group.suffixes) for group in groups) > 4:
            raise torch.OutOfMemoryError("no memory left")
        return real(model, groups, shortcut, reads)

    monkeypatch.setattr(scoring, "hidden_states", small_memory)
    scorer = Scorer(model, Encoder(tokenizer, 256, True), 16, workers=3)
    np.testing.assert_allclose(scorer.label_odds(requests, "recommend"), expected, atol=1e-4)
    assert "out of memory" in caplog.text
