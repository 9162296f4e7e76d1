"""Tables in every format."""

import csv
import io
import math
from dataclasses import dataclass

from benchmarks.report.table import PAGE, Column, Table, of_records, read_records

COLUMNS = (
    Column("method", "Method"),
    Column("value", "NDCG_10", "up", 3, interval=("low", "high")),
    Column("low", "", detail=True),
    Column("high", "", detail=True),
    Column("drop", "Drop", "down", 2),
    Column("seen", "Seen"),
)


def row(method: str, value: float, drop: float = 0.0, seen: int = 1000) -> dict[str, object]:
    return {"method": method, "value": value, "low": value - 0.1, "high": value + 0.1, "drop": drop, "seen": seen}


def test_markdown_sets_the_best_in_bold_and_underlines_the_second():
    text = Table(COLUMNS, [row("a", 0.5, 0.2), row("b", 0.4, 0.1), row("c", 0.3, 0.3)], "Caption.").markdown()
    assert text.splitlines()[0] == "| Method | NDCG_10 ↑ | Drop ↓ | Seen |"
    assert "| a | **0.500 [0.400, 0.600]** | <ins>0.20</ins> | 1,000 |" in text
    assert "| b | <ins>0.400 [0.300, 0.500]</ins> | **0.10** | 1,000 |" in text
    assert text.endswith("\nCaption.\n")


def test_values_that_print_the_same_tie_and_every_best_is_bold():
    text = Table(COLUMNS, [row("a", 0.50001), row("b", 0.49999), row("c", 0.3)]).markdown()
    assert text.count("**0.500 [") == 2
    assert "<ins>" not in text  # two are ahead of the third


def test_a_second_place_that_all_others_share_is_not_marked():
    text = Table(COLUMNS, [row("a", 0.5), row("b", 0.3), row("c", 0.3)]).markdown()
    assert text.count("**0.500 [") == 1 and "<ins>" not in text


def test_where_all_are_the_same_none_is_best():
    assert "**" not in Table(COLUMNS, [row("a", 0.5, 0.2), row("b", 0.5, 0.2)]).markdown()


def test_only_rows_that_are_named_compete_for_the_marks_of_a_column():
    columns = (COLUMNS[0], Column("drop", "Drop", "down", 2, among="prompt"))
    drops = {"still": 0.0, "a": 0.2, "b": 0.1, "c": 0.3}
    rows = [{"method": m, "drop": drop, "prompt": m != "still"} for m, drop in drops.items()]
    text = Table(columns, rows).markdown()
    assert "| still | 0.00 |" in text and "| b | **0.10** |" in text and "| a | <ins>0.20</ins> |" in text
    assert "**" not in Table(columns, rows[:2]).markdown()  # one row is not the best of any


def test_undefined_numbers_are_dashes_and_never_best():
    table = Table(COLUMNS, [row("a", 0.5), {"method": "b", "value": float("nan"), "drop": None}])
    assert "| b | – | – | – |" in table.markdown()  # noqa: RUF001
    assert list(csv.DictReader(io.StringIO(table.csv())))[1]["value"] == ""


def test_csv_holds_every_column_in_full_precision():
    rows = list(csv.DictReader(io.StringIO(Table(COLUMNS, [row("a, b", 1 / 3)]).csv())))
    assert rows[0]["method"] == "a, b"
    assert rows[0]["value"] == "0.333333"
    assert rows[0]["low"] == "0.233333"


def test_markdown_prints_names_and_reasons_as_they_are():
    text = Table(COLUMNS, [row("Mine.__init__: <lambda> | 2 * max_k", 0.5)]).markdown()
    assert r"| Mine.\_\_init\_\_: \<lambda> \| 2 \* max_k |" in text
    text = Table(COLUMNS, [row("[a](b) ~~c~~ &amp; $d$ 0.5 [0.4]", 0.5)], "_A_ <i>").markdown()
    assert r"| [a\](b) \~~c\~~ \&amp; \$d\$ 0.5 [0.4] |" in text and text.endswith("\n\\_A\\_ \\<i>\n")


def test_latex_is_booktabs_with_special_characters_escaped():
    text = Table(COLUMNS, [row("a_b & c", 0.5), row("d", 0.4)], "100 % of users").latex("board-a_b")
    assert r"\toprule" in text and r"\midrule" in text and r"\bottomrule" in text
    assert r"a\_b \& c & \textbf{0.500 [0.400, 0.600]}" in text
    assert r"\caption{100 \% of users}\label{tab:board-a_b}" in text
    assert r"NDCG\_10 $\uparrow$" in text
    assert r"-{}-tune & --" in Table(COLUMNS, [{"method": "--tune"}]).latex()  # a dash is no two hyphens
    assert r"x \textless{} y \textbar{} z" in Table(COLUMNS, [row("x < y | z", 0.5)]).latex()


def test_html_is_escaped():
    assert "&lt;script&gt;" in Table(COLUMNS, [row("<script>", 0.5)]).html()


def test_latex_breaks_a_table_longer_than_a_page_over_pages_with_its_head_on_each():
    one, many = (Table(COLUMNS, [row("a", 0.5)] * n, "Caption.").latex() for n in (PAGE, PAGE + 1))
    assert "longtable" not in one and one.count(r"\toprule") == 1
    assert r"\usepackage{booktabs, longtable}" in many
    lines = many.splitlines()
    assert lines[2] == r"\caption{Caption.} \\"  # a longtable's caption is one of its rows
    heads = [lines.index(end) for end in (r"\endfirsthead", r"\endhead")]
    assert lines[heads[0] - 3 : heads[0]] == lines[heads[1] - 3 : heads[1]]
    assert sum(line.startswith("a &") for line in lines) == PAGE + 1
    assert not {r"\begin{table*}", r"\begin{tabular}"}.intersection(lines)


def test_html_folds_long_texts_and_keeps_all_of_them():
    text = "a < b; " * 30
    page = Table(COLUMNS, [row(text, 0.5), row("short", 0.5)]).html()
    assert page.count("<details>") == 1 and "a &lt; b; " * 30 in page


def test_probabilities_are_never_printed_as_zero():
    columns = (Column("p", "p", digits=4, probability=True),)
    table = Table(columns, [{"p": p} for p in (3e-5, 1e-300, 6e-5, 1.0)])
    assert [table.cell(n, columns[0]) for n in range(4)] == ["<0.0001", "<0.0001", "0.0001", "1.0000"]
    assert "| <0.0001 |" in table.markdown() and r"\textless{}0.0001" in table.latex()


def test_negative_zero_is_printed_as_zero():
    assert "-0.00" not in Table(COLUMNS, [row("a", 0.5, -1e-12), row("b", 0.1, 0.0)]).markdown()


@dataclass
class Measured:
    name: str
    value: float


def test_records_are_read_as_they_were_written_what_is_not_a_number_too(tmp_path):
    (tmp_path / "records.csv").write_text(of_records([Measured("", 0.5), Measured("b", float("nan"))]).csv())
    first, second = read_records(tmp_path / "records.csv", Measured)
    assert first == Measured("", 0.5)
    assert second.name == "b" and math.isnan(second.value)
