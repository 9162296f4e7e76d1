"""What the study of Effect_D measures, writes and draws."""

import json
from itertools import combinations

import numpy as np
import pytest

from benchmarks import effect_study
from benchmarks.effect_study import Effect, Quality, correlations, main, study
from methods.ranks import mid_rank, ndcg
from methods.registry import create
from tests.methods.lrgd.world import make_world

SMALL = {"backbone_steps": 2, "training_steps": 2, "own": 2, "others": 4, "targets": 1}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def method(task):
    made = create("lrgd/stage1", {**SMALL, "shots": 2})
    made.fit(task, 0)
    return made


@pytest.fixture(scope="module")
def found(method, task):
    return list(study(method, task, users=5, sets=6, seed=0))


def test_effects_of_sets_are_sums_of_those_of_their_demonstrations(found, method, task):
    assert len({effects[0].user for effects, _ in found}) == 5
    for effects, qualities in found:
        user = task.catalogue.user_ids.index(effects[0].user)
        assert [one.first_order for one in effects] == pytest.approx(method.selector.effects(user)[1])
        assert len(qualities) == 6
        for one in qualities:
            sums = [
                np.sum([(e.exact, e.first_order) for e in few], axis=0)
                for few in combinations(effects, min(2, len(effects)))
            ]
            assert any(np.allclose(total, (one.exact, one.first_order)) for total in sums)
    assert any(len({one.exact for one in qualities}) > 1 for _, qualities in found)


def test_quality_is_that_of_the_list_behind_the_shown_set(found, method, task, monkeypatch):
    monkeypatch.setattr(effect_study, "generator", lambda *_: np.random.default_rng(3))
    (_, qualities), *_ = study(method, task, users=1, sets=4, seed=0)
    rng = np.random.default_rng(3)
    row = int(rng.permutation(len(task.valid))[0])
    rng, asked = np.random.default_rng(3), task.valid.select(np.array([row]))
    demonstrations, _ = method.selector.effects(int(asked.users[0]))
    for one in qualities:
        shown = tuple(demonstrations[n] for n in rng.permutation(len(demonstrations))[:2].tolist())
        scores = method.scorer.answer_likelihood([method.prompt(asked, 0, shown)])
        assert one.ndcg == pytest.approx(ndcg(mid_rank(scores, task.valid_positive[[row]]))[0])


def test_correlations_are_means_over_users(found):
    effects = [Effect(user, n, n, sign * n) for user, sign in (("a", 1), ("b", 1), ("c", -1)) for n in range(5)]
    sets = [Quality(user, n, n, -n, auc, 0.5) for user in "ab" for n, auc in enumerate((0.1, 0.2, 0.4))]
    numbers = correlations(effects, sets)
    within = numbers["exact against first_order"]
    assert within["mean"] == pytest.approx(1 / 3) and within["users"] == 3 and within["low"] < 0 < within["high"]
    assert numbers["exact against auc"]["mean"] == 1.0 and numbers["first_order against auc"]["mean"] == -1.0
    assert numbers["exact against ndcg"]["users"] == 0


@pytest.mark.parametrize("flags", [("--users", "0"), ("--users", "-5"), ("--sets", "3")])
def test_too_few_users_or_sets_are_refused_before_anything_is_measured(flags, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--output-dir", str(tmp_path / "new"), *flags])
    assert f"{flags[0]}: " in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_redrawing_what_was_never_measured_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--output-dir", str(tmp_path), "--redraw"])
    assert "holds no demonstrations.csv and no sets.csv" in capsys.readouterr().err


def test_numbers_and_figure_can_be_made_again_without_a_model(found, tmp_path, monkeypatch, capsys):
    tables = {
        effect_study.DEMONSTRATIONS: [effect for effects, _ in found for effect in effects],
        effect_study.SETS: [quality for _, qualities in found for quality in qualities],
    }
    monkeypatch.setattr(effect_study, "_measure", lambda *_: tables)
    assert main(["--output-dir", str(tmp_path)]) == 0
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert json.loads(first["effect.json"]) == json.loads(capsys.readouterr().out)
    for name in ("effect.json", "effect.png"):
        (tmp_path / name).unlink()
    monkeypatch.setattr(effect_study, "_measure", lambda *_: pytest.fail("measured again"))
    main(["--output-dir", str(tmp_path), "--redraw"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
