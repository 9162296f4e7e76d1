"""Amazon reviews as distributed: three editions, and what is said of files that are none."""

import gzip
import json
from pathlib import Path

import pytest

from data import sources
from data.sources.build import DataError

BOUGHT = [("u1", "B1", 5.0, 86400), ("u1", "B2", 4.0, 172800), ("u2", "B2", 5.0, 86400), ("u2", "B1", 1.0, 172800)]


def pack(path: Path, lines: list[str]) -> None:
    text = "".join(line + "\n" for line in lines)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


def edition_2014(folder: Path) -> None:
    reviews = [
        {"reviewerID": u, "asin": i, "overall": r, "unixReviewTime": t, "helpful": [0, 0]} for u, i, r, t in BOUGHT
    ]
    pack(folder / "reviews_Beauty_5.json.gz", list(map(json.dumps, reviews)))
    items = [
        {"asin": "B9", "title": "never bought"},
        {"asin": "B1", "title": "Soap &amp; 'Glory'", "categories": [["Beauty", "Bath"], ["Gifts"]], "brand": "S"},
        {"asin": "B2", "title": "Comb", "categories": [["Beauty", "Hair"]], "description": "A comb.\nOf wood."},
    ]
    pack(folder / "meta_Beauty.json.gz", list(map(repr, items)))  # Python literals, not JSON


def edition_2018(folder: Path) -> None:
    reviews = [{"overall": r, "reviewerID": u, "asin": i, "unixReviewTime": t, "vote": "2"} for u, i, r, t in BOUGHT]
    pack(folder / "All_Beauty_5.json", list(map(json.dumps, reviews)))
    soap = {
        "category": ["Beauty", "Bath"],
        "title": "Soap &amp; 'Glory'",
        "brand": "S",
        "asin": "B1",
        "description": [],
    }
    comb = {"category": ["Beauty", "Hair"], "title": "Comb", "asin": "B2", "description": ["A comb.", "Of wood."]}
    pack(folder / "meta_All_Beauty.json", list(map(json.dumps, [soap, comb, soap])))  # some are there twice


def edition_2023(folder: Path) -> None:
    keys = ("user_id", "parent_asin", "rating", "timestamp")
    reviews = [dict(zip(keys, row, strict=True)) | {"asin": "variant", "title": "Nice"} for row in BOUGHT]
    pack(folder / "All_Beauty.jsonl.gz", list(map(json.dumps, reviews)))
    soap = {"title": "Soap & 'Glory'", "parent_asin": "B1", "categories": ["Beauty", "Bath"], "store": "S"}
    comb = {"title": "Comb", "parent_asin": "B2", "categories": ["Beauty", "Hair"], "store": None}
    comb |= {"description": ["A comb.", "Of wood."]}
    pack(folder / "meta_All_Beauty.jsonl.gz", list(map(json.dumps, [soap, comb])))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "beauty").mkdir()
    return tmp_path / "beauty"


@pytest.mark.parametrize("edition", [edition_2014, edition_2018, edition_2023])
def test_every_edition_gives_the_same_data_set(folder, edition):
    edition(folder)
    dataset = sources.load(str(folder), min_count=1)
    catalogue = dataset.catalogue
    assert dataset.name == "beauty"
    assert catalogue.item_ids == ("B1", "B2")
    assert catalogue.titles == ("Soap & 'Glory'", "Comb")
    assert catalogue.fields == {
        "brand": ("S", ""),
        "categories": ("Beauty > Bath", "Beauty > Hair"),
        "description": ("", "A comb. Of wood."),
    }
    assert [[catalogue.item_ids[item] for item in row] for row in dataset.histories] == [["B1", "B2"], ["B2"]]
    assert len(sources.load(str(folder), min_rating=1, min_count=1).histories.items) == 4


