import json
import time
from pathlib import Path

import networkx
import numpy as np
import pytest

from data import sources
from data.histories import Histories
from data.split import leave_one_out
from methods.llmrec import pagerank
from methods.llmrec.pagerank import important_neighbours, item_pagerank


def random_histories(users: int, items: int, seed: int) -> Histories:
    rng = np.random.default_rng(seed)
    return Histories.of(rng.choice(items, rng.integers(1, 6), replace=False) for _ in range(users))


def all_values(train: Histories, n_items: int, restart: float = 0.15) -> np.ndarray:
    return np.concatenate([values for _, values in item_pagerank(train, n_items, restart)])


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_values_equal_networkx(seed: int, dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagerank, "DENSE_ITEMS", 10_000 if dense else 0)
    monkeypatch.setattr(pagerank, "BLOCK", 7)
    n_items = 25
    train = random_histories(12, n_items, seed)
    graph = networkx.Graph()
    graph.add_nodes_from(range(n_items))
    graph.add_edges_from((f"u{user}", item) for user, row in enumerate(train) for item in row.tolist())
    values = all_values(train, n_items, restart=0.2)
    for item in range(n_items):
        expected = networkx.pagerank(graph, alpha=0.8, personalization={item: 1.0}, tol=1e-13, max_iter=1000)
        np.testing.assert_allclose(values[item], [expected[i] for i in range(n_items)], atol=1e-6)


def test_importance_is_divided_by_popularity_to_the_power_of_three_quarters() -> None:
    train = random_histories(60, 40, seed=0)
    scores = all_values(train, 40) * np.maximum(np.bincount(train.items, minlength=40), 1) ** -0.75
    np.fill_diagonal(scores, 0)
    for row, found in zip(scores, important_neighbours(train, 40, count=3), strict=True):
        np.testing.assert_allclose(row[found], np.sort(row)[::-1][: len(found)])


def test_neighbours_of_ml100k_are_the_expected_ones() -> None:
    dataset = sources.load("ml-100k")
    found = important_neighbours(leave_one_out(dataset).train, dataset.catalogue.n_items)
    ids = dataset.catalogue.item_ids
    expected = json.loads((Path(__file__).parent / "neighbours-ml-100k.json").read_text())
    assert {ids[item]: [ids[i] for i in row] for item, row in enumerate(found)} == expected


def test_plain_pagerank_makes_one_film_the_neighbour_of_nearly_all() -> None:
    dataset = sources.load("ml-100k")
    found = important_neighbours(leave_one_out(dataset).train, dataset.catalogue.n_items, score="ppr")
    star_wars = dataset.catalogue.titles.index("Star Wars")
    assert sum(star_wars in row for row in found) == 902


def test_ties_go_to_the_lower_index() -> None:
    train = Histories.of([np.array([0, 3, 2, 1]), np.array([4])])
    assert [row.tolist() for row in important_neighbours(train, 6, count=2)] == [[1, 2], [0, 2], [0, 1], [0, 1], [], []]


@pytest.mark.slow
def test_a_million_edges_take_seconds() -> None:
    rng = np.random.default_rng(0)
    popularity = 1 / np.arange(1, 3707) ** 0.7
    drawn = rng.choice(3706, (6040, 240), p=popularity / popularity.sum())
    train = Histories.of(np.unique(row) for row in drawn)
    assert len(train.items) > 1_000_000
    start = time.process_time()
    assert len(important_neighbours(train, 3706)) == 3706
    assert time.process_time() - start < 30
