"""RecBole atomic files: tab-separated, one ``name:type`` per column of the header line.

Source: https://recbole.io/docs/user_guide/data/atomic_files.html
"""

import html
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.dataset import Dataset, Domain
from data.sources.build import DataError, Interactions, ItemTexts, build
from data.types import FloatArray

TITLE_COLUMNS = ("title", "movie_title", "item_name", "name")


@dataclass(frozen=True)
class AtomicFile:
    """Columns of one file as text, and the line number of each row."""

    path: Path
    columns: Mapping[str, list[str]]
    lines: list[int] = field(repr=False)

    def where(self, row: int) -> str:
        """File and line of a row, for messages."""
        return f"{self.path}:{self.lines[row]}"

    def numbers(self, column: str) -> FloatArray:
        """A column as finite numbers, shape ``[rows]``.

        Raises:
            DataError: naming file and line of the first value that is not a finite number.
        """
        values = np.empty(len(self.lines))
        for row, text in enumerate(self.columns[column]):
            try:
                values[row] = float(text)
            except ValueError:
                values[row] = math.nan
            if not math.isfinite(values[row]):
                raise DataError(f"{self.where(row)}: {column} is {text!r}, not a finite number")
        return values


def read_file(path: Path, required: Sequence[str]) -> AtomicFile:
    """Read one atomic file.

    Args:
        path: the file, UTF-8.
        required: columns that must be there and never be empty.

    Raises:
        DataError: naming the file, and the line where one is at fault.
    """
    rows = _rows(path)
    header = [column.partition(":")[0] for column in next(rows, (0, [""]))[1]]
    missing = [column for column in required if column not in header]
    if missing:
        hint = "; for data without times, number the rows of each user in their order"
        order = hint if "timestamp" in missing else ""
        raise DataError(
            f"{path}: no column {', '.join(missing)}; the header names {', '.join(header)} "
            f"(expected tab-separated name:type, such as user_id:token){order}"
        )
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(f"{path}: the header names {', '.join(repeated)} more than once")
    columns: dict[str, list[str]] = {name: [] for name in header}
    lines = []
    for line, cells in rows:
        if len(cells) != len(header):
            raise DataError(f"{path}:{line}: {len(cells)} fields where the header has {len(header)}")
        for name, cell in zip(header, cells, strict=True):
            if name in required and not cell:
                raise DataError(f"{path}:{line}: {name} is empty")
            columns[name].append(sys.intern(cell))  # ids repeat: each is held once
        lines.append(line)
    return AtomicFile(path, columns, lines)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}:{number}: byte {error.start + 1} of the line is not UTF-8; re-encode it"
                    ) from error
                if "\r" in text:
                    raise DataError(f"{path}:{number}: a carriage return inside the line; lines end in \\n or \\r\\n")
                if text:
                    yield number, [cell.strip() for cell in text.split("\t")]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def read_interactions(path: Path) -> Interactions:
    """Interactions of an ``.inter`` file; a rating column is read where there is one.

    Raises:
        DataError: if the file cannot be used, or has labels and no ratings: refused items would count as chosen.
    """
    file = read_file(path, required=("user_id", "item_id", "timestamp"))
    if "label" in file.columns and "rating" not in file.columns:
        raise DataError(
            f"{path}: a column label and none named rating: call it rating in the header, and give --min-rating 1"
        )
    return Interactions(
        users=file.columns["user_id"],
        items=file.columns["item_id"],
        timestamps=file.numbers("timestamp"),
        ratings=file.numbers("rating") if "rating" in file.columns else None,
        where=lambda row: f"{path.name}:{file.lines[row]}",
    )


def read_texts(path: Path) -> ItemTexts:
    """Item texts of an ``.item`` file, HTML entities decoded.

    Raises:
        DataError: if there is no title column or an item is listed twice.
    """
    file = read_file(path, required=("item_id",))
    title_column = next((column for column in TITLE_COLUMNS if column in file.columns), None)
    if title_column is None:
        raise DataError(f"{path}: no title column; expected one of {', '.join(TITLE_COLUMNS)}")
    items, row_of = file.columns["item_id"], dict[str, int]()
    for row, item in enumerate(items):
        if row_of.setdefault(item, row) != row:
            raise DataError(
                f"{file.where(row)}: item {item!r} is listed twice, first in line {file.lines[row_of[item]]}"
            )
    texts = {
        name: dict(zip(items, map(_decoded, values), strict=True))
        for name, values in file.columns.items()
        if name != "item_id"
    }
    return ItemTexts(titles=texts.pop(title_column), fields=texts, path=path)


def _decoded(text: str) -> str:
    """A text with its HTML entities decoded, on one line and without blanks around it."""
    return " ".join(html.unescape(text).splitlines()).strip()  # lists in prompts have a title a line


def load(folder: Path, min_rating: float = 4.0, min_count: int = 5) -> Dataset:
    """The data set of a folder with one ``.inter`` file and, with the same stem, an ``.item`` file.

    Raises:
        DataError: for a folder without exactly one ``.inter`` file, one with an ``.item`` file of another name alone,
            or a file that cannot be used.
    """
    found = sorted(folder.glob("*.inter"))
    if len(found) != 1:
        raise DataError(f"{folder}: expected one .inter file, found {[path.name for path in found] or 'none'}")
    item_file = found[0].with_suffix(".item")
    if not item_file.exists() and (others := sorted(folder.glob("*.item"))):
        raise DataError(
            f"{others[0]}: rename it to {item_file.name}: it does not belong to {found[0].name} by its name"
        )
    texts = read_texts(item_file) if item_file.exists() else ItemTexts({}, {}, item_file)
    return build(found[0].stem, read_interactions(found[0]), texts, Domain(), min_rating, min_count)
