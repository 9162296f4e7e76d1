"""A table once, in every format it is wanted in."""

import csv
import html
import io
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

Record = TypeVar("Record")
Direction = Literal["up", "down", ""]
ARROWS = {"up": " ↑", "down": " ↓", "": ""}
UNDEFINED = "\N{EN DASH}"
LATEX_ARROWS = {"up": r" $\uparrow$", "down": r" $\downarrow$", "": ""}
LATEX_SPECIAL = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\^{}", "\\": r"\textbackslash{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}  # other signs in LaTeX's default encoding
)
MARKDOWN_SPECIAL = re.compile(r"[\\`*|$]|<(?=[a-zA-Z/!?])|&(?=[a-zA-Z#])|](?=\()|~(?=~)|(?<![^\W_])_|_(?![^\W_])")
"""Characters that Markdown does not print; underscores inside a word, and < before what begins no tag, it does."""

LONG = 80
"""Characters of a cell that a page shows at once."""

PAGE = 40
"""Rows that a page of LaTeX has room for."""


def percent(share: float) -> str:
    """A share as people write it, with the decimals it has.

    >>> percent(0.95), percent(0.975)
    ('95%', '97.5%')
    """
    return f"{100 * share:.10g}%"


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        key: key of the values in the rows, and heading in CSV and JSON.
        title: heading for people.
        better: which direction is better; unless all are the same, the best value is set in bold, all ties, and the
            second, where one is best, underlined.
        digits: decimals shown; None to show the value as it is.
        detail: keys that only CSV and JSON show are marked so.
        interval: keys of the lower and upper bound shown in brackets behind the value, in CSV in columns of their own.
        probability: whether a value that rounds to 0 is shown as below the last decimal: no p-value is 0.
        among: key of the rows of which one can be best or second; empty for all.
    """

    key: str
    title: str
    better: Direction = ""
    digits: int | None = None
    detail: bool = False
    interval: tuple[str, str] | None = None
    probability: bool = False
    among: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of values by column key; a missing or undefined number shows as a dash.

    Args:
        columns: the columns.
        rows: values by key.
        caption: what the reader has to know.
        detail: numbers of the rows that only CSV shows.
    """

    columns: Sequence[Column]
    rows: Sequence[dict[str, Any]]
    caption: str = ""
    detail: Collection[int] = ()
    _marks: dict[tuple[int, str], str] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for column in self.columns:
            if column.better and column.digits is not None:
                self._mark(column)

    def _mark(self, column: Column) -> None:
        """Note the best printed value of a column and the second-best, if it is not that of all the others."""
        shown = {n: self._number(row, column) for n, row in enumerate(self.rows) if row.get(column.among, True)}
        defined = sorted((v for v in shown.values() if v is not None), reverse=column.better == "up")
        first, second = (*defined, None, None)[:2]  # the second is the first again where several are best
        if len(defined) > 2 and second == defined[-1]:
            second = first
        for n, value in shown.items():
            if value is not None and value in (first, second) and defined[0] != defined[-1]:
                self._marks[n, column.key] = "best" if value == first else "second"

    @staticmethod
    def _number(row: dict[str, Any], column: Column) -> float | None:
        value = row.get(column.key)
        if value is None or isinstance(value, str) or math.isnan(value):
            return None
        return round(float(value), column.digits or 0) + 0.0

    def cell(self, n: int, column: Column) -> str:
        """The text of a cell, without emphasis."""
        row = self.rows[n]
        value = row.get(column.key)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return UNDEFINED
        if isinstance(value, bool):
            return "yes" if value else "no"
        if column.digits is None:
            return f"{value:,}" if isinstance(value, int) else " ".join(str(value).splitlines())
        if column.probability and round(value, column.digits) == 0:
            return f"<{10**-column.digits:.{column.digits}f}"
        text = f"{round(value, column.digits) + 0.0:.{column.digits}f}"
        if column.interval is None or not row.keys() >= set(column.interval):
            return text
        low, high = (row[key] for key in column.interval)
        return f"{text} [{low:.{column.digits}f}, {high:.{column.digits}f}]"

    @property
    def shown(self) -> list[Column]:
        """Columns for people."""
        return [column for column in self.columns if not column.detail]

    def _body(self, escaped: Callable[[str], str], best: str, second: str) -> list[list[str]]:
        """The cells for people, row by row, with the best and second-best values emphasised."""
        emphasis = {"best": best, "second": second}
        return [
            [emphasis.get(self._marks.get((n, c.key), ""), "{}").format(escaped(self.cell(n, c))) for c in self.shown]
            for n in range(len(self.rows))
            if n not in self.detail
        ]

    def markdown(self) -> str:
        """GitHub Markdown with the caption below."""
        heads = [column.title + ARROWS[column.better] for column in self.shown]
        rules = ["---" if column.digits is None else "---:" for column in self.shown]
        body = self._body(in_markdown, "**{}**", "<ins>{}</ins>")
        lines = [f"| {' | '.join(cells)} |" for cells in (heads, rules, *body)]
        return "\n".join(lines) + "\n" + (f"\n{in_markdown(self.caption)}\n" if self.caption else "")

    def html(self) -> str:
        """An HTML table element."""
        number = ["" if column.digits is None else ' class="number"' for column in self.shown]
        heads = [html.escape(column.title + ARROWS[column.better]) for column in self.shown]
        head = "".join(f"<th{kind}>{text}</th>" for kind, text in zip(number, heads, strict=True))
        rows = [
            "".join(f"<td{kind}>{text}</td>" for kind, text in zip(number, cells, strict=True))
            for cells in self._body(_folded, "<b>{}</b>", "<u>{}</u>")
        ]
        body = "".join(f"<tr>{row}</tr>\n" for row in rows)
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>\n"

    def latex(self, label: str = "") -> str:
        r"""A booktabs table as wide as the page; one that is longer than it is a longtable, which breaks over pages.

        Args:
            label: what ``\ref`` finds the table by.
        """
        heads = [_in_latex(c.title) + LATEX_ARROWS[c.better] for c in self.shown]
        body = self._body(_in_latex, r"\textbf{{{}}}", r"\underline{{{}}}")
        form = "".join("l" if c.digits is None else "r" for c in self.shown)
        caption = rf"\caption{{{_in_latex(self.caption)}}}" + rf"\label{{tab:{label}}}" * bool(label)
        head, *rows = (" & ".join(cells) + r" \\" for cells in (heads, *body))
        heading = [r"\toprule", head, r"\midrule"]
        if len(rows) > PAGE:
            lines = [r"% needs \usepackage{booktabs, longtable}", rf"\begin{{longtable}}{{{form}}}", caption + r" \\"]
            lines += [*heading, r"\endfirsthead", *heading, r"\endhead", *rows, r"\bottomrule", r"\end{longtable}"]
        else:
            lines = [r"% needs \usepackage{booktabs}", r"\begin{table*}", r"\centering", caption]
            lines += [rf"\begin{{tabular}}{{{form}}}", *heading, *rows]
            lines += [r"\bottomrule", r"\end{tabular}", r"\end{table*}"]
        return "\n".join(lines) + "\n"

    def values(self) -> list[dict[str, Any]]:
        """The rows with numbers as in CSV: what comes behind six digits may depend on the number of threads."""
        return [{k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()} for row in self.rows]

    def csv(self) -> str:
        """All columns, numbers with six significant digits, empty where undefined."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        keys = [key for column in self.columns for key in (column.key, *(column.interval or ()))]
        writer.writerow(keys)
        writer.writerows([_exact(row.get(key)) for key in keys] for row in self.rows)
        return text.getvalue()


def of_records(records: Sequence[Any]) -> Table:
    """A table of dataclass instances of one kind, at least one."""
    columns = [Column(field.name, field.name) for field in fields(records[0])]
    return Table(columns, [asdict(record) for record in records])


def read_records(path: Path, kind: type[Record]) -> list[Record]:
    """Records of fields that are texts and numbers, from the CSV of :func:`of_records`."""
    types = get_type_hints(kind)
    with path.open(newline="", encoding="utf-8") as file:
        read = {float: lambda text: float(text or "nan")}
        return [kind(**{k: read.get(types[k], types[k])(v) for k, v in row.items()}) for row in csv.DictReader(file)]


def _exact(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def in_markdown(text: str) -> str:
    r"""A text in Markdown.

    >>> print(in_markdown("own_method | [at](home) <i>"))
    own_method \| [at\](home) \<i>
    """
    return MARKDOWN_SPECIAL.sub(r"\\\g<0>", text)


def _in_latex(text: str) -> str:
    """A text in LaTeX, where two hyphens would be a dash."""
    return text.translate(LATEX_SPECIAL).replace("--", "-{}-").replace(UNDEFINED, "--")


def _folded(text: str) -> str:
    """A text in HTML; of a long one the beginning until it is opened."""
    if len(text) <= LONG:
        return html.escape(text)
    return f"<details><summary>{html.escape(text[:LONG].rstrip())}…</summary>{html.escape(text)}</details>"
