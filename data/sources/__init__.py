"""Where data sets come from."""

import importlib
from pathlib import Path

from data.dataset import Dataset
from data.sources.build import DataError
from data.spelling import near

NAMED = {"ml-100k": "data.sources.ml100k"}
"""Name on the command line -> module with a ``load`` function."""

HELD = "RecBole atomic files (NAME.inter), MovieLens (ratings and movies), or Amazon reviews (.json.gz, .jsonl.gz)"
"""What a folder may hold."""


def load(name: str, min_rating: float = 4.0, min_count: int = 5) -> Dataset:
    """A named data set, or that of a folder: RecBole atomic files, or MovieLens or Amazon reviews as distributed.

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
        return _of_folder(Path(name), min_rating, min_count)
    if Path(name).is_file():
        raise DataError(f"data set {name!r} is a file: give its folder, {str(Path(name).parent)!r}")
    hint = near(name, NAMED)
    raise DataError(f"no data set {name!r}: {hint}give one of {', '.join(NAMED)} or a folder with {HELD}")


def _of_folder(folder: Path, min_rating: float, min_count: int) -> Dataset:
    """What a folder holds.

    Raises:
        DataError: if it has no files of a known kind, or unusable ones.
    """
    from data.sources import amazon, atomic, movielens

    for kind in (atomic.load, movielens.load, amazon.load):
        if (dataset := kind(folder, min_rating, min_count)) is not None:
            return dataset
    held = sorted(path.name for path in folder.iterdir())
    raise DataError(f"{folder}: expected {HELD}; found {', '.join(held[:8]) or 'nothing'}{', ...' * (len(held) > 8)}")
