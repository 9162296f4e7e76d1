"""The study of searched triggers writes what it measured."""

import csv
import json

import numpy as np
import pytest

from benchmarks import trigger_study
from benchmarks.protocol import Protocol
from benchmarks.trigger_study import Gain, Prompt, correlations
from methods.base import Compute
from methods.lm.tuning import valid_sample
from methods.paprec.surrogate import surrogate
from tests.conftest import write_atomic
from tests.methods.p5.world import make_titled_task, save

RANDOM = "random prompts: surrogate against test ndcg@10"


def prompt(source, value, ndcg, row="paprec", valid=0.0):
    return Prompt(source, row, 10, 5, 1.0, value, valid, value, ndcg)


def test_correlations_are_of_random_prompts_of_the_search_for_user_triggers_and_of_users():
    prompts = [prompt("random", value, 2 * value, row="", valid=-value) for value in (0.1, 0.3, 0.2)]
    prompts += [prompt("global", value, -value) for value in (0.1, 0.3, 0.2)]
    prompts += [prompt("global", value, value, row="paprec/shared") for value in (0.1, 0.3, 0.2)]
    gains = [Gain("a", 0.5, 0.1), Gain("b", 0.0, 0.0), Gain("c", 1.0, 0.3)]
    found = correlations(prompts, gains)
    assert found[RANDOM]["spearman"] == pytest.approx(1.0)
    assert found["random prompts: whole lists against test ndcg@10"]["spearman"] == pytest.approx(-1.0)
    assert found["prompts passed: surrogate against test ndcg@10"]["spearman"] == pytest.approx(-1.0)
    assert found["users: gain on validation against gain on test"]["spearman"] == pytest.approx(1.0)
    assert found["users that gained on validation"] == 2
    assert found["their mean gain on test"] == pytest.approx(0.2)


def test_a_correlation_has_an_interval_that_more_prompts_make_narrower():
    rng, width = np.random.default_rng(0), {}
    for n in (12, 120):
        values = rng.random(n)
        prompts = [prompt("random", v, v + rng.random(), row="") for v in values]
        found = correlations([*prompts, prompt("global", 0.1, 0.1)], [])[RANDOM]
        assert found["low"] < found["spearman"] < found["high"] and found["n"] == n
        width[n] = found["high"] - found["low"]
    assert width[120] < width[12] / 2


