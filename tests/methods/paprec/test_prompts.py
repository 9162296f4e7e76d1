"""Triggers stand where they are put; what they are judged on is what it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data.histories import Histories
from data.prompts.template import parse
from methods.base import valid_targets
from methods.lm.backbone import load_backbone
from methods.lm.forward import padded
from methods.lm.scoring import ScoringError
from methods.p5.training import scorer as make_scorer
from methods.paprec.prompts import (
    Judge,
    candidate_lists,
    earlier_lists,
    examples,
    likelihoods,
    word_initial,
)
from methods.paprec.surrogate import PERFECT, surrogate
from tests.methods.p5.world import SEQUENTIAL, make_titled_task, make_tokenizer, save


@pytest.fixture
def task(tmp_path):
    return make_titled_task(tmp_path, users=12, backbone=str(save(tmp_path / "hub")))


@pytest.fixture
def scorer(task):
    return make_scorer(load_backbone(task, "tiny-t5"), None)


def tokens(users, size, seed=0):
    return np.random.default_rng(seed).integers(5, 60, size=(users, size))


def test_words_are_whole_words_of_a_word_level_vocabulary():
    tokenizer = make_tokenizer()
    words = tokenizer.convert_ids_to_tokens(word_initial(tokenizer).tolist())
    assert {"Space", "Red", "after"} <= set(words)
    assert not {word for word in words if word.startswith(("##", "<")) or not word[0].isalnum()}


@pytest.mark.parametrize("mark", ["\u2581", "\u0120"])
def test_of_pieces_only_those_that_begin_a_word_are_taken(mark):
    vocabulary = ["</s>", "<unk>", f"{mark}space", "space", mark, f"{mark},", f"{mark}night", "<extra_id_0>"]
    backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    assert word_initial(tokenizer).tolist() == [2, 6]


def test_triggers_stand_behind_the_prompt_and_before_its_end_token(task, scorer):
    scorer.reader = replace(scorer.reader, ending=(3,))
    lists, given = candidate_lists(scorer, task.valid, 4), tokens(12, 4)
    for row, group in enumerate(lists.shown(given)):
        user = int(task.valid.users[row])
        said = scorer.reader.encoder.encode([task.valid.prompt("sequential", row).text])[0]
        assert group.prefix.tolist() == [*said, *given[user].tolist(), 3]


def test_padding_does_not_move_triggers(task, scorer):
    lists, given = candidate_lists(scorer, task.valid, 4), tokens(12, 4)
    shown = lists.shown(given)
    assert len({len(group.prefix) for group in shown}) > 1
    ids, _ = padded([group.prefix for group in shown], scorer.model.device)
    for row in range(len(lists)):
        assert ids[row, lists.places(row, 4)].tolist() == given[row].tolist()
    together = likelihoods(scorer, lists, given, True)
    alone = np.concatenate([likelihoods(scorer, lists.select(np.array([row])), given, True) for row in range(12)])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_another_wording_keeps_the_triggers(task, scorer):
    worded = replace(SEQUENTIAL[0], parts=parse("Judging by {history}, they go for"))
    other = replace(task.valid, templates={"sequential": (worded,) * 12})
    given = tokens(12, 4)
    for requests in (task.valid, other):
        lists = candidate_lists(scorer, requests, 4)
        shown = [group.prefix[lists.places(row, 4)].tolist() for row, group in enumerate(lists.shown(given))]
        assert shown == given.tolist()


def test_a_long_history_gives_way_not_the_triggers(task, scorer):
    longest = max(len(group.prefix) for group in candidate_lists(scorer, task.valid, 4).groups)
    scorer.reader.encoder.window = longest - 2
    lists, given = candidate_lists(scorer, task.valid, 4), tokens(12, 4)
    shown = lists.shown(given)
    assert max(len(group.prefix) for group in shown) <= longest - 2
    assert [group.prefix[lists.places(row, 4)].tolist() for row, group in enumerate(shown)] == given.tolist()


def test_without_triggers_scores_are_those_of_title_likelihood(task, scorer):
    for normalised in (True, False):
        plain = scorer.title_likelihood(task.valid, "sequential", normalised)
        bare = likelihoods(scorer, candidate_lists(scorer, task.valid, 0), tokens(12, 0), normalised)
        np.testing.assert_allclose(bare, plain, atol=1e-5)


def test_earlier_lists_hold_the_latest_training_items_and_nothing_the_user_chose(task):
    requests = earlier_lists(task, count=2, negatives=5, seed=0)
    assert len(requests) == 2 * len(task.valid)
    targets = dict(zip(task.valid.users.tolist(), valid_targets(task).tolist(), strict=True))
    for n, user in enumerate(requests.users.tolist()):
        row, back = task.train[user], 1 + n % 2
        assert requests.candidates[n, 0] == row[-back]
        assert requests.histories[n].tolist() == row[max(0, len(row) - back - 5) : -back].tolist()
        others = requests.candidates[n, 1:].tolist()
        assert len(set(others)) == 5 and not set(others) & {*row.tolist(), targets[user]}


def test_examples_are_of_items_before_those_that_are_judged(task, scorer):
    shown = examples(scorer, task, size=3, skip=1, count=2)
    judged = {(int(u), t) for u, t in zip(task.valid.users, (task.train[u][-1] for u in task.valid.users), strict=True)}
    decode = scorer.reader.encoder.tokenizer.decode
    for user, group in zip(shown.users.tolist(), shown.groups, strict=True):
        title = decode(group.suffixes[0][1:])
        later = [task.catalogue.titles[item] for u, item in judged if u == user]
        assert title not in later
        assert title in {task.catalogue.titles[item] for item in task.train[user][-3:-1]}
    assert len(shown) == 2 * len(task.valid)


def test_users_with_a_short_history_have_fewer_examples_and_lists(task, scorer):
    train = Histories.of(row[:1] if user < 3 else row for user, row in enumerate(task.train))
    short = replace(task, train=train)
    assert set(earlier_lists(short, 1, 5, seed=0).users.tolist()) == set(range(3, 12))
    assert set(examples(scorer, short, 3, 1, 2).users.tolist()) == set(range(3, 12))
    none = replace(task, train=Histories.of(row[:1] for row in task.train))
    assert len(earlier_lists(none, 1, 5, seed=0)) == len(examples(scorer, none, 3, 1, 2)) == 0


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([9, 1, 2, 3, 4, 5, 6], PERFECT), ([3, 9, 8, 1, 0, 0, 0], 1.5), ([1, 2, 3, 4, 5, 6, 7], 0.0), ([2, 2, 1], 1.7565)],
)
def test_the_surrogate_is_ndcg_and_hit_at_five(scores, expected):
    assert surrogate(np.array([scores], float))[0] == pytest.approx(expected, abs=1e-3)


def test_a_judge_gives_each_asked_user_the_mean_of_their_lists(task, scorer):
    requests, given = earlier_lists(task, 2, 5, seed=0), tokens(12, 3)
    judge = Judge(scorer, candidate_lists(scorer, requests, 3), True)
    asked = np.arange(14) != 4
    values = judge(np.concatenate([given, given[:2]]), asked)
    assert np.isnan(values[[4, 12, 13]]).all()
    lists = candidate_lists(scorer, requests.select(np.flatnonzero(requests.users == 7)), 3)
    assert values[7] == pytest.approx(surrogate(likelihoods(scorer, lists, given, True)).mean())


def test_a_likelihood_that_is_no_number_is_an_error_and_no_perfect_place(task, scorer):
    judge = Judge(scorer, candidate_lists(scorer, task.valid, 3), True)
    with torch.no_grad():
        scorer.model.get_input_embeddings().weight[7] = torch.nan
    with pytest.raises(ScoringError, match=r"not a number\. Try --dtype float32"):
        judge(np.full((12, 3), 7), np.ones(12, np.bool_))


def test_a_judge_encodes_the_prompt_of_every_asked_user_once(task, scorer, monkeypatch):
    judge = Judge(scorer, candidate_lists(scorer, task.valid, 3), True)
    encoder, read = scorer.model.get_encoder(), []
    monkeypatch.setattr(
        encoder, "forward", lambda *a, **k: read.append(len(k["input_ids"])) or type(encoder).forward(encoder, *a, **k)
    )
    judge(tokens(12, 3), np.arange(12) != 4)
    assert read == [11]
