"""Amazon reviews as McAuley's group distributes them: 2014, 2018 and 2023, one category in a folder.

A file of reviews (``reviews_Beauty_5.json.gz``, ``All_Beauty_5.json.gz``, ``All_Beauty.jsonl.gz``) and one of metadata
(``meta_*``), packed or not, one record a line. Source: He and McAuley, "Ups and downs", WWW 2016; Ni, Li and McAuley,
"Justifying recommendations using distantly-labeled reviews and fine-grained aspects", EMNLP 2019; Hou et al., "Bridging
language and items for retrieval and recommendation", arXiv 2403.03952.
"""

import ast
import gzip
import json
import zlib
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from data.dataset import Dataset, Domain
from data.sources.build import DataError, ItemTexts, build
from data.sources.columns import Columns, gather, text_lines

ENDINGS = (".json", ".json.gz", ".jsonl", ".jsonl.gz")
REVIEWS = {
    "user_id": ("user_id", "reviewerID"),
    "item_id": ("parent_asin", "asin"),
    "rating": ("rating", "overall"),
    "timestamp": ("timestamp", "unixReviewTime"),
}
"""Column -> names that the key of a review has, that of 2023 first."""
META = {
    "item_id": ("parent_asin", "asin"),
    "title": ("title",),
    "brand": ("store", "brand"),
    "categories": ("categories", "category"),
    "description": ("description",),
}
BETWEEN = {"categories": " > "}
"""What stands between the parts of a value: of others a blank."""


def load(folder: Path, min_rating: float = 4.0, min_count: int = 5) -> Dataset | None:
    """The reviews of a folder, under its name: an interaction is a review, and positive from the rating given.

    Variants of a product are one item in 2023 (``parent_asin``). Times are of days but in 2023. None for a folder
    without reviews.

    Raises:
        DataError: if there are several categories, or naming file and line of what cannot be used.
    """
    found = sorted(path for path in folder.iterdir() if path.name.endswith(ENDINGS))
    meta = [path for path in found if path.name.startswith("meta_")]
    reviews = [path for path in found if path not in meta]
    if len(reviews) > 1 or len(meta) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{folder}: expected one file of reviews and one meta_ file, found {names}")
    if not reviews:
        return None
    rows = _read(reviews[0], REVIEWS, required=("user_id", "item_id", "rating", "timestamp"))
    texts = ItemTexts({}, {}, folder / "meta_*.json.gz")
    if meta:
        texts = _read(meta[0], META, required=("item_id",), only=set(rows.columns["item_id"])).texts()
        if not texts.titles:
            raise DataError(f"{meta[0]}: none of its items is in {reviews[0].name}: of another category?")
    return build(folder.resolve().name, rows.interactions(), texts, Domain(), min_rating, min_count)


def _read(
    path: Path, columns: Mapping[str, tuple[str, ...]], required: tuple[str, ...], only: Container[str] | None = None
) -> Columns:
    """Columns of a file; of items only those asked for, and each once: 2018 has some of them again."""

    def rows() -> Iterator[tuple[int, list[str]]]:
        seen = set()
        for line, record in _records(path):
            if lacking := [name for name in required if not any(key in record for key in columns[name])]:
                keys = " or ".join(columns[lacking[0]])
                raise DataError(f"{path}:{line}: no {keys}; the keys are {', '.join(record)}")
            cells = [_value(record, keys, BETWEEN.get(name, " ")) for name, keys in columns.items()]
            if only is not None:
                if cells[0] and (cells[0] in seen or cells[0] not in only):
                    continue
                seen.add(cells[0])
            yield line, cells

    return gather(path, list(columns), rows(), required)


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(text_lines(path, file), start=1):
                if line.strip():
                    yield number, _record(line, f"{path}:{number}")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _record(line: str, where: str) -> dict[str, Any]:
    """A record in JSON or, as the metadata of 2014 are, as a Python literal."""
    try:
        record = json.loads(line)
    except ValueError:
        try:
            record = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise DataError(f"{where}: neither JSON nor a Python literal: {line[:60].strip()!r}") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: no record with keys and values: {line[:60].strip()!r}")
    return record


def _value(record: Mapping[str, Any], keys: tuple[str, ...], between: str) -> str:
    """What the first of the keys that has something holds, as text; of several paths of categories the first."""
    value = next((found for key in keys if (found := record.get(key)) not in (None, "", [])), "")
    if isinstance(value, list):
        parts = value[0] if isinstance(value[0], list) else value
        return between.join(str(part).strip() for part in parts)
    return str(value).strip()
