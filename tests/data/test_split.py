"""Splits and candidate lists: what never may be in them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import candidates
from data.candidates import CandidateError, Candidates
from data.dataset import Catalogue, Dataset
from data.histories import Histories
from data.split import SplitError, leave_one_out, temporal


def dataset_of(rows: list[list[int]], times: list[list[float]] | None = None, n_items: int = 50) -> Dataset:
    catalogue = Catalogue(
        "made",
        tuple(f"u{n}" for n in range(len(rows))),
        tuple(f"i{n}" for n in range(n_items)),
        tuple(f"Item {n}" for n in range(n_items)),
    )
    stamps = times or [list(range(10, 10 + 2 * len(row), 2)) for row in rows]
    return Dataset(catalogue, Histories.of(np.array(row) for row in rows), np.concatenate(stamps).astype(float))


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    rows = draw(st.lists(st.lists(st.integers(0, 49), min_size=3, max_size=12, unique=True), min_size=1, max_size=8))
    times = [sorted(draw(st.lists(st.floats(0, 1e9), min_size=len(row), max_size=len(row)))) for row in rows]
    return dataset_of(rows, times)


@given(datasets())
@settings(deadline=None)
def test_leave_one_out_puts_every_interaction_into_exactly_one_part(dataset):
    split = leave_one_out(dataset)
    for user, row in enumerate(dataset.histories):
        assert [*split.train[user], split.valid[user], split.test[user]] == row.tolist()


@given(datasets())
@settings(deadline=None)
def test_temporal_split_trains_on_nothing_later_than_any_target(dataset):
    split = temporal(dataset, 0.2, 0.2)
    time = {
        (user, item): stamp
        for user, item, stamp in zip(
            dataset.histories.rows().tolist(), dataset.histories.items.tolist(), dataset.timestamps, strict=True
        )
    }
    trained = [time[user, item] for user, row in enumerate(split.train) for item in row.tolist()]
    valid = [time[user, item] for user, item in enumerate(split.valid.tolist()) if item >= 0]
    tested = [time[user, item] for user, item in enumerate(split.test.tolist()) if item >= 0]
    assert max(trained, default=-np.inf) < min([*valid, *tested], default=np.inf)
    assert max(valid, default=-np.inf) < min(tested, default=np.inf)


@given(datasets())
@settings(deadline=None)
def test_temporal_split_shows_all_that_was_before_the_test_item_and_nothing_later(dataset):
    split = temporal(dataset, 0.2, 0.2)
    for user, row in enumerate(dataset.histories):
        shown = split.test_histories[user].tolist()
        assert shown == row[: len(shown)].tolist()
        if split.test[user] >= 0:
            assert row[len(shown)] == split.test[user]
        else:
            assert len(shown) == len(row)


def test_temporal_split_counts_what_it_shows_only_and_what_it_leaves_out():
    dataset = dataset_of([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], [[1, 2, 3, 4, 100], [1, 50, 51, 98, 99]])
    split = temporal(dataset, 0.4, 0.2)
    assert [row.tolist() for row in split.train] == [[0, 1, 2], [5]]
    assert (split.valid.tolist(), split.test.tolist()) == ([3, 6], [4, 9])
    assert split.test_histories[1].tolist() == [5, 6, 7, 8]
    assert [note.split(": ")[1].split()[0] for note in split.notes[:2]] == ["2", "0"]
    assert split.notes[2].endswith("who are not judged: 0")
    early = temporal(dataset, 0.3, 0.5)
    assert early.test.tolist() == [4, 6] and early.notes[1].split(": ")[1].startswith("3 interactions after")


def test_temporal_split_counts_users_it_cannot_judge():
    dataset = dataset_of([[0, 1, 2, 3, 4, 5], [6, 7, 8]], [[1, 2, 3, 4, 5, 100], [98, 99, 101]])
    split = temporal(dataset, 0.1, 0.45)
    assert split.test_users.tolist() == [0] and (split.test >= 0).all()
    assert "who are not judged: 1" in split.notes[2]


def test_what_is_shown_is_in_the_fingerprint_where_it_is_more_than_train_and_validation_part():
    dataset = dataset_of([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], [[1, 2, 3, 4, 100], [1, 50, 51, 98, 99]])
    split = temporal(dataset, 0.5, 0.2)
    assert split.fingerprint != replace(split, shown=None).fingerprint
    assert leave_one_out(dataset).shown is None


def test_temporal_split_refuses_positions_instead_of_times():
    dataset = dataset_of([[0, 1, 2], [3, 4, 5, 6]], [[1, 2, 3], [1, 2, 3, 4]])
    with pytest.raises(SplitError, match="cannot be compared between users"):
        temporal(replace(dataset, ordinal=True))


def test_leave_one_out_names_a_user_with_too_few_interactions():
    with pytest.raises(SplitError, match="user 'u1' has 2 interactions"):
        leave_one_out(dataset_of([[0, 1, 2], [3, 4]]))


def test_test_history_is_train_and_validation_part():
    split = leave_one_out(dataset_of([[4, 3, 2, 1]]))
    assert split.test_histories[0].tolist() == [4, 3, 2]


@given(datasets(), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_candidates_never_contain_a_touched_item_but_the_positive(dataset, seed):
    split = leave_one_out(dataset)
    lists = candidates.sampled(dataset, split.test, split.test_users, "test", seed, negatives=20)
    for row, user in enumerate(lists.users.tolist()):
        items = lists.items[row].tolist()
        assert len(set(items)) == 21
        assert items[lists.positive[row]] == split.test[user]
        assert set(items) & set(dataset.histories[user].tolist()) == {split.test[user]}


def test_candidates_depend_on_seed_part_and_user_but_not_on_the_sample_of_users():
    dataset = dataset_of([[n, n + 1, n + 2] for n in range(20)])
    split = leave_one_out(dataset)
    everybody = candidates.sampled(dataset, split.test, np.arange(20), "test", 1, 20)
    some = candidates.sampled(dataset, split.test, np.array([3, 11]), "test", 1, 20)
    assert np.array_equal(everybody.items[[3, 11]], some.items)
    other_seed = candidates.sampled(dataset, split.test, np.arange(20), "test", 2, 20)
    other_part = candidates.sampled(dataset, split.test, np.arange(20), "valid", 1, 20)
    assert not np.array_equal(everybody.items, other_seed.items)
    assert not np.array_equal(everybody.items, other_part.items)
    renamed = replace(dataset, catalogue=replace(dataset.catalogue, name="other"))
    assert not np.array_equal(
        everybody.items, candidates.sampled(renamed, split.test, np.arange(20), "test", 1, 20).items
    )


def test_position_of_the_positive_tells_nothing():
    dataset = dataset_of([[n % 40, n % 40 + 1, n % 40 + 2] for n in range(2000)])
    split = leave_one_out(dataset)
    lists = candidates.sampled(dataset, split.test, np.arange(2000), "test", 0, 9)
    counts = np.bincount(lists.positive, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # chi-square, 9 degrees of freedom, p = 0.001


def test_too_few_untouched_items_is_an_error_that_names_the_user():
    dataset = dataset_of([[0, 1, 2]], n_items=10)
    with pytest.raises(CandidateError, match="user 'u0' has 7 untouched items, fewer than the 20"):
        candidates.sampled(dataset, np.array([2]), np.array([0]), "test", 0, negatives=20)
    with pytest.raises(CandidateError, match="user 'u0' has touched every item: there is none to rank"):
        candidates.sampled(dataset_of([[0, 1, 2]], n_items=3), np.array([2]), np.array([0]), "test", 0, negatives=1)


def test_full_ranking_masks_what_the_user_touched():
    dataset = dataset_of([[0, 1, 2]], n_items=6)
    lists = candidates.full(dataset, np.array([2]), np.array([0]))
    assert lists.items.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert lists.mask is not None
    assert lists.mask.tolist() == [[False, False, True, True, True, True]]
    assert lists.targets.tolist() == [2]
    assert lists.competing.tolist() == [4]
    assert lists.competing is lists.competing  # read for every user: counted once, not users x users x items


def test_full_ranking_names_a_user_who_has_touched_every_item():
    dataset = dataset_of([[0, 1, 2], [2, 1, 0, 3]], n_items=4)
    with pytest.raises(CandidateError, match="user 'u1' has touched every item: there is none to rank"):
        candidates.full(dataset, np.array([2, 3]), np.array([0, 1]))


def test_histories_select_shorten_and_append():
    histories = Histories.of(np.array(row) for row in ([1, 2, 3], [], [4]))
    assert [row.tolist() for row in histories.last(2)] == [[2, 3], [], [4]]
    assert [row.tolist() for row in histories.append(np.array([9, -1, 8]))] == [[1, 2, 3, 9], [], [4, 8]]
    assert [row.tolist() for row in histories.select(np.array([2, 0]))] == [[4], [1, 2, 3]]
    assert histories[-1].tolist() == [4]
    with pytest.raises(IndexError):
        histories[3]


def test_what_all_methods_share_cannot_be_written_into():
    histories = Histories.of([np.array([1, 2]), np.array([3])])
    lists = Candidates(np.array([0]), np.array([[1, 2]]), np.array([1]), np.ones((1, 2), np.bool_))
    for array in (
        histories.items,
        histories[0],
        histories.offsets,
        lists.users,
        lists.items,
        lists.positive,
        lists.mask,
        lists.competing,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_temporal_split_tests_on_the_latest_tenth_and_tunes_on_the_one_before():
    split = temporal(dataset_of([list(range(20))], [list(range(20))]))
    assert (split.train[0].tolist(), split.valid.tolist(), split.test.tolist()) == (list(range(16)), [16], [18])


def test_what_happened_at_a_cut_is_after_it():
    times = [[1, 1, 1, 5, 5, 8, 8, 9, 9, 9, 9]]  # eleven: the cuts are times of interactions
    split = temporal(dataset_of([list(range(11))], times), 0.2, 0.5)
    assert (split.train[0].tolist(), split.valid.tolist(), split.test.tolist()) == ([0, 1, 2], [3], [5])


def test_nobody_is_tuned_on_by_a_validation_item_with_nothing_before_it():
    dataset = dataset_of([[0, 1, 2, 3, 4], [5, 6, 7]], [[1, 2, 3, 4, 100], [50, 98, 99]])
    split = temporal(dataset, 0.4, 0.2)
    assert split.valid.tolist() == [3, 5] and split.valid_users.tolist() == [0]


def test_a_user_has_the_same_candidates_whoever_else_is_in_the_data():
    rows = [[n, n + 1, n + 2] for n in range(20)]
    dataset, fewer = dataset_of(rows), dataset_of(rows[1:])
    fewer = replace(fewer, catalogue=replace(fewer.catalogue, user_ids=dataset.catalogue.user_ids[1:]))
    whole, part = (
        candidates.sampled(d, leave_one_out(d).test, np.arange(len(d.histories)), "test", 1, 20)
        for d in (dataset, fewer)
    )
    assert np.array_equal(whole.items[1:], part.items)


def test_a_user_whose_first_items_lie_between_the_cuts_is_judged_and_not_tuned_on():
    dataset = dataset_of([[0, 1, 2, 3, 4], [5, 6, 7]], [[1, 2, 3, 4, 100], [50, 98, 99]])
    split = temporal(dataset, 0.4, 0.2)
    assert (split.valid.tolist(), split.test.tolist()) == ([3, 5], [4, 7]) and not len(split.train[1])
    assert (split.valid_users.tolist(), split.test_users.tolist()) == ([0], [0, 1])


def test_every_untouched_item_is_drawn_as_a_negative():
    dataset = dataset_of([[0, 1, 2]] * 500)
    lists = candidates.sampled(dataset, np.full(500, 2), np.arange(500), "test", 0, negatives=9)
    drawn = np.bincount(lists.items[lists.items != 2], minlength=50)
    assert (drawn[:3] == 0).all() and drawn[3:].min() > 60  # 96 on average
