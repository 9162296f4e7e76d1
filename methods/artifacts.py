"""Files that methods keep beside their results."""

import csv
import io
from collections.abc import Iterable, Sequence


def csv_text(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    r"""A table as CSV.

    >>> csv_text(["user", "triggers"], [("u1", "a b")])
    'user,triggers\nu1,a b\n'
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
