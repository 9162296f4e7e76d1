"""First-order scores against what the loss really does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.nn.functional import cross_entropy

from methods.lm.layout import Group
from methods.paprec import gradients
from methods.paprec.gradients import Proposer, first_order, trigger_gradients
from methods.paprec.prompts import Placed
from tests.methods.p5.world import make_t5

VOCABULARY, SIZE = 80, 4
PROMPTS = ([7, 8, 9, 10, 11], [12, 13, 14], [15, 16, 17, 18, 19, 20, 21, 22])
ANSWERS = ([30, 31], [32], [33, 34, 35])


@pytest.fixture(scope="module")
def model():
    return make_t5(VOCABULARY)


def placed(rows=(0, 1, 2)) -> Placed:
    """Prompts of users 0, 1 and 2 with an end token behind the places of the triggers."""
    groups = tuple(Group(np.array([*PROMPTS[r], *[0] * SIZE, 3]), (np.array([0, *ANSWERS[r]]),)) for r in rows)
    return Placed(np.array(rows), groups, tuple((len(ANSWERS[r]),) for r in rows), 1)


TOKENS = np.random.default_rng(1).integers(40, VOCABULARY, size=(3, SIZE))


def loss(model, row, triggers=None, shift=None) -> float:
    """Mean cross-entropy of the answer of one prompt: a plain pass of the library's model."""
    triggers = TOKENS[row] if triggers is None else triggers
    ids = torch.tensor([[*PROMPTS[row], *triggers, 3]])
    inputs = model.get_input_embeddings()(ids).detach().clone()
    for position, vector in (shift or {}).items():
        inputs[0, len(PROMPTS[row]) + position] += vector
    with torch.inference_mode():
        logits = model(inputs_embeds=inputs, decoder_input_ids=torch.tensor([[0, *ANSWERS[row][:-1]]])).logits[0]
    return float(cross_entropy(logits, torch.tensor(ANSWERS[row])))


def flipped(row, position, token):
    return np.where(np.arange(SIZE) == position, token, TOKENS[row])


def test_a_gradient_is_a_finite_difference_of_the_loss(model):
    gradients = trigger_gradients(model, placed(), TOKENS)
    assert gradients.shape == (3, SIZE, model.config.d_model)
    generator = torch.Generator().manual_seed(0)
    for row in range(3):
        for position in range(SIZE):
            way = torch.randn(model.config.d_model, generator=generator)
            way = way / way.norm() * 1e-2
            change = loss(model, row, shift={position: way}) - loss(model, row, shift={position: -way})
            assert change / 2 == pytest.approx(float(gradients[row, position] @ way), abs=2e-5)


def test_a_gradient_does_not_depend_on_the_batch(model):
    together = trigger_gradients(model, placed(), TOKENS)
    for row in range(3):
        torch.testing.assert_close(
            trigger_gradients(model, placed([row]), TOKENS)[0], together[row], atol=1e-5, rtol=1e-4
        )


def test_scores_of_all_tokens_rank_as_small_steps_towards_them_change_the_loss(model):
    gradients, embeddings = trigger_gradients(model, placed(), TOKENS), model.get_input_embeddings().weight.detach()
    for row, position in ((0, 0), (1, 2), (2, 3)):
        scores = first_order(gradients[row, position][None], embeddings)[0]
        present = embeddings[TOKENS[row, position]]
        steps = [-loss(model, row, shift={position: 1e-2 * (one - present)}) for one in embeddings]
        assert spearmanr(scores.numpy(), steps).statistic > 0.99


def test_scores_of_all_tokens_agree_in_rank_with_what_flipping_them_does_to_the_loss(model):
    gradients, embeddings = trigger_gradients(model, placed(), TOKENS), model.get_input_embeddings().weight.detach()
    agreement = []
    for row in range(3):
        for position in range(0, SIZE, 2):
            scores = first_order(gradients[row, position][None], embeddings)[0].numpy()
            falls = [-loss(model, row, flipped(row, position, token)) for token in range(VOCABULARY)]
            agreement.append(spearmanr(scores, falls).statistic)
    assert np.mean(agreement) > 0.6 and min(agreement) > 0.0, agreement


def proposer(model, rows=(0, 1, 2), sample=(0, 1, 2)) -> Proposer:
    return Proposer(model, np.arange(40, VOCABULARY), placed(rows), np.array(sample), top=5)


ALL = np.concatenate([TOKENS, TOKENS[:1]])


def test_proposals_are_the_best_other_words_for_the_mean_gradient(model):
    means = trigger_gradients(model, placed(), TOKENS)[:, 2].mean(0)
    scores = first_order(means[None], model.get_input_embeddings().weight.detach())[0].numpy()
    expected = [token for token in np.argsort(-scores) if token >= 40 and token != ALL[0, 2]][:5]
    assert proposer(model)(ALL, 2, each=False).tolist() == [expected]


def test_each_user_gets_proposals_of_their_own_and_one_without_examples_those_of_all(model):
    found = proposer(model)(ALL, 1, each=True)
    assert found.shape == (4, 5) and len({tuple(row) for row in found.tolist()}) == 4
    gradients = trigger_gradients(model, placed(), TOKENS)[:, 1]
    embeddings = model.get_input_embeddings().weight.detach()
    for user, mean in ((1, gradients[1]), (3, gradients.mean(0))):
        scores = first_order(mean[None], embeddings)[0].numpy()
        best = [token for token in np.argsort(-scores) if token >= 40 and token != ALL[user, 1]][:5]
        assert found[user].tolist() == best


def test_a_backward_pass_has_no_more_examples_than_it_may(model, monkeypatch):
    sizes = []

    def watched(model, examples, tokens):
        sizes.append(len(examples))
        return trigger_gradients(model, examples, tokens)

    monkeypatch.setattr("methods.paprec.gradients.trigger_gradients", watched)
    found = replace(proposer(model), rows=2)(ALL, 1, each=True)
    assert sizes == [2, 1]
    np.testing.assert_array_equal(found, proposer(model)(ALL, 1, each=True))


def test_examples_that_do_not_fit_into_memory_together_are_taken_in_halves(model, monkeypatch, caplog):
    expected, sizes, taken = proposer(model)(ALL, 1, each=True), [], gradients.trigger_gradients

    def tight(model, examples, tokens):
        sizes.append(len(examples))
        if len(examples) > 1:
            raise torch.OutOfMemoryError("no memory left")
        return taken(model, examples, tokens)

    monkeypatch.setattr(gradients, "trigger_gradients", tight)
    np.testing.assert_array_equal(proposer(model)(ALL, 1, each=True), expected)
    assert sizes == [3, 1, 1, 1] and "out of memory with 3 examples" in caplog.text


def test_gradients_are_taken_again_only_for_users_whose_triggers_have_changed(model, monkeypatch):
    taken = []

    def watched(model, examples, tokens):
        taken.append(examples.users.tolist())
        return trigger_gradients(model, examples, tokens)

    monkeypatch.setattr("methods.paprec.gradients.trigger_gradients", watched)
    propose = proposer(model)
    propose(ALL, 0, each=False), propose(ALL, 1, each=True)
    assert [sorted(users) for users in taken] == [[0, 1, 2]]
    changed = ALL.copy()
    changed[1, 2] = 41
    found = propose(changed, 1, each=True)
    assert taken[1:] == [[1]]
    np.testing.assert_array_equal(found, proposer(model)(changed, 1, each=True))
