"""MovieLens 100K as it comes inside the recbole package.

Source: Harper and Konstan, "The MovieLens datasets: history and context", 2015.
"""

import importlib.util
from pathlib import Path

from data.dataset import Dataset
from data.sources.atomic import read_interactions, read_texts
from data.sources.build import DataError, ItemTexts, build
from data.sources.movielens import MOVIES, article_in_front


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