def test_without_metadata_ids_stand_in_for_titles_and_the_run_says_so(folder):
    edition_2014(folder)
    (folder / "meta_Beauty.json.gz").unlink()
    dataset = sources.load(str(folder), min_count=1)
    assert dataset.catalogue.titles == ("B1", "B2")
    assert "there is no meta_*.json.gz: ids stand in for titles" in dataset.notes


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"asin": "B1"', 'reviews_Beauty_5.json:2: neither JSON nor a Python literal: \'{"asin": "B1"\''),
        ("{[1]: 2}", "reviews_Beauty_5.json:2: neither JSON nor a Python literal: '{[1]: 2}'"),
        ("[1, 2]", "reviews_Beauty_5.json:2: no record with keys and values: '[1, 2]'"),
        (
            '{"asin": "B1", "overall": 5, "unixReviewTime": 1}',
            "reviews_Beauty_5.json:2: no user_id or reviewerID; the keys are asin, ove",
        ),
        (
            '{"reviewerID": "", "asin": "B1", "overall": 5, "unixReviewTime": 1}',
            "reviews_Beauty_5.json:2: user_id is empty",
        ),
        ('{"reviewerID": "u", "asin": "B1", "overall": 5}', "reviews_Beauty_5.json:2: no timestamp or unixReviewTime"),
        (
            '{"reviewerID": "u", "asin": "B1", "overall": "*****", "unixReviewTime": 1}',
            "reviews_Beauty_5.json:2: rating is '*****', not a finite number",
        ),
    ],
)
def test_unusable_reviews_are_an_error_that_names_the_line(folder, line, sentence):
    good = {"reviewerID": "u", "asin": "B1", "overall": 5.0, "unixReviewTime": 1}
    pack(folder / "reviews_Beauty_5.json", [json.dumps(good), line])
    with pytest.raises(DataError) as error:
        sources.load(str(folder))
    assert sentence in str(error.value)


def test_half_a_character_in_a_title_is_replaced_and_a_page_script_is_cut(folder):
    edition_2023(folder)
    records = [{"title": "Soap \ud83d", "parent_asin": "B1"}, {"title": "var aPageStart; " * 200, "parent_asin": "B2"}]
    pack(folder / "meta_All_Beauty.jsonl.gz", list(map(json.dumps, records)))
    dataset = sources.load(str(folder), min_count=1)
    titles = dict(zip(dataset.catalogue.item_ids, dataset.catalogue.titles, strict=True))
    assert titles["B1"] == "Soap \N{REPLACEMENT CHARACTER}" and len(titles["B2"]) <= 1000
    assert any("1 titles in meta_All_Beauty.jsonl.gz have over 1000 characters" in note for note in dataset.notes)


def test_metadata_of_another_category_are_an_error(folder):
    edition_2018(folder)
    pack(folder / "meta_All_Beauty.json", ['{"asin": "T1", "title": "Toy"}'])
    with pytest.raises(DataError, match=r"meta_All_Beauty\.json: none of its items is in All_Beauty_5\.json"):
        sources.load(str(folder), min_count=1)


def test_packed_files_that_are_cut_off_and_several_categories_are_errors(folder):
    edition_2023(folder)
    whole = (folder / "All_Beauty.jsonl.gz").read_bytes()
    (folder / "All_Beauty.jsonl.gz").write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"All_Beauty\.jsonl\.gz: cannot be read"):
        sources.load(str(folder))
    (folder / "All_Beauty.jsonl.gz").write_bytes(whole[:30] + bytes(20) + whole[50:])
    with pytest.raises(DataError, match=r"All_Beauty\.jsonl\.gz: cannot be read"):
        sources.load(str(folder))
    (folder / "All_Beauty.jsonl.gz").write_bytes(gzip.compress(gzip.decompress(whole) + b"\xe9\n"))
    with pytest.raises(DataError, match=r"All_Beauty\.jsonl\.gz:\d+: byte 1 of the line is not UTF-8"):
        sources.load(str(folder))
    (folder / "Toys.jsonl.gz").write_bytes(whole)
    with pytest.raises(DataError, match=r"one file of reviews and one meta_ file, found All_Beauty\.jsonl\.gz, Toys"):
        sources.load(str(folder))
