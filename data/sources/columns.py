"""Files as columns of text that remember the line of each row: what all sources make of theirs."""

import html
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.sources.build import DataError, Interactions, ItemTexts
from data.types import FloatArray


@dataclass(frozen=True)
class Columns:
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

    def interactions(self) -> Interactions:
        """The columns ``user_id``, ``item_id``, ``timestamp`` and, where there is one, ``rating``.

        Raises:
            DataError: naming file and line of a time or a rating that is not a number.
        """
        return Interactions(
            users=self.columns["user_id"],
            items=self.columns["item_id"],
            timestamps=self.numbers("timestamp"),
            ratings=self.numbers("rating") if "rating" in self.columns else None,
            where=lambda row: f"{self.path.name}:{self.lines[row]}",
        )

    def texts(self, title: str = "title") -> ItemTexts:
        """Titles and all other columns by ``item_id``, HTML entities decoded.

        Raises:
            DataError: if an item is listed twice.
        """
        items, row_of = self.columns["item_id"], dict[str, int]()
        for row, item in enumerate(items):
            if row_of.setdefault(item, row) != row:
                raise DataError(
                    f"{self.where(row)}: item {item!r} is listed twice, first in line {self.lines[row_of[item]]}"
                )
        texts = {
            name: dict(zip(items, map(_decoded, values), strict=True))
            for name, values in self.columns.items()
            if name != "item_id"
        }
        return ItemTexts(titles=texts.pop(title), fields=texts, path=self.path)


def text_lines(path: Path, file: Iterable[bytes], encoding: str = "utf-8") -> Iterator[str]:
    """The lines of a file as text, without its byte order mark.

    Raises:
        DataError: naming file and line of what is not in the encoding.
    """
    for number, line in enumerate(file, start=1):
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}:{number}: byte {error.start + 1} of the line is not UTF-8; re-encode it"
            ) from error
        yield text.removeprefix("\ufeff") if number == 1 else text


def gather(
    path: Path, header: Sequence[str], rows: Iterable[tuple[int, Sequence[str]]], required: Sequence[str]
) -> Columns:
    """Columns from rows.

    Args:
        path: the file, for messages.
        header: names of the columns.
        rows: line numbers and cells.
        required: columns that must never be empty.

    Raises:
        DataError: naming file and line of a row that has more or fewer cells, or lacks a required one.
    """
    columns: dict[str, list[str]] = {name: [] for name in header}
    lines = []
    for line, cells in rows:
        if len(cells) != len(header):
            raise DataError(f"{path}:{line}: {len(cells)} fields, not {len(header)}: {', '.join(header)}")
        for name, cell in zip(header, cells, strict=True):
            if name in required and not cell:
                raise DataError(f"{path}:{line}: {name} is empty")
            columns[name].append(sys.intern(cell))  # ids repeat: each is held once
        lines.append(line)
    return Columns(path, columns, lines)


def _decoded(text: str) -> str:
    """A text with its HTML entities decoded, on one line and without blanks around it."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # JSON may hold half a character
    return " ".join(html.unescape(whole).splitlines()).strip()  # lists in prompts have a title a line