def test_fewer_users_are_a_part_of_more(tmp_path):
    task = make_titled_task(tmp_path)
    few, more = (trigger_study.with_users(task, users, seed=0) for users in (5, 20))
    assert (len(few.valid), len(more.valid)) == (5, 20) and set(few.valid.users) < set(more.valid.users)
    users = few.valid.users
    np.testing.assert_array_equal(few.valid_positive, task.valid_positive[users])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder of a study on a tiny data set, and the methods that searched in it."""
    folder, methods = tmp_path_factory.mktemp("study"), []
    dataset = write_atomic(folder / "tiny", users=150, items=120, length=10)
    hub = save(folder / "hub", "Thing Number Co & ", *map(str, range(120)))
    quick = {"epochs": 0, "budget": 32, "top": 4, "sample": 24, "negatives": 9}
    settings = [argument for name, value in quick.items() for argument in ("--set", f"{name}={value}")]
    given = ["--output-dir", str(folder / "out"), "--cache-dir", str(folder), "--users", "24", "12", "--random", "3"]
    search = trigger_study.searched

    def watched(row, settings, task, seed):
        method, passed = search(row, settings, task, seed)
        methods.append((row, method, passed, task, method.tokens.copy()))
        return method, passed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trigger_study, "searched", watched)
        patch.setattr(trigger_study, "Protocol", lambda: Protocol(negatives=20))
        patch.setattr(trigger_study, "Compute", lambda **k: Compute(backbone=str(hub), **k))
        assert trigger_study.main([*given, *settings, "--dataset", str(dataset)]) == 0
    return folder / "out", methods


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_it_writes_tables_numbers_and_a_figure(study):
    folder, _ = study
    rows = table(folder / "prompts.csv")
    assert [row["source"] for row in rows[:4]] == ["start", "random", "random", "random"]
    searches = list(dict.fromkeys((row["row"], row["users"]) for row in rows[4:]))
    assert searches == [("paprec/shared", "12"), ("paprec/shared", "24"), ("paprec", "24")]
    assert {row["source"] for row in rows if row["row"] == "paprec"} == {"global", "user", "final"}
    assert {row["source"] for row in rows if row["row"] == "paprec/shared"} == {"global", "final"}
    numbers = json.loads((folder / "triggers.json").read_text())
    assert numbers["evaluations"] == 32 and numbers["tokens tried per second"] > 0 and "commit" in numbers
    assert numbers[RANDOM]["n"] == 3
    assert numbers["seed"] == 0 and numbers["settings"]["budget"] == 32 and numbers["dataset"].endswith("tiny")
    assert (folder / "triggers.png").stat().st_size > 5000


def test_all_prompts_are_judged_on_the_users_of_the_largest_search(study):
    folder, methods = study
    judge, largest = methods[0][1], methods[0][3]
    few = next(tokens for row, _, _, task, tokens in methods if row == "paprec/shared" and len(task.valid) == 12)
    shown = valid_sample(largest, 24, 9, 0)
    judge.tokens = few
    expected = (
        surrogate(judge.score(shown)).mean(),
        surrogate(judge.score(largest.valid), largest.valid_positive).mean(),
    )
    row = next(r for r in table(folder / "prompts.csv") if (r["source"], r["users"]) == ("final", "12"))
    assert (float(row["surrogate"]), float(row["valid_surrogate"])) == pytest.approx(expected, abs=1e-5)


def test_gains_are_those_of_user_triggers_beside_the_same_global_ones(study):
    folder, methods = study
    (_, judge, _, largest, start), *_, (_, _, passed, _, _) = methods
    after = [tokens for step, tokens in passed if (step.kind, step.round) == ("user", 1)][-1]
    before = after.copy()
    before[:, 5:] = start[:, 5:]
    assert (before != start).any(), "nothing told global triggers from those of the start"
    shown = valid_sample(largest, 24, 9, 0)
    values = []
    for tokens in (before, after):
        judge.tokens = tokens
        values.append(surrogate(judge.score(shown)))
    gains = [float(row["surrogate"]) for row in table(folder / "users.csv")]
    assert gains == pytest.approx((values[1] - values[0]).tolist(), abs=1e-5) and min(gains) >= 0 < max(gains)


@pytest.mark.parametrize(
    ("given", "said"),
    [("nonsense=1", "has no setting 'nonsense'"), ("budget", "SETTING=VALUE"), ("evidence=test", "'validation' or")],
)
def test_unfit_settings_are_refused(tmp_path, capsys, given, said):
    with pytest.raises(SystemExit):
        trigger_study.main(["--output-dir", str(tmp_path), "--set", given])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--users", "50", "151"], "has 150 users to search"),
        (["--users", "1"], "at least 2"),
        (["--set", "budget=0"], "leave budget and global_tokens above 0"),
        (["--set", "global_tokens=0"], "leave budget and global_tokens above 0"),
    ],
    ids=" ".join,
)
def test_a_study_that_cannot_be_made_is_refused_before_anything_is_trained(tmp_path, capsys, monkeypatch, given, said):
    dataset = write_atomic(tmp_path / "tiny", users=150, items=120, length=10)
    monkeypatch.setattr(trigger_study, "Protocol", lambda: Protocol(negatives=20))
    monkeypatch.setattr(trigger_study, "freeze", None)
    with pytest.raises(SystemExit):
        trigger_study.main(["--output-dir", str(tmp_path / "out"), "--dataset", str(dataset), *given])
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_data_set_that_is_not_there_is_said(tmp_path, capsys):
    with pytest.raises(SystemExit):
        trigger_study.main(["--output-dir", str(tmp_path), "--dataset", "nowhere"])
    assert "error: " in (said := capsys.readouterr().err) and "nowhere" in said
