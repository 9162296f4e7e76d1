"""MovieLens as distributed: what is made of its files, and what is said of those that are none."""

from pathlib import Path

import pytest

from data import sources
from data.sources.build import DataError

FILMS = [
    (1, "Toy Story (1995)", "Animation|Children's|Comedy"),
    (2, "Misérables, Les (1995)", "Drama|Musical"),
    (3, "Sabrina (1954)", "Comedy|Romance"),
    (4, "Sabrina (1995)", "Comedy|Romance"),
    (5, "Hyena Road", "(no genres listed)"),
]
RATINGS = [(1, 1, 5, 10), (1, 2, 4, 30), (1, 3, 3, 20), (2, 4, 4.5, 5), (2, 1, 4, 6), (2, 5, 5, 7)]
TITLES = {"1": "Toy Story", "2": "Les Misérables", "4": "Sabrina", "5": "Hyena Road"}


def dat(folder: Path, encoding: str) -> Path:
    folder.mkdir()
    (folder / "ratings.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in RATINGS))
    (folder / "movies.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in FILMS), encoding=encoding)
    return folder


def comma_separated(folder: Path, ratings: str = "userId,movieId,rating,timestamp") -> Path:
    folder.mkdir()
    rows = [ratings, *(",".join(map(str, row)) for row in RATINGS)]
    (folder / "ratings.csv").write_text("\n".join(rows) + "\n")
    films = [f'{n},"{title}",{genres}' if "," in title else f"{n},{title},{genres}" for n, title, genres in FILMS]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *films]) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "make",
    [lambda f: dat(f, "latin-1"), lambda f: dat(f, "utf-8"), comma_separated],
    ids=["1M", "10M", "20M and later"],
)
def test_every_edition_gives_the_same_data_set(tmp_path, make):
    dataset = sources.load(str(make(tmp_path / "ml-1m")), min_count=1)
    catalogue = dataset.catalogue
    assert dataset.name == "ml-1m"
    assert dict(zip(catalogue.item_ids, catalogue.titles, strict=True)) == TITLES | {"4": "Sabrina (1995)"}
    assert catalogue.fields["year"] == ("1995", "1995", "1995", "")
    assert catalogue.fields["genres"] == ("Animation, Children's, Comedy", "Drama, Musical", "Comedy, Romance", "")
    assert catalogue.domain.consumed == "watched"
    assert [[catalogue.item_ids[item] for item in row] for row in dataset.histories] == [["1", "2"], ["4", "1", "5"]]
    first = "ratings.dat:3" if (tmp_path / "ml-1m" / "ratings.dat").exists() else "ratings.csv:4"
    assert dataset.notes == (f"1 interactions rated under 4 and not counted as positives (first: {first})",)


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("ratings.dat", "1::2::5\n", "ratings.dat:1: 3 fields, not 4: user_id, item_id, rating, timestamp"),
        ("ratings.dat", "1::2::5::1\n1::::5::1\n", "ratings.dat:2: item_id is empty"),
        ("ratings.dat", "1::2::good::1\n", "ratings.dat:1: rating is 'good', not a finite number"),
        ("ratings.dat", b"1::2::5::1\n\xff\xfe1\n", "ratings.dat:2: byte 1 of the line is not UTF-8"),
        ("movies.dat", "1::A (2000)::Drama\n1::B (2000)::Drama\n", "movies.dat:2: item '1' is listed twice"),
    ],
)
def test_unusable_files_are_an_error_that_names_the_line(tmp_path, file, text, sentence):
    folder = dat(tmp_path / "ml", "utf-8")
    (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as error:
        sources.load(str(folder))
    assert sentence in str(error.value)


def test_header_and_quotes_of_comma_separated_files_are_checked(tmp_path):
    folder = comma_separated(tmp_path / "ml", "user,item,rating,time")
    with pytest.raises(DataError, match=r"header is user,item,rating,time, not userId,movieId,rating,timestamp"):
        sources.load(str(folder))
    (folder / "ratings.csv").write_text('userId,movieId,rating,timestamp\n1,2,"5"x,1\n')
    with pytest.raises(DataError, match=r"ratings\.csv:2: ',' expected after"):
        sources.load(str(folder))


def test_ratings_without_movies_are_not_taken_for_movielens(tmp_path):
    (dat(tmp_path / "ml", "utf-8") / "movies.dat").unlink()
    with pytest.raises(DataError, match=r"MovieLens \(ratings and movies\).*; found ratings\.dat"):
        sources.load(str(tmp_path / "ml"))
