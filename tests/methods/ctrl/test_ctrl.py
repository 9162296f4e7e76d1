"""CTRL starts from what texts say, is served without them, and without alignment is the row it is made of."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("recbole")

import torch
from torch.nn import functional

from benchmarks import audits
from benchmarks.families import expand
from benchmarks.protocol import Problem, Protocol, prepare
from data.dataset import Catalogue
from data.histories import Histories
from data.prompts.library import templates
from methods import registry
from methods.base import Compute, FitReport, Method, NotRunnable, Task
from methods.ctrl import align
from methods.ctrl.method import Ctrl
from methods.recbole import training
from tests.methods.lm.small import make_task

QUICK = {"epochs": 2, "train_batch_size": 64}


def fitted(name: str, task: Task, settings: Mapping[str, object], seed: int = 0) -> tuple[Method, FitReport]:
    method = registry.create(name, {**QUICK, **settings})
    return method, method.fit(task, seed)


def test_it_is_registered_without_a_prompt():
    method = registry.create("ctrl")
    assert method.info.name == "ctrl" and method.info.roles == frozenset() and method.info.needs == {"text"}


def test_without_alignment_it_is_plain_supervised_training(tmp_path):
    task = make_task(tmp_path)
    plain, aligned = fitted("din", task, {})[0], fitted("ctrl", task, {"align_epochs": 2})[0]
    none, report = fitted("ctrl", task, {"align_epochs": 0})
    np.testing.assert_array_equal(none.score(task.valid), plain.score(task.valid))
    assert (aligned.score(task.valid) != plain.score(task.valid)).any()
    assert (report.interactions, report.epochs) == (2 * 420, 2)
    assert (report.loss, report.negatives) == ("binary cross-entropy", "1")


def test_training_goes_on_from_the_aligned_model_and_the_ledger_counts_both(tmp_path, monkeypatch):
    states = []

    def watched(real, model_of):
        def call(*arguments):
            states.append({name: value.clone() for name, value in model_of(*arguments).state_dict().items()})
            result = real(*arguments)
            states.append({name: value.clone() for name, value in model_of(*arguments).state_dict().items()})
            return result

        return call

    monkeypatch.setattr(align, "align", watched(align.align, lambda sides, _: sides.model))
    monkeypatch.setattr(training, "train", watched(training.train, lambda stage, model, *_: model))
    _, report = fitted("ctrl", make_task(tmp_path), {"align_epochs": 3})
    start, aligned, handed, trained = states
    assert aligned.keys() == handed.keys() and all(torch.equal(aligned[name], handed[name]) for name in aligned)
    (items,) = (name for name in start if "item.embedding" in name)
    assert not torch.equal(start[items], aligned[items])
    assert not torch.equal(handed[items], trained[items])
    assert (report.interactions, report.epochs) == (5 * 420, 5)
    assert report.loss == "contrastive, then binary cross-entropy"
    assert report.negatives == "the rest of the batch, then 1"


def test_alignment_reads_every_items_own_text(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(align, "align", lambda sides, _: found.append(sides))
    method, _ = fitted("ctrl", make_task(tmp_path), {"align_epochs": 1, "epochs": 1})
    items = method.trained.items
    assert items.tolist() != list(range(1, len(items) + 1))  # RecBole's ids are not in the catalogue's order
    np.testing.assert_array_equal(found[0].texts[items], method._texts)
    assert not found[0].texts[0].any()


def test_alignment_learns_with_dropout_at_the_rate_that_is_set(monkeypatch):
    modes, rates, adam = [], [], torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda p, lr: rates.append(lr) or adam(p, lr=lr))
    sides = align.Sides(
        Untouched(),
        np.ones((4, 6), np.float32),
        Ctrl(align_epochs=2, align_rate=7e-3, temperature=0.5, space_size=6, parts=2),
    )
    monkeypatch.setattr(sides, "loss", lambda _: modes.append(sides.model.training) or sides.from_text.bias.sum())
    align.align(sides.eval(), [torch.zeros(1)])
    assert modes == [True, True] and rates == [7e-3] and not sides.training


def test_alignment_brings_held_out_pairs_together(tmp_path, monkeypatch):
    found = []
    real = align.align

    @torch.no_grad()
    def measure(sides, batches):
        sides.eval()
        loss = sum(float(sides.loss(records)) for records in batches)
        matched = np.mean([float((sides(r).argmax(0) == torch.arange(len(r))).float().mean()) for r in batches])
        found.append((loss / len(batches), matched))

    def watched(sides, batches):
        batches = [records.to("cpu") for records in batches]
        measure(sides, batches[-2:])
        real(sides, batches[:-2])
        measure(sides, batches[-2:])

    monkeypatch.setattr(align, "align", watched)
    fitted("ctrl", make_task(tmp_path, users=90), {"align_epochs": 20, "align_rate": 1e-2, "space_size": 32})
    (loss_before, matched_before), (loss_after, matched_after) = found
    assert loss_after < 0.7 * loss_before
    assert matched_after > 0.3 > 0.1 > matched_before, found


@pytest.fixture
def problem(atomic) -> Problem:
    return prepare(str(atomic), Protocol(negatives=5), {"recommend": templates("recommend")})


def test_no_wording_and_no_noise_in_titles_reaches_it(problem, tmp_path):
    method, _ = fitted("ctrl", problem.task(Compute(cache=tmp_path)), {"align_epochs": 1})
    unseen = {"recommend": problem.unseen("recommend")}
    shown = {"unseen": None, "typos": [0.3], "synonyms": [0.3], "distractor": None, "title-noise": [0.3]}
    conditions = expand({**shown, "history-drop": [0.5]}, unseen)
    watch, requests = audits.Invariance(method.info.roles), problem.test_requests()
    scores = {}
    for condition in conditions:
        scores[condition.name] = method.score(condition.apply(requests, 0))
        watch.see(condition, scores[condition.name])
    (audit,) = watch.audits()
    assert audit.passed and int(audit.detail.split()[0]) > 12
    np.testing.assert_array_equal(scores["title-noise@0.3"], scores["clean"])
    assert (scores["history-drop@0.5"] != scores["clean"]).any()
    assert all(audit.passed for audit in audits.rescoring(method.score, requests, conditions, 0))


def test_empty_histories_and_items_nobody_chose_are_scored(tmp_path):
    task = make_task(tmp_path)
    train = Histories.of(row[row != 7] for row in task.train)
    method, _ = fitted("ctrl", replace(task, train=train), {"align_epochs": 1})
    bare = replace(task.valid, histories=Histories.of([np.empty(0, np.int64)] * len(task.valid)))
    bare = replace(bare, candidates=np.tile([7, 8, 9], (len(bare), 1)))
    scores = method.score(bare)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores, np.tile(scores[0], (len(bare), 1)), rtol=1e-6)


def test_the_same_seed_gives_the_same_scores_and_leaves_the_global_random_state_alone(tmp_path):
    task, state = make_task(tmp_path), torch.get_rng_state()
    first, second, other = (fitted("ctrl", task, {"align_epochs": 1}, seed)[0].score(task.valid) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_sentence_of_an_item_holds_what_the_catalogue_knows():
    fields = {"year": ("1979", ""), "genres": ("Horror, Sci-Fi", "Drama")}
    catalogue = Catalogue("films", ("u",), ("a", "b"), ("Alien", "Heat"), fields)
    assert [align.sentence(catalogue, item) for item in (0, 1)] == [
        "This is an item, title is Alien, year is 1979, genres is Horror, Sci-Fi.",
        "This is an item, title is Heat, genres is Drama.",
    ]


class Untouched(torch.nn.Module):
    """As much of a model as alignment looks at; a record's hidden layer is its candidate's number."""

    ITEM_SEQ, ITEM_ID = "seq", "item"

    def __init__(self):
        super().__init__()
        self.dnn_mlp_layers = torch.nn.Identity()
        self.dnn_predict_layers = torch.nn.Linear(4, 1)

    def predict(self, records):
        return self.dnn_predict_layers(self.dnn_mlp_layers(functional.one_hot(records["item"], 4).float()))


def test_similarity_and_loss_are_those_of_the_formulas():
    torch.manual_seed(0)
    texts = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    texts[0] = 0
    records = {"seq": torch.tensor([[1, 2, 0], [0, 0, 0], [3, 0, 0]]), "item": torch.tensor([3, 1, 2])}
    sides = align.Sides(
        Untouched(), texts, Ctrl(align_epochs=1, align_rate=1e-3, temperature=0.5, space_size=6, parts=2)
    )
    read = sides.text(records)
    np.testing.assert_allclose(read[0, :6], (texts[1] + texts[2]) / 2, rtol=1e-6)
    assert not read[1, :6].any()
    np.testing.assert_array_equal(read[:, 6:], texts[[3, 1, 2]])
    table, text = sides.from_table(sides.hidden(records)).detach(), sides.from_text(read).detach()
    expected = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            best = [
                max(functional.cosine_similarity(a, b, dim=0).item() for b in text[j].split(3))
                for a in table[i].split(3)
            ]
            expected[i, j] = np.mean(best)
    np.testing.assert_allclose(sides(records).detach(), expected, rtol=1e-5)
    logits = torch.from_numpy(expected) / 0.5
    loss = -(logits.log_softmax(1).diagonal().mean() + logits.log_softmax(0).diagonal().mean()) / 2
    np.testing.assert_allclose(sides.loss(records).item(), loss.item(), rtol=1e-5)


def test_what_it_needs_is_said(tmp_path):
    with pytest.raises(registry.MethodError, match="space_size 10 cannot be cut into 4 equal parts"):
        registry.create("ctrl", {"space_size": 10, "parts": 4})
    for name, value in {"parts": 0, "space_size": 0, "align_epochs": -1, "temperature": 0.0, "align_rate": 0.0}.items():
        with pytest.raises(registry.MethodError, match=f"{name} is "):
            registry.create("ctrl", {name: value})
    with pytest.raises(NotRunnable, match="no folder '/nowhere' to load a model from; the default comes with"):
        fitted("ctrl", make_task(tmp_path), {"encoder": "/nowhere"})
