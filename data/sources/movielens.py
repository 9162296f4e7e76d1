"""MovieLens as GroupLens distributes it, in an unpacked folder.

``ratings.dat`` and ``movies.dat`` (1M, 10M), or ``ratings.csv`` and ``movies.csv`` (20M, 25M, 32M, latest).
Source: Harper and Konstan, "The MovieLens datasets: history and context", 2015; the README of each.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data.dataset import Dataset, Domain
from data.sources.build import DataError, ItemTexts, build
from data.sources.columns import Columns, gather, text_lines

MOVIES = Domain("movie", "movies", "watch", "watched", "watching", "viewer")
ARTICLES = "The|A|An|La|Le|Les|L'|Il|El|Die|Das|Der|Los|Las"
RATINGS = {"userId": "user_id", "movieId": "item_id", "rating": "rating", "timestamp": "timestamp"}
TEXTS = {"movieId": "item_id", "title": "title", "genres": "genres"}


def load(folder: Path, min_rating: float = 4.0, min_count: int = 5) -> Dataset | None:
    """MovieLens under the folder's name: the article in front of titles, genres and years in fields of their own.

    The year stays in the title where another film has the same. None for a folder without ratings and movies.

    Raises:
        DataError: naming file and line of what cannot be used.
    """
    pairs = ((folder / f"ratings.{kind}", folder / f"movies.{kind}") for kind in ("dat", "csv"))
    found = next((pair for pair in pairs if all(path.is_file() for path in pair)), None)
    if found is None:
        return None
    ratings, movies = found
    rows = _read(ratings, RATINGS).interactions()
    texts = _texts(_read(movies, TEXTS, _encoding(movies)).texts())
    return build(folder.resolve().name, rows, texts, MOVIES, min_rating, min_count)


def article_in_front(title: str) -> str:
    """A title in reading order.

    >>> article_in_front("Horseman on the Roof, The (Hussard sur le toit, Le)")
    'The Horseman on the Roof (Le Hussard sur le toit)'
    """
    return re.sub(rf"(^|\()([^()]*), ({ARTICLES})(?=\)|$| \()", _front, title)


def _front(match: re.Match[str]) -> str:
    opening, rest, article = match.groups()
    blank = "" if article.endswith("'") else " "
    return f"{opening}{article}{blank}{rest}"


def _texts(raw: ItemTexts) -> ItemTexts:
    """Titles, years and genres as ml-100k has them: "Sabrina, The (1995)" and "Comedy|Romance" taken apart."""
    dated = {item: article_in_front(title) for item, title in raw.titles.items()}
    split = {item: re.fullmatch(r"(.*?) *\((\d{4})\)", title) for item, title in dated.items()}
    years = {item: found[2] if found else "" for item, found in split.items()}
    films = {item: found[1] if found else dated[item] for item, found in split.items()}
    named = Counter(films.values())
    titles = {item: dated[item] if named[film] > 1 else film for item, film in films.items()}
    genres = {
        item: "" if text == "(no genres listed)" else text.replace("|", ", ")
        for item, text in raw.fields["genres"].items()
    }
    return ItemTexts(titles, {"year": years, "genres": genres}, raw.path)


def _read(path: Path, columns: dict[str, str], encoding: str = "utf-8") -> Columns:
    """A file with the given columns in their order, by the names given for them."""
    try:
        with path.open("rb") as file:
            rows = _cells(path, text_lines(path, file, encoding))
            if path.suffix == ".csv" and (header := next(rows, (1, []))[1]) != list(columns):
                raise DataError(f"{path}: the header is {','.join(header)}, not {','.join(columns)}")
            return gather(path, list(columns.values()), rows, required=("user_id", "item_id"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _cells(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    if path.suffix == ".csv":
        reader = csv.reader(lines, strict=True)
        try:
            yield from ((reader.line_num, cells) for cells in reader if cells)
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: {error}") from error
    else:
        yield from ((n, text.split("::")) for n, line in enumerate(lines, start=1) if (text := line.strip()))


def _encoding(path: Path) -> str:
    """That of a file of movies: of all MovieLens only 1M, and what came before it, is not in UTF-8."""
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    return "utf-8"
