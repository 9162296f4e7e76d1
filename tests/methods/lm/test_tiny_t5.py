"""The embedded encoder-decoder: learns from what may be seen, the same every time, and what it is for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data.histories import Histories
from methods.lm.encdec import BLANK, EncDecScorer
from methods.lm.prompts import Encoder
from methods.lm.tiny_t5 import TinyT5, make_tiny_t5, train_tiny_t5
from tests.methods.lm.small import make_task, make_tokenizer

SMALL = {"steps": 3, "width": 16, "inner": 16, "heads": 2, "prompts": 4, "ahead": 3, "histories": 2, "asked": 2}
LEARNER = {**SMALL, "steps": 160, "writing": 0.5, "width": 32, "inner": 32, "prompts": 8, "histories": 4, "asked": 4}


def trained(task, **settings):
    return train_tiny_t5(TinyT5(**settings), task.catalogue, task.train, task.templates["recommend"])


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def auc(scores, positive):
    own = np.take_along_axis(scores, positive[:, None], axis=1)
    return float(((own > scores) + 0.5 * (own == scores)).sum() - 0.5 * len(scores)) / (scores.size - len(scores))


def test_training_is_the_same_for_the_same_seed_and_differs_for_another(task):
    model, _, tokens = trained(task, **SMALL)
    assert torch.equal(weights(model), weights(trained(task, **SMALL)[0])) and tokens > 0
    assert not torch.equal(weights(model), weights(trained(task, **SMALL, seed=1)[0]))


def test_the_global_random_state_is_left_alone(task):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    trained(task, **SMALL)
    assert torch.equal(torch.rand(1), expected)


def test_first_logits_are_of_order_one():
    tokenizer = make_tokenizer()
    model = make_tiny_t5(TinyT5(), tokenizer).eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.arange(5, 40)[None], decoder_input_ids=torch.tensor([[2, 9, 11]])).logits
    assert 0.2 < float(logits.std()) < 2.0


@pytest.mark.parametrize("often", [0.0, 1000.0], ids=["titles by heart", "rare titles"])
@pytest.mark.parametrize("form", ["title_likelihood", "decoded_odds"])
def test_it_learns_tastes(tmp_path, form, often):
    task = make_task(tmp_path)
    model, tokenizer, _ = trained(task, **LEARNER, often=often)
    score = getattr(EncDecScorer(model, Encoder(tokenizer, 512, True)), form)
    assert auc(score(task.valid, "recommend"), task.valid_positive) > 0.9


def test_it_never_sees_an_item_outside_the_training_part(task):
    hidden = 0
    train = Histories.of(row[row != hidden] for row in task.train)
    titles = ("Unheard Thing", *task.catalogue.titles[1:])
    other = replace(task, train=train, catalogue=replace(task.catalogue, titles=titles))
    model, tokenizer, _ = trained(other, **SMALL)
    assert "Unheard" not in tokenizer.get_vocab()
    renamed = replace(other, catalogue=replace(task.catalogue, titles=("Other Name", *titles[1:])))
    assert torch.equal(weights(trained(renamed, **SMALL)[0]), weights(model))


def test_its_tokenizer_knows_the_blank_and_the_labels(task):
    _, tokenizer, _ = trained(task, **SMALL)
    for word in (BLANK, "Yes", "No"):
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1


def test_saved_it_comes_back_with_the_same_scores(task, tmp_path):
    from transformers import AutoModelForSeq2SeqLM

    model, tokenizer, _ = trained(task, **SMALL)
    model.save_pretrained(tmp_path / "saved")
    back = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved").eval()
    scores = [
        EncDecScorer(m, Encoder(tokenizer, 512, True)).decoded_odds(task.valid, "recommend") for m in (model, back)
    ]
    np.testing.assert_array_equal(*scores)
