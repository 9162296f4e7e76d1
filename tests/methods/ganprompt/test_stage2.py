"""Stage 2 changes the decoder's adapters and nothing else, and learns the log-odds that scoring ranks by."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data.prompts.template import Template, parse
from methods.base import Requests, Task
from methods.ganprompt import stage2
from methods.ganprompt.stage2 import Contrast, EncDecAnswers, label_loss, tune
from methods.ganprompt.training import Example
from methods.lm.lora import Lora
from methods.lm.questions import Window
from methods.lm.scoring import ScoringError
from tests.methods.ganprompt.test_stage1 import game
from tests.methods.ganprompt.world import ATTRIBUTES, Stopped, answers, batch, lessons, make

SIDES = ("decoder", "encoder")


@pytest.fixture
def task(tmp_path) -> Task:
    return make(tmp_path)


def tuned(task: Task, side: str, epochs: int = 1, **more) -> EncDecAnswers:
    own = answers(task, side)
    own.adapt(Lora(4, 8, 0.05), seed=0)
    measured = iter(range(100))
    tune(own, lessons(task, 16, 4, **more), epochs, 1e-2, lambda: next(measured), patience=9)
    return own


@pytest.mark.parametrize("side", SIDES)
def test_the_odds_learnt_are_the_scores_ranked_by(task, side):
    own = answers(task, side)
    examples = [
        Example(task.valid.templates["recommend"][row], Window(task.valid.histories[row], items, items >= 0))
        for row, items in enumerate(task.valid.candidates[:3])
    ]
    expected = own.score(task.valid.select(np.arange(3)))
    with torch.no_grad():
        found = own.odds(examples).view(3, -1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert expected.std() > 1e-4


@pytest.mark.parametrize("side", SIDES)
def test_the_loss_is_the_binary_cross_entropy_of_the_two_words(task, side):
    own, shown = answers(task, side), batch(task)
    with torch.no_grad():
        odds = own.odds(shown).double().numpy()
        loss = float(label_loss(own, shown))
    chosen = np.concatenate([example.shown.chosen for example in shown])
    probability = 1 / (1 + np.exp(-odds))
    assert loss == pytest.approx(-np.log(np.where(chosen, probability, 1 - probability)).mean(), abs=1e-5)


@pytest.mark.parametrize("side", SIDES)
def test_the_encoder_and_the_word_embeddings_do_not_change_by_one_bit(task, side):
    before = answers(task, side).model.state_dict()
    after = tuned(task, side, attributes=ATTRIBUTES).model.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert any("EncDecAttention" in name for name in changed)
    assert all(name.startswith("decoder.block") and name.endswith((".q.weight", ".v.weight")) for name in changed)


def test_tuning_lowers_the_loss_of_its_questions(task):
    shown, own, other = batch(task, 16), answers(task), tuned(task, "decoder", epochs=6)
    with torch.no_grad():
        before, after = (float(label_loss(one, shown)) for one in (own, other))
    assert after < 0.95 * before


def test_one_prompt_serves_all_questions_with_the_target_in_the_decoder(task):
    own, other = answers(task, "decoder"), answers(task, "encoder")
    for one in (own, other):
        one.odds(batch(task))
    assert own.tokens < 0.7 * other.tokens


def test_the_best_weights_on_validation_are_kept(task):
    own = answers(task)
    own.adapt(Lora(4, 8, 0.0), seed=0)
    quality = iter([0.5, 0.4, 0.3])
    outcome = tune(own, lessons(task, 8, 4), 5, 1e-2, lambda: next(quality), patience=2)
    assert outcome.epochs == 2 and outcome.converged and outcome.best == 0.5
    torch.testing.assert_close(own.model.state_dict(), answers(task).model.state_dict(), rtol=0, atol=0)


def test_the_same_seed_gives_the_same_weights(task):
    torch.testing.assert_close(
        tuned(task, "decoder").model.state_dict(), tuned(task, "decoder").model.state_dict(), rtol=0, atol=0
    )


def test_every_pass_and_every_seed_ask_anew_and_attributes_leave_windows_and_templates_alone(task):
    def drawn(epoch, seed=0, attributes=None):
        batches = replace(lessons(task, attributes=attributes), seed=seed).epoch(epoch)
        return [(e.template.id, e.shown.history.tolist(), e.shown.items.tolist()) for b in batches for e in b]

    assert drawn(0) != drawn(1) and drawn(0) != drawn(0, seed=1) and drawn(0) == drawn(0, attributes=ATTRIBUTES)


def test_the_schedule_is_that_of_all_passes_and_the_encoder_has_its_own_rate(task, monkeypatch):
    def optimise(parts, epochs, loss, schedule, *_):
        assert schedule.steps == 10 and [part.rate for part in parts] == [None, 3e-4]
        raise Stopped

    monkeypatch.setattr(stage2, "optimise", optimise)
    own = answers(task)
    own.adapt(Lora(4, 8, 0.0), 0)
    with pytest.raises(Stopped):
        tune(own, lessons(task, 8, 4), 5, 1e-2, lambda: 0.0, 2, joint=(game(own), 3e-4))


def test_words_are_told_apart_at_the_first_token_where_they_differ():
    assert Contrast.of([1, 2, 3], [1, 4]) == Contrast((1,), 2, 4)
    with pytest.raises(ScoringError, match="begins with the other"):
        Contrast.of([1, 2], [1, 2, 3])


@pytest.mark.parametrize("side", SIDES)
def test_labels_of_several_tokens_can_be_learnt(task, side):
    template = Template("t", "recommend", "seen", parse("{history}, {target}?"), labels=("Yes Red", "Yes Blue"))
    shown = [Example(template, example.shown) for example in batch(task)]
    assert float(answers(task, side).odds(shown).std()) > 0


def test_a_request_is_scored_without_attributes(task):
    own = answers(task)
    bare = Requests(
        task.valid.users,
        task.valid.histories,
        task.valid.candidates,
        task.catalogue,
        {"recommend": task.valid.templates["recommend"]},
    )
    np.testing.assert_array_equal(own.score(bare), own.score(task.valid))
