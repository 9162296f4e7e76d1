"""The study of searched triggers writes what it measured."""

import csv
import json

import pytest

from benchmarks import trigger_study
from benchmarks.trigger_study import Gain, Prompt, correlations
from tests.conftest import write_atomic


def prompt(source, surrogate, ndcg, users=10, seconds=1.0):
    return Prompt(source, users, 5, seconds, surrogate, surrogate, ndcg)


def test_correlations_are_of_random_prompts_of_the_largest_search_and_of_users():
    prompts = [prompt("random", value, 2 * value) for value in (0.1, 0.3, 0.2)]
    prompts += [prompt("global", value, -value) for value in (0.1, 0.3, 0.2)]
    prompts += [prompt("global", value, value, users=3) for value in (0.1, 0.3, 0.2)]
    gains = [Gain("a", 0.5, 0.1), Gain("b", 0.0, 0.0), Gain("c", 1.0, 0.3)]
    found = correlations(prompts, gains)
    assert found["random prompts: surrogate against test ndcg@10"] == pytest.approx(1.0)
    assert found["prompts passed: surrogate against test ndcg@10"] == pytest.approx(-1.0)
    assert found["users: gain on validation against gain on test"] == pytest.approx(1.0)
    assert found["users that gained on validation"] == 2
    assert found["their mean gain on test"] == pytest.approx(0.2)


def test_it_writes_tables_numbers_and_a_figure(tmp_path):
    dataset = write_atomic(tmp_path / "tiny", users=150, items=120, length=10)
    quick = {"epochs": 0, "backbone_steps": 1, "budget": 8, "top": 1, "sample": 6, "negatives": 4, "gradients": 1}
    settings = [argument for name, value in quick.items() for argument in ("--set", f"{name}={value}")]
    given = ["--output-dir", str(tmp_path / "out"), "--cache-dir", str(tmp_path), "--users", "6", "4", "--random", "3"]
    assert trigger_study.main([*given, *settings, "--dataset", str(dataset)]) == 0
    with (tmp_path / "out" / "prompts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["users"] for row in rows} == {"4", "6"}
    assert [row["source"] for row in rows if row["users"] == "6"][:4] == ["start", "random", "random", "random"]
    assert {"global", "user"} <= {row["source"] for row in rows}
    assert len((tmp_path / "out" / "users.csv").read_text().splitlines()) == 1 + 6
    numbers = json.loads((tmp_path / "out" / "triggers.json").read_text())
    assert numbers["evaluations"] == 8 and "commit" in numbers
    assert (tmp_path / "out" / "triggers.png").stat().st_size > 5000
