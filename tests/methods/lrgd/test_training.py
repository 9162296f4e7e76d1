"""Going on with the training of an embedded backbone."""

from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from methods.lm.backbone import Backbone, floating
from methods.lrgd import training
from methods.lrgd.demonstrations import PoolSize, pool
from methods.lrgd.icl import answer_places
from methods.lrgd.training import IclTraining, Learnt, _loss, accustomed, train, training_prompts
from tests.methods.lrgd.world import make_decoder, make_encoder, make_world

TRAINING = IclTraining(steps=12, batch=4, shots=3, rate=3e-3)
SIZE = PoolSize(own=1, others=3, shown=2)


def backbone(came_trained: bool = False) -> Backbone:
    encoder = make_encoder(400)
    return Backbone(make_decoder(encoder), encoder.tokenizer, "decoder", "a model", 400, not came_trained)


def weights(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_the_loss_is_that_of_answers_prompt_by_prompt_and_of_what_asks_for_them(tmp_path):
    one = backbone()
    drawn = islice(training_prompts(one, make_world(tmp_path), TRAINING, SIZE), 30)
    prompts = [prompt for prompt in drawn if prompt.owner.max() >= 0][:3]
    assert len({sum(map(len, prompt.answers)) for prompt in prompts}) > 1
    answered, asked = [], []
    with torch.no_grad():
        for prompt in prompts:
            start, own = len(prompt.ids) - 1, []
            for answer in prompt.answers:
                ids = torch.from_numpy(np.append(prompt.ids, answer))
                said = one.model(input_ids=ids[None]).logits[0].log_softmax(-1)[:-1].gather(1, ids[1:, None])[:, 0]
                own.append(-said[start:])
            answered.append(torch.cat(own).mean())
            asked.append(-said[:start][torch.from_numpy(prompt.owner[1:] < 0)])
        expected = torch.stack(answered).mean() + 0.3 * torch.cat(asked).mean()
        torch.testing.assert_close(_loss(one.model, prompts, 0.3), expected)


def test_training_lowers_the_loss_of_prompts_with_demonstrations(tmp_path):
    one, task = backbone(), make_world(tmp_path)
    held = list(islice(training_prompts(one, task, replace(TRAINING, seed=9), SIZE), 16))
    with torch.no_grad():
        before = float(_loss(one.model, held, 1.0))
    learnt = train(one.model, one, task, TRAINING, SIZE)
    with torch.no_grad():
        after = float(_loss(one.model, held, 1.0))
    assert learnt.tokens > 0 and after < 0.8 * before and not one.model.training


def test_prompts_show_training_items_and_answers_come_next(tmp_path):
    one, task = backbone(), make_world(tmp_path)
    titles = {task.catalogue.titles[item] for item in np.unique(task.train.items).tolist()}
    for prompt in islice(training_prompts(one, task, replace(TRAINING, told=0.0), SIZE), 40):
        answers = [one.tokenizer.decode(answer) for answer in prompt.answers]
        assert set(answers) <= titles and len(set(answers)) == len(answers)
        assert all(answer not in one.tokenizer.decode(prompt.ids[prompt.owner < 0]) for answer in answers)


def test_demonstrations_are_of_what_was_known_before_the_answer(tmp_path, monkeypatch):
    one, task, asked = backbone(), make_world(tmp_path), []
    monkeypatch.setattr(training, "pool", lambda *a: asked.append(a[1:3]) or pool(*a))
    for prompt in islice(training_prompts(one, task, replace(TRAINING, told=0.0), SIZE), 20):
        user, end = asked[-1]
        assert one.tokenizer.decode(prompt.answers[0]) == task.catalogue.titles[task.train[user][end]]


def test_prompts_may_show_fewer_items_than_training_would(tmp_path):
    task = replace(make_world(tmp_path), history_length=1)
    (prompt,) = islice(training_prompts(backbone(), task, TRAINING, SIZE), 1)
    assert prompt.answers


def test_where_told_answers_are_choices_of_demonstrations(tmp_path):
    one, task = backbone(), make_world(tmp_path)
    told = []
    for prompt in islice(training_prompts(one, task, replace(TRAINING, told=1.0), SIZE), 60):
        shown = [one.tokenizer.decode(prompt.ids[prompt.owner == n]) for n in range(prompt.owner.max() + 1)]
        found = [any(text.endswith(one.tokenizer.decode(a)) for text in shown) for a in prompt.answers]
        assert all(found) or not any(found)
        told.append(all(found))
    assert 10 < sum(told) < 60


def test_places_of_answers_are_where_their_tokens_are_predicted(tmp_path):
    one, task = backbone(), make_world(tmp_path)
    prompts = list(islice(training_prompts(one, task, TRAINING, SIZE), 3))
    places, targets = answer_places(prompts)
    flat = np.concatenate([*(p.ids for p in prompts), *(a[:-1] for p in prompts for a in p.answers)])
    at = 0
    for prompt, end in zip(prompts, np.cumsum([len(p.ids) for p in prompts]).tolist(), strict=True):
        for answer in prompt.answers:
            assert targets[at : at + len(answer)].tolist() == answer.tolist()
            assert places[at] == end - 1
            assert flat[places[at + 1 : at + len(answer)]].tolist() == answer[:-1].tolist()
            at += len(answer)
    assert at == len(targets)


def test_a_backbone_that_came_trained_is_left_alone(tmp_path):
    one = backbone(came_trained=True)
    assert accustomed(lambda _: one, make_world(tmp_path), TRAINING, SIZE) == (one, Learnt())


def test_the_given_backbone_is_not_changed_and_the_result_is_found_again(tmp_path):
    one, task = backbone(), make_world(tmp_path)
    before = weights(one.model)
    made, learnt = accustomed(lambda _: one, task, TRAINING, SIZE)
    again, same = accustomed(lambda _: one, task, TRAINING, SIZE)
    assert learnt == same and learnt.tokens > learnt.interactions > 0 and torch.equal(weights(one.model), before)
    assert torch.equal(weights(made.model), weights(again.model)) and not torch.equal(weights(made.model), before)
    other, _ = accustomed(lambda _: one, task, replace(TRAINING, seed=1), SIZE)
    assert not torch.equal(weights(other.model), weights(made.model))


def test_training_starts_from_weights_as_they_were_read_whatever_precision_they_are_used_in(tmp_path):
    task = make_world(tmp_path)
    half = replace(task, compute=replace(task.compute, dtype="bfloat16"))

    def load(dtype: str) -> Backbone:
        one = backbone()
        return replace(one, model=one.model.to(floating(dtype)))

    whole, _ = accustomed(load, task, TRAINING, SIZE)
    rounded, _ = accustomed(load, half, TRAINING, SIZE)
    assert rounded.model.dtype == torch.bfloat16
    assert torch.equal(weights(rounded.model), weights(whole.model.to(torch.bfloat16)))
