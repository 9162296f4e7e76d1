"""RecBole atomic files: tab-separated, one ``name:type`` per column of the header line.

Source: https://recbole.io/docs/user_guide/data/atomic_files.html
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from data.dataset import Dataset, Domain
from data.sources.build import DataError, Interactions, ItemTexts, build
from data.sources.columns import Columns, gather, text_lines

TITLE_COLUMNS = ("title", "movie_title", "item_name", "name")


def read_file(path: Path, required: Sequence[str]) -> Columns:
    """Read one atomic file.

    Args:
        path: the file, UTF-8.
        required: columns that must be there and never be empty.

    Raises:
        DataError: naming the file, and the line where one is at fault.
    """
    rows = _rows(path)
    titles = next(rows, (0, [""]))[1]
    if len(titles) == 1 and any(mark in titles[0] for mark in ",;"):
        raise DataError(f"{path}: columns are separated by tabs, not as in the header {titles[0]!r}")
    header = [column.partition(":")[0] for column in titles]
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
    return gather(path, header, rows, required)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(text_lines(path, file), start=1):
                text = line.rstrip("\r\n")
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
    return file.interactions()


def read_texts(path: Path) -> ItemTexts:
    """Item texts of an ``.item`` file, HTML entities decoded.

    Raises:
        DataError: if there is no title column or an item is listed twice.
    """
    file = read_file(path, required=("item_id",))
    title_column = next((column for column in TITLE_COLUMNS if column in file.columns), None)
    if title_column is None:
        valid, found = ", ".join(TITLE_COLUMNS), ", ".join(file.columns)
        raise DataError(f"{path}: no title column; expected one of {valid}, and the header names {found}")
    return file.texts(title_column)


def load(folder: Path, min_rating: float = 4.0, min_count: int = 5) -> Dataset | None:
    """The data set of a folder with one ``.inter`` file and, with the same stem, an ``.item`` file; None without any.

    Raises:
        DataError: for a folder with several ``.inter`` files, one with an ``.item`` file of another name alone, or a
            file that cannot be used.
    """
    found = sorted(folder.glob("*.inter"))
    if not found:
        return None
    if len(found) > 1:
        raise DataError(f"{folder}: expected one .inter file, found {[path.name for path in found]}")
    item_file = found[0].with_suffix(".item")
    if not item_file.exists() and (others := sorted(folder.glob("*.item"))):
        raise DataError(
            f"{others[0]}: rename it to {item_file.name}: it does not belong to {found[0].name} by its name"
        )
    texts = read_texts(item_file) if item_file.exists() else ItemTexts({}, {}, item_file)
    return build(found[0].stem, read_interactions(found[0]), texts, Domain(), min_rating, min_count)
