"""Where data sets come from."""

import importlib
from pathlib import Path

from data.dataset import Dataset
from data.sources.build import DataError
from data.spelling import near

NAMED = {"ml-100k": "data.sources.ml100k"}
"""Name on the command line -> module with a ``load`` function."""


def load(name: str, min_rating: float = 4.0, min_count: int = 5) -> Dataset:
    """A named data set, or the RecBole atomic files of a folder.

    Args:
        name: one of :data:`NAMED`, or the path of a folder.
        min_rating: least rating of a positive, where there are ratings.
        min_count: least number of positives of every user and item.

    Raises:
        DataError: for an unknown name, with the nearest ones, or an unusable file.
    """
    if name in NAMED:
        source = importlib.import_module(NAMED[name])
        return source.load(min_rating=min_rating, min_count=min_count)  # type: ignore[no-any-return]
    if Path(name).is_dir():
        from data.sources import atomic

        return atomic.load(Path(name), min_rating, min_count)
    if Path(name).is_file():
        raise DataError(f"data set {name!r} is a file: give its folder, {str(Path(name).parent)!r}")
    hint = near(name, NAMED)
    raise DataError(f"no data set {name!r}: {hint}give one of {', '.join(NAMED)} or a folder with RecBole atomic files")
