import importlib.util
import logging
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("recbole")

import torch

from benchmarks.protocol import Problem
from data import candidates
from data.dataset import Catalogue, Dataset
from data.histories import Histories
from data.split import leave_one_out
from data.types import FloatArray
from methods.base import Compute, NotRunnable, Requests, Task, valid_targets
from methods.recbole import adapter, environment, files, training
from methods.recbole.adapter import RecBoleModel
from methods.registry import MethodError, create

GENERAL = ["bpr", "lightgcn"]
SEQUENTIAL = ["caser", "din", "hgn", "gru4rec", "bert4rec", "sasrec", "s3rec"]
SMALL = {"epochs": 2, "train_batch_size": 64}
PRETRAINING = "binary cross-entropy of masked items, attributes and segments"
LEDGER = {
    "bpr": ("BPR", "1"),
    "lightgcn": ("BPR", "1"),
    "din": ("binary cross-entropy", "1"),
    "s3rec": (f"{PRETRAINING}, then cross-entropy", "1, then all items"),
}
USERS, ITEMS, LENGTH = 40, 30, 12
UNTRAINED = ITEMS - 1


def dataset(fields: Mapping[str, tuple[str, ...]]) -> Dataset:
    """Users who walk through the items in steps of one or two; the last item is only ever a candidate."""
    rng = np.random.default_rng(0)
    steps = rng.integers(1, 3, (USERS, LENGTH))
    rows = [(rng.integers(ITEMS - 1) + np.cumsum(step)) % (ITEMS - 1) for step in steps]
    catalogue = Catalogue(
        "walks",
        tuple(f"u{user}" for user in range(USERS)),
        tuple(f"i{item}" for item in range(ITEMS)),
        tuple(f"Item {item}" for item in range(ITEMS)),
        fields,
    )
    return Dataset(catalogue, Histories.of(rows), np.tile(np.arange(float(LENGTH)), USERS))


GENRES = {"genres": tuple(f"Any, Kind {item % 3}" + ", Odd" * (item % 2) for item in range(ITEMS))}


@pytest.fixture(scope="module")
def problem() -> Problem:
    walks = dataset(GENRES)
    split = leave_one_out(walks)
    test = candidates.full(walks, split.test, split.test_users)
    return Problem(walks, split, test, candidates.full(walks, split.valid, split.valid_users))


