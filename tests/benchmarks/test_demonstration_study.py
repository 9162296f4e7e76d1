"""What the study of demonstrations measures and writes."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import demonstration_study
from benchmarks.demonstration_study import VARIANTS, List, Variant, main, study, table
from methods.base import Showing
from methods.ranks import mid_rank, ndcg
from methods.registry import create
from tests.methods.lrgd.world import make_world

SMALL = {"backbone_steps": 2, "training_steps": 2, "own": 2, "others": 8}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("cache"))


def test_every_list_is_ranked_behind_every_number_of_demonstrations(task):
    found = list(study(task, Variant("little", "evidence", "all", "lrgd/similar", SMALL), seed=1, users=6))
    method = create("lrgd/similar", SMALL)
    method.fit(task, 1)
    assert len(found) == 6 * 5 and {one.seed for one in found} == {1}
    for one in found:
        row = task.catalogue.user_ids.index(one.user)
        at = int(np.flatnonzero(task.valid.users == row)[0])
        asked = replace(task.valid.select(np.array([at])), showing=Showing(one.demonstrations))
        assert one.ndcg == pytest.approx(ndcg(mid_rank(method.score(asked), task.valid_positive[[at]]))[0])


def test_variants_are_rows_with_settings_of_their_own():
    assert len({(v.training, v.shown, v.pool) for v in VARIANTS}) == len(VARIANTS)
    for variant in VARIANTS:
        assert create(variant.row, variant.settings).targets == (
            0 if "all training" in variant.pool else int(variant.pool[-1])
        )


def test_differences_are_paired_within_users():
    values = {("a", 0): (0.1, 0.3), ("b", 0): (0.9, 1.0), ("a", 1): (0.3, 0.3), ("b", 1): (0.5, 0.8)}
    lists = [
        List("t", "s", "p", seed, u, n, v[n > 0]) for (u, seed), v in values.items() for n in demonstration_study.COUNTS
    ]
    (row,) = table(lists).rows
    # Means over seeds: a .2 to .3, b .7 to .9.
    assert row["0"] == pytest.approx(0.45) and row["4"] == "+0.150 ± 0.050"
    assert "2 validation users, mean over seeds (2)" in table(lists).caption


@pytest.mark.parametrize(("flags", "said"), [(("--users", "0"), "--users: "), (("--redraw",), "holds no lists.csv")])
def test_what_cannot_be_done_is_refused_before_anything_is_measured(flags, said, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--output-dir", str(tmp_path / "new"), *flags])
    assert said in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_the_table_can_be_made_again_without_a_model(tmp_path, monkeypatch, capsys):
    lists = [List("t", "s", "p", 0, user, n, 0.25) for user in "ab" for n in demonstration_study.COUNTS]
    monkeypatch.setattr(demonstration_study, "_measure", lambda *_: lists)
    assert main(["--output-dir", str(tmp_path)]) == 0
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert first["table.md"].decode() in capsys.readouterr().out
    (tmp_path / "table.md").unlink()
    monkeypatch.setattr(demonstration_study, "_measure", lambda *_: pytest.fail("measured again"))
    main(["--output-dir", str(tmp_path), "--redraw"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
