"""The embedded protocol, exactly."""

import csv
from pathlib import Path

import pytest

from data import sources
from data.dataset import Dataset
from data.sources.movielens import article_in_front
from data.split import leave_one_out

pytest.importorskip("recbole")
EXPECTED = Path(__file__).parent / "expected" / "ml-100k-items.tsv"


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return sources.load("ml-100k")


def test_embedded_protocol_has_the_documented_counts(dataset):
    assert (dataset.catalogue.n_users, dataset.catalogue.n_items) == (938, 1008)
    assert len(dataset.histories.items) == 54_413
    assert len(leave_one_out(dataset).train.items) == 52_537


def test_titles_years_and_genres_are_those_the_completions_were_recorded_for(dataset):
    with EXPECTED.open(encoding="utf-8", newline="") as file:
        expected = {row["item_id"]: row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}
    fields = dataset.catalogue.fields
    found = zip(dataset.catalogue.item_ids, dataset.catalogue.titles, fields["year"], fields["genres"], strict=True)
    assert {item: (title, year, genres) for item, title, year, genres in found} == {
        item: (row["title"], row["year"], row["genres"]) for item, row in expected.items()
    }


def test_what_was_left_out_is_counted_with_file_and_line(dataset):
    assert len(dataset.notes) == 3
    assert "44625 interactions rated under 4" in dataset.notes[0]
    assert "(first: ml-100k.inter:2)" in dataset.notes[0]
    assert "962 interactions of users or items with fewer than 5" in dataset.notes[1]
    assert dataset.notes[2] == "the last two items of 305 of 938 users have one timestamp: a hash orders them"


def test_histories_are_chronological_and_hold_no_item_twice(dataset):
    for user, row in enumerate(dataset.histories):
        start, end = dataset.histories.offsets[user : user + 2]
        assert (dataset.timestamps[start : end - 1] <= dataset.timestamps[start + 1 : end]).all()
        assert len(set(row.tolist())) == len(row)


def test_reading_twice_gives_the_same_fingerprint(dataset):
    assert sources.load("ml-100k").fingerprint == dataset.fingerprint
    assert sources.load("ml-100k", min_rating=3).fingerprint != dataset.fingerprint


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Silence of the Lambs, The", "The Silence of the Lambs"),
        ("Fish Called Wanda, A", "A Fish Called Wanda"),
        ("Enfer, L'", "L'Enfer"),
        ("Good, The Bad and The Ugly, The", "The Good, The Bad and The Ugly"),
        ("Horseman on the Roof, The (Hussard sur le toit, Le)", "The Horseman on the Roof (Le Hussard sur le toit)"),
        ("To Wong Foo, Thanks for Everything! Julie Newmar", "To Wong Foo, Thanks for Everything! Julie Newmar"),
    ],
)
def test_trailing_article_goes_to_the_front(title, expected):
    assert article_in_front(title) == expected
