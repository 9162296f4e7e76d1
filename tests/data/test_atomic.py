"""Atomic files: what is accepted, and what is said of what is not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data import sources
from data.sources import atomic
from data.sources.build import DataError

HEADER = "user_id:token\titem_id:token\ttimestamp:float"


def folder_with(tmp_path: Path, inter: str | bytes, item: str | None = None) -> Path:
    content = inter if isinstance(inter, bytes) else inter.encode()
    (tmp_path / "shop.inter").write_bytes(content)
    if item is not None:
        (tmp_path / "shop.item").write_text(item)
    return tmp_path


def rows(*triples: tuple[object, ...], header: str = HEADER) -> str:
    return "\n".join([header, *("\t".join(map(str, triple)) for triple in triples)]) + "\n"


def load(folder: Path, **options: object):
    return atomic.load(folder, **{"min_count": 1, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("inter", "sentence"),
    [
        (rows((1, 2), header="user_id:token\titem_id:token"), "no column timestamp; the header names user_id, item_id"),
        (rows((1, 2), header="user_id:token\titem_id:token"), "without times, number the rows of each user"),
        (rows(("u", "i", "noon")), "shop.inter:2: timestamp is 'noon', not a finite number"),
        (rows(("u", "i", 1), ("u", "j", "nan")), "shop.inter:3: timestamp is 'nan', not a finite number"),
        (rows(("u", "i", 1), ("u", "", 2)), "shop.inter:3: item_id is empty"),
        (rows(("u", "i", 1), ("u", "j")), "shop.inter:3: 2 fields, not 3: user_id, item_id, timestamp"),
        (rows(("u", "i", 1)).encode() + b"u\t\xe9t\xe9\t2\n", "shop.inter:3: byte 3 of the line is not UTF-8"),
        (rows(("u", "i", 1, "good"), header=HEADER + "\trating:float"), "shop.inter:2: rating is 'good'"),
        (rows(("u", "i", 1, 2), header=HEADER + "\ttimestamp:float"), "the header names timestamp more than once"),
        (rows(), "shop: no interaction is left; the file has none"),
        (rows(header=HEADER + "\trating:float"), "shop: no interaction is left; the file has none"),
        (
            rows(("u", "i", 1, 1), header=HEADER + "\trating:float"),
            "lower --min-rating or --min-count",
        ),
        ("", "no column user_id, item_id, timestamp"),
        (HEADER.replace("\t", ","), "shop.inter: columns are separated by tabs, not as in the header 'user_id:token,"),
    ],
)
def test_unusable_interactions_are_an_error_that_names_file_and_line(tmp_path, inter, sentence):
    with pytest.raises(DataError) as error:
        load(folder_with(tmp_path, inter))
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ("item_id:token\tcolour:token\ni\tred\n", "no title column; expected one of title, movie_title"),
        ("item_id:token\ttitle:token_seq\ni\tA\ni\tB\n", "shop.item:3: item 'i' is listed twice, first in line 2"),
    ],
)
def test_unusable_item_texts_are_an_error(tmp_path, item, sentence):
    with pytest.raises(DataError) as error:
        load(folder_with(tmp_path, rows(("u", "i", 1)), item))
    assert sentence in str(error.value)


def test_item_file_of_another_name_is_not_passed_over(tmp_path):
    folder_with(tmp_path, rows(("u", "i", 1)))
    (tmp_path / "items.item").write_text("item_id:token\ttitle:token_seq\ni\tA\n")
    with pytest.raises(DataError, match=r"items\.item: rename it to shop\.item"):
        load(tmp_path)
    (tmp_path / "items.item").unlink()
    dataset = load(tmp_path)
    assert dataset.catalogue.titles == ("i",)
    assert dataset.notes[0] == "there is no shop.item: ids stand in for titles"


def test_items_without_text_get_their_id_and_are_counted(tmp_path):
    item = "item_id:token\ttitle:token_seq\na\tApple\nb\t\nd\t&nbsp;\n"
    dataset = load(folder_with(tmp_path, rows(("u", "a", 1), ("u", "b", 2), ("u", "c", 3), ("u", "d", 4)), item))
    assert dataset.catalogue.titles == ("Apple", "b", "c", "d")
    assert dataset.notes == (
        "1 items have no text record in shop.item; the id stands in (first: c)",
        "2 items have an empty title in shop.item; the id stands in (first: b)",
    )


def test_item_texts_with_ids_of_another_form_are_not_passed_over(tmp_path):
    inter = rows(("u", "2.0", 1), ("u", "3.0", 2), ("u", "4.0", 3))
    with pytest.raises(DataError, match=r"shop\.item: none of its items .* ids here are such as '2', there '2\.0'"):
        load(folder_with(tmp_path, inter, "item_id:token\ttitle:token_seq\n2\tA\n3\tB\n"))
    assert load(folder_with(tmp_path, inter, "item_id:token\ttitle:token_seq\n")).catalogue.titles[0] == "2.0"


def test_order_and_titles_that_tell_nothing_apart_are_noted(tmp_path):
    triples = [("u", "a", 5), ("u", "b", 5), ("u", "c", 5), ("v", "a", 6)]
    item = "item_id:token\ttitle:token_seq\n" + "".join(f"{i}\tThing\n" for i in "abc")
    assert load(folder_with(tmp_path, rows(*triples), item)).notes == (
        "no user has two different timestamps: which of their items are the latest is arbitrary",
        "different titles of 3 items: 1; prompts cannot tell many of them apart",
    )
    later = item.replace("b\tThing", "b\tOther")
    assert load(folder_with(tmp_path, rows(*triples, ("v", "b", 7)), later)).notes == (
        "the last two items of 1 of 2 users have one timestamp: a hash orders them",
    )
    apart = [(user, item, time + n) for n, (user, item, time) in enumerate(triples)]
    assert not load(folder_with(tmp_path, rows(*apart), later)).notes


def test_positions_instead_of_times_are_noticed_whatever_is_left_out(tmp_path):
    triples = [(user, f"i{n}", n, 1 if n == 2 else 5) for user in "uv" for n in (1, 2, 3)]
    inter = folder_with(tmp_path, rows(*triples, header=HEADER + "\trating:float"))
    assert load(inter).timestamps.tolist() == [1, 3, 1, 3]
    assert load(inter).ordinal and load(inter, min_rating=1).ordinal
    assert not load(folder_with(tmp_path, rows(("u", "a", 1), ("u", "b", 2), ("v", "a", 8), ("v", "b", 8)))).ordinal


POSITIONS = [(f"u{u}", f"i{n}", n) for u in range(30) for n in range(1, 6 + u % 5)]


@pytest.mark.parametrize(
    "triples",
    [
        [*POSITIONS, POSITIONS[7]],
        [*POSITIONS, *POSITIONS],
        [*POSITIONS, ("u3", "i99", 2)],
        [*POSITIONS, ("u3", "i99", 881250949.5)],
        [row for n, row in enumerate(POSITIONS) if n % 9],
    ],
    ids=["one row twice", "all rows twice", "a position twice", "a time among them", "every ninth row missing"],
)
def test_odd_rows_do_not_make_times_of_positions(tmp_path: Path, triples: list[tuple[object, ...]]) -> None:
    assert load(folder_with(tmp_path, rows(*triples))).ordinal


@pytest.mark.parametrize(
    "days",
    [
        lambda user: [0, *(1 + 2 * n + user % 2 for n in range(9))],
        lambda user: [day for day in range(7) for _ in range(2)],
        lambda user: [user % 20 + day for day in range(12) if day % 10 != 9],
        lambda user: [user % 20] * 8,
    ],
    ids=["days without a row", "two rows a day", "nearly every day from another one on", "one day each"],
)
def test_days_that_users_share_are_times(tmp_path: Path, days: Callable[[int], list[int]]) -> None:
    triples = [(f"u{u}", f"i{n}", day) for u in range(30) for n, day in enumerate(days(u))]
    assert not load(folder_with(tmp_path, rows(*triples))).ordinal


def test_repeated_pair_counts_once_at_its_earliest_time(tmp_path):
    dataset = load(folder_with(tmp_path, rows(("u", "a", 9), ("u", "b", 5), ("u", "a", 1))))
    assert dataset.timestamps.tolist() == [1, 5]
    assert dataset.notes[0] == ("1 interactions repeat a (user, item) pair; the earliest is kept (first: shop.inter:2)")


def test_users_and_items_with_too_few_interactions_are_left_out_until_stable(tmp_path):
    kept = [(f"u{u}", f"i{i}", i) for u in range(3) for i in range(3)]
    dataset = load(folder_with(tmp_path, rows(*kept, ("u9", "i0", 1), ("u0", "i9", 7))), min_count=2)
    assert dataset.catalogue.user_ids == ("u0", "u1", "u2")
    assert dataset.catalogue.item_ids == ("i0", "i1", "i2")
    assert "2 interactions of users or items with fewer than 2 positives left out" in dataset.notes[0]


def test_ties_in_time_are_ordered_by_hash_and_not_by_line(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    triples = [("u", f"i{n}", 1) for n in range(20)]
    first = load(folder_with(tmp_path / "a", rows(*triples)))
    second = load(folder_with(tmp_path / "b", rows(*reversed(triples))))
    assert first.histories.items.tolist() == second.histories.items.tolist()
    assert first.histories.items.tolist() != sorted(first.histories.items.tolist())


def test_html_entities_are_decoded_and_a_byte_order_mark_is_skipped(tmp_path):
    item = "item_id:token\ttitle:token_seq\ni\tSalt &amp; Pepper &#39;n&#39; Co\n"
    dataset = load(folder_with(tmp_path, b"\xef\xbb\xbf" + rows(("u", "i", 1)).encode(), item))
    assert dataset.catalogue.titles == ("Salt & Pepper 'n' Co",)


def test_a_title_is_one_line_whatever_its_entities_decode_to(tmp_path):
    item = "item_id:token\ttitle:token_seq\ni\t&nbsp;Salt&#10;and&#x2028;  Pepper&#13;\nj\t&#10;\n"
    dataset = load(folder_with(tmp_path, rows(("u", "i", 1), ("u", "j", 2)), item))
    assert dataset.catalogue.titles == ("Salt and   Pepper", "j")


def test_an_id_on_many_lines_is_held_once(tmp_path):
    folder = folder_with(tmp_path, rows(("u-1", "i-1", 1), ("u-1", "i-2", 2)))
    first, second = atomic.read_file(folder / "shop.inter", ("user_id",)).columns["user_id"]
    assert first is second


def test_lines_may_end_as_on_windows_and_the_last_need_not_end_at_all(tmp_path):
    inter = rows(("u", "a", 1), ("u", "b", 2)).replace("\n", "\r\n").encode()
    assert load(folder_with(tmp_path, inter.removesuffix(b"\r\n"))).catalogue.item_ids == ("a", "b")


def test_low_ratings_are_not_positives(tmp_path):
    inter = rows(("u", "a", 1, 5), ("u", "b", 2, 3), header=HEADER + "\trating:float")
    assert load(folder_with(tmp_path, inter)).catalogue.item_ids == ("a",)
    assert load(folder_with(tmp_path, inter), min_rating=3).catalogue.item_ids == ("a", "b")


def test_ratings_of_another_scale_are_said(tmp_path):
    inter = rows(("u", "a", 1, 10), ("u", "b", 2, 5), header=HEADER + "\trating:float")
    assert (
        "ratings reach 10, and positives are those of 4 and more (--min-rating)"
        in load(folder_with(tmp_path, inter)).notes
    )
    five = rows(("u", "a", 1, 5), ("u", "b", 2, 4), header=HEADER + "\trating:float")
    assert not any("ratings reach" in note for note in load(folder_with(tmp_path, five)).notes)


def test_labels_are_no_positives_until_they_are_ratings(tmp_path):
    inter = rows(("u", "a", 1, 1), ("u", "b", 2, 0), header=HEADER + "\tlabel:float")
    with pytest.raises(DataError, match=r"shop\.inter: a column label .* call it rating .* --min-rating 1"):
        load(folder_with(tmp_path, inter))
    renamed = folder_with(tmp_path, inter.replace("label", "rating"))
    assert load(renamed, min_rating=1).catalogue.item_ids == ("a",)
    both = rows(("u", "a", 1, 1, 5), ("u", "b", 2, 1, 2), header=HEADER + "\tlabel:float\trating:float")
    assert load(folder_with(tmp_path, both)).catalogue.item_ids == ("a",)


def test_folder_without_interactions_and_unknown_name_are_errors(tmp_path):
    with pytest.raises(DataError, match="found nothing"):
        sources.load(str(tmp_path))
    with pytest.raises(DataError, match="did you mean 'ml-100k'"):
        sources.load("ml100k")
    with pytest.raises(DataError, match="is a file: give its folder"):
        sources.load(str(folder_with(tmp_path, rows()) / "shop.inter"))


def test_numeric_ids_are_ordered_as_numbers(tmp_path):
    dataset = load(folder_with(tmp_path, rows(("10", "2", 1), ("9", "11", 1))))
    assert dataset.catalogue.user_ids == ("9", "10")
    assert dataset.catalogue.item_ids == ("2", "11")
    assert np.array_equal(dataset.histories[0], [1])
    padded = load(folder_with(tmp_path, rows(*(("1", "0" * zeros + "7", zeros) for zeros in (2, 0, 3, 1)))))
    assert padded.catalogue.item_ids == ("0007", "007", "07", "7")  # equal numbers in one order in every process


def test_ties_in_time_are_ordered_for_every_user_anew(tmp_path):
    dataset = load(folder_with(tmp_path, rows(*((user, f"i{n}", 1) for user in "uv" for n in range(20)))))
    assert dataset.histories[0].tolist() != dataset.histories[1].tolist()


def test_leaving_out_goes_on_while_it_leaves_too_few(tmp_path):
    kept = [(f"u{u}", f"i{i}", i) for u in range(3) for i in range(3)]
    chain = [("u7", "i0", 1), ("u7", "i8", 2), ("u8", "i8", 3)]  # u8 goes, then i8, then u7
    dataset = load(folder_with(tmp_path, rows(*kept, *chain)), min_count=2)
    assert dataset.catalogue.user_ids == ("u0", "u1", "u2")
