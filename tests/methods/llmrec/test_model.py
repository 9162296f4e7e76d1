import numpy as np
import pytest
import torch

from data.histories import Histories
from methods.llmrec import model
from methods.llmrec.model import (
    TextRecommender,
    Validation,
    _loss,
    batches,
    draw_negatives,
    fit,
    quality,
    scores,
)
from methods.llmrec.settings import Settings
from methods.lm.scoring import ScoringError


def train() -> Histories:
    rng = np.random.default_rng(0)
    return Histories.of(rng.choice(40, rng.integers(1, 30), replace=False) for _ in range(25))


def test_negatives_are_uniform_over_what_the_user_has_not_chosen() -> None:
    histories = train()
    drawn = draw_negatives(histories, 40, 200, np.random.default_rng(1))
    for user, negatives in zip(histories.rows().tolist(), drawn, strict=True):
        assert not set(negatives.tolist()) & set(histories[user].tolist())
    first = histories[0]
    counts = np.bincount(drawn[: len(first)].ravel(), minlength=40)
    others = np.setdiff1d(np.arange(40), first)
    expected = 200 * len(first) / len(others)
    assert (abs(counts[others] - expected) < 6 * np.sqrt(expected)).all()


def test_a_user_who_chose_everything_does_not_hang() -> None:
    assert draw_negatives(Histories.of([np.arange(5)]), 5, 3, np.random.default_rng(0)).shape == (5, 3)


def test_a_pass_holds_every_interaction_once_and_depends_on_its_number_and_the_seed() -> None:
    histories, settings = train(), Settings(batch=16, negatives=2)
    drawn = ((3, 1), (3, 2), (3, 1), (4, 1))
    passes = [list(batches(histories, 40, settings, seed, epoch)) for seed, epoch in drawn]
    pairs = [[(u, i) for users, items, _ in p for u, i in zip(users, items, strict=True)] for p in passes]
    assert sorted(pairs[0]) == sorted(zip(histories.rows(), histories.items, strict=True))
    assert pairs[0] != pairs[1] and pairs[0] == pairs[2] and pairs[0] != pairs[3]


def test_the_loss_is_the_cross_entropy_of_each_positive_and_of_all_its_negatives() -> None:
    net, texts = TextRecommender(4, 6, Settings(size=8, hidden=5)).eval(), torch.randn(7, 6)
    users, positives, negatives = np.array([3, 0, 3]), np.array([1, 2, 6]), np.array([[0, 5], [5, 1], [2, 2]])
    logits = net.logits(net.users(torch.from_numpy(users))[:, None], net.items(texts)[np.c_[positives, negatives]])
    each = -torch.nn.functional.logsigmoid(logits * torch.tensor([1, -1, -1]))
    torch.testing.assert_close(_loss(net, texts, users, positives, negatives), each.sum(1).mean())


def test_training_goes_back_to_the_pass_with_the_best_auc(monkeypatch: pytest.MonkeyPatch) -> None:
    found, states = iter([(0.6, 0.3), (0.7, 0.1), (0.65, 0.9), (0.7, 0.05)]), []

    def measured(net: TextRecommender, *_: object) -> tuple[float, float]:
        states.append({name: value.clone() for name, value in net.state_dict().items()})
        return next(found)

    monkeypatch.setattr(model, "quality", measured)
    vectors = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    settings = Settings(size=4, hidden=4, patience=2, rate=0.1)
    kept = fit(vectors, train(), Validation(*[np.arange(25)] * 3), settings, seed=0)
    assert (kept.epochs, kept.converged, kept.quality) == (4, True, 0.1)
    assert all(torch.equal(value, states[1][name]) for name, value in kept.model.state_dict().items())
    assert not torch.equal(states[1]["users.weight"], states[3]["users.weight"])


def test_dropout_is_on_in_training_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    modes, item_vectors = [], model.item_vectors
    monkeypatch.setattr(model, "_loss", lambda net, *a: modes.append(net.training) or _loss(net, *a))
    monkeypatch.setattr(model, "item_vectors", lambda net, *a: modes.append(net.training) or item_vectors(net, *a))
    vectors = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    valid = Validation(np.arange(25), np.tile(np.arange(40), (25, 1)), np.arange(25))
    fit(vectors, train(), valid, Settings(size=4, hidden=4, epochs=2), seed=0)
    assert modes == [True, False] * 2


def test_quality_is_auc_then_ndcg() -> None:
    net = TextRecommender(1, 2, Settings(size=1, hidden=1))
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    tied = quality(net, np.zeros((4, 2), np.float32), Validation(np.array([0]), np.arange(4)[None], np.array([0])))
    assert tied == pytest.approx((0.5, 1 / np.log2(3.5)))


def test_users_without_training_items_are_average_users() -> None:
    rng = np.random.default_rng(0)
    histories = Histories.of([[] if user % 5 == 0 else rng.permutation(40)[:10] for user in range(25)])
    vectors = rng.normal(size=(40, 6)).astype(np.float32)
    everything = np.tile(np.arange(40), (25, 1))
    fitted = fit(vectors, histories, Validation(np.arange(25), everything, np.arange(25)), Settings(epochs=3), seed=0)
    found = scores(fitted.model, model.item_vectors(fitted.model, vectors), np.arange(25), everything)
    known = histories.lengths > 0
    assert found[~known] == pytest.approx(np.tile(found[known].mean(axis=0), (5, 1)), abs=1e-6)
    assert found[known].std(axis=0).min() > 0


def test_scores_hold_the_vectors_of_some_lists_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    items = rng.normal(size=(30, 9)).astype(np.float32)
    users, candidates = rng.permutation(20), rng.integers(30, size=(20, 7))
    trained = TextRecommender(20, 4, Settings(size=8, hidden=4))
    expected = scores(trained, items, users, candidates)
    monkeypatch.setattr(model, "VALUES", 3 * 7 * 9 + 1)
    products: list[int] = []
    matmul = np.matmul
    monkeypatch.setattr(np, "matmul", lambda a, b: products.append(len(a)) or matmul(a, b))
    np.testing.assert_array_equal(scores(trained, items, users, candidates), expected)
    assert products == [3, 3, 3, 3, 3, 3, 2]


def test_scores_that_are_not_finite_are_no_first_places() -> None:
    histories, rng = train(), np.random.default_rng(0)
    vectors = rng.normal(size=(40, 6)).astype(np.float32)
    valid = Validation(np.arange(25), np.tile(np.arange(40), (25, 1)), rng.integers(40, size=25))
    with pytest.raises(ScoringError, match=r"of 1000 validation scores are not finite\. Try a lower rate"):
        fit(vectors, histories, valid, Settings(size=8, hidden=4, rate=1e20), seed=0)
    for value in (np.nan, -np.inf):
        diverged = TextRecommender(25, 6, Settings(size=8, hidden=4))
        diverged.items[-1].bias.data[-1] = value
        with pytest.raises(ScoringError, match="1000 of 1000"):
            quality(diverged, vectors, valid)