@pytest.fixture(scope="module")
def task(problem: Problem, tmp_path_factory: pytest.TempPathFactory) -> Task:
    return problem.task(Compute(cache=tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def requests(problem: Problem) -> Requests:
    return problem.test_requests()


def fitted(name: str, task: Task, seed: int = 0, **settings: Any) -> RecBoleModel:
    model = create(name, {**SMALL, **settings})
    assert isinstance(model, RecBoleModel)
    model.fit(task, seed)
    return model


def test_a_note_on_one_epoch_is_in_the_singular(task: Task) -> None:
    assert "limit of 1 epoch," in create("bpr", {**SMALL, "epochs": 1}).fit(task, seed=0).note


@pytest.mark.parametrize("name", [*GENERAL, *SEQUENTIAL])
def test_every_model_fits_and_scores_all_candidates_the_untrained_item_too(
    name: str, task: Task, requests: Requests
) -> None:
    model = create(name, SMALL)
    report = model.fit(task, seed=0)
    scores = model.score(requests)
    assert scores.shape == requests.candidates.shape
    assert UNTRAINED not in task.train.items
    assert np.isfinite(scores).all()
    assert (scores.std(axis=1) > 0).all()
    passes = 3 if name == "s3rec" else 2
    assert report.epochs == passes
    assert report.converged is False
    assert report.interactions >= passes * USERS * (LENGTH - 3)
    assert "limit of 2 epochs" in report.note
    assert (report.loss, report.negatives) == LEDGER.get(name, ("cross-entropy", "all items"))


@pytest.mark.parametrize(("name", "learnt"), [("bpr", 1), ("lightgcn", 1), ("hgn", 2), ("caser", 2), ("sasrec", 0)])
def test_users_it_has_learnt_nothing_of_are_average_users(
    task: Task, requests: Requests, name: str, learnt: int
) -> None:
    rows = [items[: max(0, user)] for user, items in enumerate(task.train)]  # of 0, 1, 2, ... items
    model = create(name, SMALL)
    report = model.fit(replace(task, train=Histories.of(rows)), seed=0)
    assert ("mean vector of the others stands for" in report.note) == bool(learnt)
    assert isinstance(model, RecBoleModel)
    if name in GENERAL:  # whose scores are linear in what they know of a user
        scores = model.score(replace(requests, candidates=np.tile(np.arange(ITEMS), (USERS, 1))))
        assert scores[:learnt] == pytest.approx(scores[learnt:].mean(axis=0, keepdims=True), abs=1e-6)
    elif learnt:
        vectors, users = model.trained.model.user_embedding.weight.detach(), torch.from_numpy(model.trained.users)
        assert torch.allclose(vectors[users[:learnt]], vectors[users[learnt:]].mean(dim=0))
    assert np.isfinite(model.score(requests)).all()


def test_a_model_that_scores_pairs_ranks_all_items_for_some_validation_users_only(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "VALID_PAIRS", 7 * ITEMS)
    written: list[Task] = []
    write = files.write
    monkeypatch.setattr(files, "write", lambda task, *rest: written.append(task) or write(task, *rest))
    notes = {name: create(name, SMALL).fit(task, seed=0).note for name in ("din", "ctrl", "sasrec")}
    assert f"stops early on 7 of {USERS} validation users" in notes["din"] and "stops early on" not in notes["sasrec"]
    few, same, everybody = written
    assert len(everybody.valid) == USERS and np.array_equal(few.valid.users, same.valid.users)
    own = task.valid.users.searchsorted(few.valid.users)
    assert np.array_equal(valid_targets(few), valid_targets(task)[own])


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_the_oldest_shown_item_changes_the_scores_of_a_sequential_model(
    name: str, task: Task, requests: Requests
) -> None:
    model = fitted(name, task)
    assert (requests.histories.lengths == task.history_length).all()
    changed = Histories.of(np.concatenate([[(row[0] + 7) % (ITEMS - 1)], row[1:]]) for row in requests.histories)
    before, after = model.score(requests), model.score(replace(requests, histories=changed))
    assert (np.abs(before - after).max(axis=1) > 1e-7).all()


@pytest.mark.parametrize("name", GENERAL)
def test_the_history_changes_nothing_for_a_general_model(name: str, task: Task, requests: Requests) -> None:
    model = fitted(name, task)
    other = replace(requests, histories=Histories.of(row[::-1][:3] for row in requests.histories))
    np.testing.assert_array_equal(model.score(requests), model.score(other))


@pytest.mark.parametrize("name", ["bert4rec", "sasrec", "hgn"])
def test_histories_of_no_one_and_too_many_items_are_scored(name: str, task: Task, requests: Requests) -> None:
    model = fitted(name, task)
    three = requests.select(np.arange(3))
    long = np.arange(20)
    scores = model.score(replace(three, histories=Histories.of([long[:0], long[:1], long])))
    shown = model.score(replace(three, histories=Histories.of([long[:0], long[:1], long[-10:]])))
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores, shown)


@pytest.mark.parametrize("seed", range(3))
def test_a_batch_of_one_short_list_trains_every_model(seed: int, task: Task) -> None:
    few = Histories.of(items[: 2 if user == 0 else 1] for user, items in enumerate(task.train))
    alone = replace(task, train=few, valid=replace(task.valid, histories=few))
    for name in (*GENERAL, *SEQUENTIAL):
        model = create(name, {"epochs": 5})
        model.fit(alone, seed)
        assert np.isfinite(model.score(alone.valid.select(np.arange(1)))).all()


def full_ranking(scores: FloatArray, targets: np.ndarray) -> dict[str, float]:
    rank = (scores > np.take_along_axis(scores, targets[:, None], axis=1)).sum(axis=1)
    hit = rank < 10
    return {
        "ndcg@10": float(np.mean(hit / np.log2(rank + 2))),
        "hit@10": float(np.mean(hit)),
        "mrr@10": float(np.mean(hit / (rank + 1))),
    }


@pytest.mark.parametrize("name", [*GENERAL, *SEQUENTIAL])
def test_full_ranking_agrees_with_recbole_s_own_evaluator(
    name: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = training._protocol
    monkeypatch.setattr(training, "_protocol", lambda *a: protocol(*a) | {"metrics": ["NDCG", "Hit", "MRR"]})
    model = fitted(name, task, epochs=6, learning_rate=0.01)
    scores = model.score(replace(task.valid, candidates=np.tile(np.arange(ITEMS), (len(task.valid), 1))))
    if name in GENERAL:  # RecBole masks the training items of general models, and nothing of sequential ones
        for row, user in enumerate(task.valid.users):
            scores[row, task.train[user]] = -np.inf
    expected = dict(model.trained.valid)
    assert expected == pytest.approx(full_ranking(scores, valid_targets(task)), abs=1e-6)
    assert 0 < expected["ndcg@10"] < 1


@pytest.mark.parametrize("name", ["bpr", "bert4rec", "s3rec"])
def test_the_seed_decides_everything(name: str, task: Task, requests: Requests) -> None:
    first = fitted(name, task, seed=3).score(requests)
    np.random.default_rng(0)
    random.random()
    torch.rand(1)
    np.testing.assert_array_equal(first, fitted(name, task, seed=3).score(requests))
    assert not np.array_equal(first, fitted(name, task, seed=4).score(requests))


def test_training_learns_and_stops_by_itself(task: Task, requests: Requests, problem: Problem) -> None:
    model = create("sasrec", {"epochs": 200, "patience": 3, "learning_rate": 0.01, "train_batch_size": 64})
    report = model.fit(task, seed=0)
    assert report.converged is True
    assert report.epochs < 200
    assert report.note == ""
    assert full_ranking(model.score(requests), problem.test.targets)["hit@10"] > 0.9


def test_patience_is_the_number_of_validations_without_a_better_one(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.5, *[0.4] * 50])
    monkeypatch.setattr("recbole.trainer.Trainer._valid_epoch", lambda *_, **__: (next(values), {}))
    report = create("bpr", {**SMALL, "epochs": 30, "patience": 3}).fit(task, seed=0)
    assert (report.epochs, report.converged) == (4, True)


def test_lightgcn_ranks_with_the_embeddings_of_the_kept_epoch(
    task: Task, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbole.trainer import Trainer

    values, validate = iter([0.5, 0.4, 0.3]), Trainer._valid_epoch
    monkeypatch.setattr(Trainer, "_valid_epoch", lambda *a, **k: (validate(*a, **k), (next(values), {}))[1])
    trained = (model := fitted("lightgcn", task, epochs=3, learning_rate=0.05)).trained
    users, items = trained.model.forward()
    users, items = users[trained.users[requests.users]], items[trained.items[requests.candidates]]
    expected = (users[:, None] * items).sum(-1).detach()
    np.testing.assert_allclose(model.score(requests), expected, rtol=1e-4)


def test_s3rec_goes_on_from_what_it_has_pretrained(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    items, train, save = [], training.train, torch.save

    def spy(stage: training.Stage, model: torch.nn.Module, *rest: Any) -> training.Trained:
        items.append(model.state_dict()["item_embedding.weight"].clone())
        return train(stage, model, *rest)

    def saved(what: dict[str, Any], path: object) -> None:
        items.append(what["state_dict"]["item_embedding.weight"].clone())
        save(what, path)

    monkeypatch.setattr(training, "train", spy)
    monkeypatch.setattr(torch, "save", saved)
    fitted("s3rec", task)
    assert torch.equal(*items)


def test_nothing_of_recbole_s_is_left_behind(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml
    from scipy.sparse import dok_matrix

    cwd, temporary = tmp_path / "cwd", tmp_path / "temporary"
    cwd.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(cwd)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(sys, "argv", ["run", "--epochs=3", "--learning_rate=-1"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")

    def state() -> tuple[object, ...]:
        numpy = {name: value for name, value in vars(np).items() if not name.startswith("_")}
        root = logging.getLogger()
        return (
            (dict(os.environ), list(sys.argv), torch.load, numpy, dict(yaml.FullLoader.yaml_implicit_resolvers)),
            (root.level, list(root.handlers), list(root.filters), "_update" in vars(dok_matrix)),
            (random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state())),
            (torch.is_anomaly_enabled(), torch.get_num_threads(), torch.backends.cudnn.deterministic),
        )

    before = state()
    report = create("lightgcn", SMALL).fit(replace(task, compute=Compute(threads=2)), seed=0)
    create("s3rec", SMALL).fit(task, seed=0)
    assert report.epochs == 2
    assert state() == before
    assert list(cwd.iterdir()) == []
    assert list(temporary.iterdir()) == []


def test_recbole_s_log_goes_to_the_suite_s_logger_without_colours(
    task: Task, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        create("bpr", SMALL).fit(task, seed=0)
    recbole = [record for record in caplog.records if "train_batch_size" in record.getMessage()]
    assert {record.name for record in recbole} == {"methods.recbole"}
    assert "\x1b" not in recbole[0].getMessage()
    out, err = capfd.readouterr()  # the method's own bar, and nothing of RecBole's
    assert out == "" and all(not line.strip() or line.startswith("bpr: ") for line in err.split("\r"))


def test_without_attributes_s3rec_only_finetunes(task: Task, requests: Requests) -> None:
    bare = replace(task, catalogue=dataset({}).catalogue)
    model = create("s3rec", SMALL)
    report = model.fit(bare, seed=0)
    assert "no attributes: finetuned only" in report.note
    assert (report.epochs, report.loss, report.negatives) == (2, "cross-entropy", "all items")
    assert report.interactions == 2 * USERS * (LENGTH - 3)
    assert np.isfinite(model.score(requests)).all()


def test_attributes_are_the_telling_words_of_genres_or_categories() -> None:
    movies = dataset({"genres": ("Drama, War", "Drama", "", *["War"] * (ITEMS - 3))}).catalogue
    beauty = dataset({"categories": ("Beauty > Gels & Lotions, Oils", *["Beauty > Hair"] * (ITEMS - 1))}).catalogue
    assert (files.attributes(movies) or [])[:4] == ["0 1", "1", "", "0"]
    assert (files.attributes(beauty) or [])[:2] == ["1", "0"]
    atomic = dataset({"genres": ("",) * ITEMS, "class": ("Drama War", "Drama", *["War"] * (ITEMS - 2))}).catalogue
    assert (files.attributes(atomic) or [])[:3] == ["0 1", "1", "0"]
    whole = dataset({"category": ("Sports & Outdoors", *["Toys & Games"] * (ITEMS - 1))}).catalogue
    assert (files.attributes(whole) or [])[:2] == ["1", "0"]
    piped = dataset({"genres": ("Drama|War", *["War"] * (ITEMS - 2), "")}).catalogue
    assert (files.attributes(piped) or [])[:2] == ["0 1", "0"]
    assert files.attributes(dataset({"year": ("1990",) * ITEMS}).catalogue) is None


def test_histories_shorter_than_the_limit_do_not_break_any_model(task: Task, requests: Requests) -> None:
    long = replace(task, history_length=50)
    for name in ("hgn", "caser", "din"):
        assert np.isfinite(fitted(name, long).score(requests)).all()


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    for missing, command in [
        ("recbole", "pip install --no-deps recbole==1.2.1"),
        ("colorlog", "pip install 'colorlog'"),
        ("yaml", "pip install 'pyyaml'"),
    ]:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, m=missing: None if name == m else found(name))
        with pytest.raises(NotRunnable, match=command):
            create("bpr", SMALL).fit(task, seed=0)


def test_pandas_3_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas

    monkeypatch.setattr(pandas, "__version__", "3.0.1")
    with pytest.raises(NotRunnable, match=r"pip install 'pandas<3'"):
        environment.require()


def test_nothing_to_stop_on_or_to_learn_from_is_said(task: Task) -> None:
    with pytest.raises(NotRunnable, match="validation users"):
        create("bpr", SMALL).fit(replace(task, valid=task.valid.select(np.arange(0))), seed=0)
    with pytest.raises(NotRunnable, match="two or more training items"):
        create("sasrec", SMALL).fit(replace(task, train=task.train.last(1)), seed=0)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        *((name, {"learning_rate": rate}, "more than 0") for name in ("bpr", "sasrec", "ctrl") for rate in (0.0, -1.0)),
        *((name, {"dropout_prob": share}, "below 1") for name in ("caser", "din", "gru4rec") for share in (1.0, -0.1)),
        *(("sasrec", {name: 1.0}, "below 1") for name in ("hidden_dropout_prob", "attn_dropout_prob")),
        *(("bert4rec", {name: 1.5}, "at most 1") for name in ("mask_ratio", "ft_ratio")),
        ("lightgcn", {"reg_weight": -0.1}, "at least 0"),
        ("s3rec", {"pretrain_epochs": -2}, "at least 0"),
        *((name, {"n_layers": 0}, "at least 1") for name in ("sasrec", "bert4rec")),
        ("lightgcn", {"n_layers": -1}, "at least 0"),
        *((name, {"embedding_size": -8}, "at least 1") for name in ("bpr", "hgn", "caser", "din", "ctrl")),
    ],
)
def test_rates_shares_and_weights_that_make_no_sense_are_refused(
    name: str, settings: dict[str, float], said: str
) -> None:
    ((setting, value),) = settings.items()
    with pytest.raises(MethodError, match=f"{setting} is .*{said}, not {value}"):
        create(name, settings)


def test_wrong_settings_are_refused(task: Task) -> None:
    with pytest.raises(MethodError, match="did you mean 'hidden_size'"):
        create("sasrec", {"hiden_size": 8})
    with pytest.raises(ValueError, match="patience is at least 1"):
        create("sasrec", {"patience": 0})
    with pytest.raises(MethodError, match="pooling_type is 'average' or 'max', not 'mean'"):
        create("hgn", {"pooling_type": "mean"})
    for widths in ([], [64, 0]):
        with pytest.raises(MethodError, match="mlp_hidden_size holds one or more widths"):
            create("din", {"mlp_hidden_size": widths})
    with pytest.raises(ValueError, match="epochs is a setting of its own"):
        create("sasrec", {"options": {"epochs": 3}})
    with pytest.raises(ValueError, match="did you mean 'layer_norm_eps'"):
        create("sasrec", {"options": {"layer_norm_epsilon": 1e-6}}).fit(task, seed=0)


@pytest.mark.parametrize("name", ["bpr", "sasrec", "din"])
@pytest.mark.parametrize(
    "option",
    [
        *("seed", "loss_type", "train_neg_sample_args", "metrics", "eval_step", "transform", "save_step"),
        *("user_inter_num_interval", "item_inter_num_interval", "val_interval", "rm_dup_inter"),
        *("ITEM_LIST_LENGTH_FIELD", "USER_ID_FIELD", "field_separator", "seq_separator"),
    ],
)
def test_options_that_the_suite_sets_are_refused(name: str, option: str, task: Task) -> None:
    with pytest.raises(ValueError, match=f"'{option}' is set by the suite and cannot be changed"):
        create(name, {"options": {option: 2}}).fit(task, seed=0)


@pytest.mark.parametrize(
    ("name", "option", "said"),
    [
        ("bpr", "require_pow", "BPR reads no option 'require_pow'"),
        ("bpr", "layer_norm_eps", "BPR reads no option"),
        ("sasrec", "loss_decimal_place", "SASRec reads no option"),
        ("sasrec", "mask_ratio", "SASRec reads no option"),
        ("din", "discretization", "DIN reads no option"),
        ("din", "pooling_mode", "DIN reads no option"),
        ("ctrl", "weight_decai", "DIN reads no option 'weight_decai': did you mean 'weight_decay'"),
    ],
)
def test_options_that_would_do_nothing_are_refused(name: str, option: str, said: str, task: Task) -> None:
    with pytest.raises(ValueError, match=said):
        create(name, {"options": {option: 2}}).fit(task, seed=0)


@pytest.mark.parametrize("learner", ["sgdx", "sparse_adam", "", 3])
def test_unknown_optimisers_are_refused(learner: object, task: Task) -> None:
    with pytest.raises(ValueError, match="learner is adam, adamw, sgd, adagrad or rmsprop, not "):
        create("bpr", {"options": {"learner": learner}}).fit(task, seed=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("bpr", {"learner": learner}) for learner in ("sgd", "adagrad", "rmsprop")),
        *(("bpr", {"learner": learner, "weight_decay": 0.1}) for learner in ("Adam", "AdamW")),
        ("bpr", {"shuffle": False}),
        ("gru4rec", {"clip_grad_norm": {"max_norm": 1e-6}}),
        ("lightgcn", {"require_pow": True}),
        ("sasrec", {"initializer_range": 0.1}),
        ("hgn", {"reg_weight": [0.1, 0.1]}),
        ("s3rec", {"aap_weight": 5.0}),
    ],
)
def test_options_that_are_taken_do_something(
    name: str, options: dict[str, object], task: Task, requests: Requests
) -> None:
    changed = fitted(name, task, options=options).score(requests)
    assert not np.array_equal(changed, fitted(name, task).score(requests))


def test_only_the_declared_packages_are_imported() -> None:
    program = """
import sys
for name in ("ray", "thop", "plotly", "tabulate", "hyperopt", "wandb", "psutil"):
    sys.modules[name] = None
from tests.methods import test_recbole as t
walks = t.dataset(t.GENRES); split = t.leave_one_out(walks)
lists = t.candidates.full(walks, split.valid, split.valid_users)
task = t.Problem(walks, split, lists, lists).task(t.Compute())
for name in [*t.GENERAL, *t.SEQUENTIAL]:
    t.create(name, {"epochs": 1}).fit(task, 0)
"""
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True, timeout=300)
