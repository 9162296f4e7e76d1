"""The rows of the leaderboard."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from data.histories import Histories
from methods.base import NotRunnable, Showing
from methods.lrgd import attention, training
from methods.lrgd.attention import Strength
from methods.lrgd.demonstrations import PoolSize
from methods.lrgd.icl import IclScorer, encode
from methods.lrgd.method import Lrgd
from methods.lrgd.robust import choose, worst
from methods.lrgd.selection import Selection
from methods.lrgd.training import IclTraining
from methods.ranks import mid_rank, ndcg
from methods.registry import REGISTRY, create, fixed
from tests.methods.lrgd.world import make_world

SMALL = {"backbone_steps": 2, "training_steps": 2, "valid_users": 6, "valid_negatives": 3, "negatives": 4, "shots": 2}
zero_shot, random, stage1 = (
    partial(Lrgd, row=row, **REGISTRY[f"lrgd/{row}"][1]) for row in ("zero-shot", "random", "stage1")
)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def fitted(task):
    def fit(kind=stage1, seed=0, **settings):
        method = kind(**{**SMALL, **settings})
        method.fit(task, seed)
        return method

    return fit


@pytest.mark.parametrize(
    "name", ["lrgd/zero-shot", "lrgd/random", "lrgd/recent", "lrgd/similar", "lrgd/stage1", "lrgd"]
)
def test_every_row_is_registered_fits_and_scores(task, name):
    method = create(name, {setting: value for setting, value in SMALL.items() if setting not in fixed(name)})
    assert method.info.name == name and method.info.roles == {"demonstrate"}
    report = method.fit(task, 0)
    scores = method.score(task.valid)
    assert scores.shape == task.valid.candidates.shape and np.isfinite(scores).all() and scores.std() > 0
    assert np.array_equal(method.score(task.valid), scores)
    assert report.tokens > report.interactions > 0 and "tiny-llama" in report.note


def test_rows_do_not_depend_on_who_else_is_asked_for(task, fitted):
    method = fitted(stage1)
    together = method.score(task.valid)
    rows = np.array([7, 3, 20])
    np.testing.assert_allclose(method.score(task.valid.select(rows)), together[rows], atol=1e-4)
    np.testing.assert_allclose(fitted(stage1).score(task.valid.select(rows)), together[rows], atol=1e-4)


def test_a_prompt_seen_before_is_not_computed_again(task, fitted, monkeypatch):
    method = fitted(stage1)
    first = method.score(task.valid.select(np.array([4, 9, 4])))
    assert np.array_equal(first[0], first[2]) and not np.allclose(first[0], first[1])
    monkeypatch.setattr(method.scorer, "answer_likelihood", lambda prompts, *_: np.zeros((len(prompts), 6)))
    again = method.score(task.valid.select(np.array([9, 5, 4])))
    assert np.array_equal(again[[0, 2]], first[[1, 0]]) and not again[1].any()


def test_stage_two_without_strength_is_stage_one(task, fitted):
    plain = fitted(stage1).score(task.valid)
    assert np.array_equal(fitted(Lrgd, alpha=0.0, beta=0.0, eps=0.0).score(task.valid), plain)
    assert not np.allclose(fitted(Lrgd, alpha=0.2, beta=0.0, eps=0.0).score(task.valid), plain)


def test_demonstrations_and_their_selection_change_the_scores(task, fitted):
    kinds = (zero_shot(**{**SMALL, "shots": 0}), random(**SMALL), stage1(**SMALL))
    for method in kinds:
        method.fit(task, 0)
    zero, drawn, chosen = (method.score(task.valid) for method in kinds)
    assert not np.allclose(zero, drawn) and not np.allclose(drawn, chosen)


def test_a_request_can_ask_for_another_number_and_order(task, fitted):
    method, users = fitted(stage1), task.valid.users.tolist()
    own, one, turned = (
        replace(task.valid, showing=showing) for showing in (Showing(), Showing(count=1), Showing(order="reversed"))
    )
    assert method.demonstrated(own) == [method.selector.demonstrations(user) for user in users]
    assert [row[-1:] for row in method.demonstrated(own)] == method.demonstrated(one)
    assert [row[::-1] for row in method.demonstrated(own)] == method.demonstrated(turned)
    assert np.array_equal(method.score(one), fitted(stage1, shots=1).score(own))
    assert not np.allclose(method.score(turned), method.score(own))


def test_without_demonstrations_none_can_be_asked_for(task):
    method = zero_shot(**{**SMALL, "shots": 0})
    method.fit(task, 0)
    asked = replace(task.valid, showing=Showing(count=4, order="reversed"))
    assert not any(method.demonstrated(asked))
    assert np.array_equal(method.score(asked), method.score(task.valid))


def test_titles_and_wording_of_the_request_are_what_is_shown(task, fitted):
    method = fitted(stage1)
    shouted = replace(task.valid.catalogue, titles=tuple(title.upper() for title in task.valid.catalogue.titles))
    for shown in (
        replace(task.valid, catalogue=shouted),
        replace(task.valid, templates={"demonstrate": task.valid.templates["demonstrate"][::-1]}),
    ):
        assert not np.allclose(method.score(shown), method.score(task.valid))


def test_a_backbone_is_accustomed_to_demonstrations_once(task, fitted, monkeypatch):
    fitted(stage1)
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("trained again"))
    fitted(random)


def test_settings_reach_training_and_selection(fitted, monkeypatch):
    given, accustomed = [], training.accustomed
    monkeypatch.setattr(training, "accustomed", lambda *a: given.append(a[2:]) or accustomed(*a))
    method = fitted(stage1, 7, told=0.3, order="update", redundancy=0.2, targets=1, own=3, others=5, shown=2)
    assert given == [(IclTraining(steps=2, told=0.3, seed=7), PoolSize(0, 5, 2))]
    assert method.selector.selection == Selection("effect", 2, PoolSize(3, 5, 2), 0.2, 1, "update")
    assert method.selector.seed == 7


def test_another_seed_gives_another_training(task, fitted):
    first, other = (fitted(zero_shot, seed, shots=0).score(task.valid) for seed in (0, 1))
    assert (first != other).any()


def test_without_seen_templates_it_cannot_run(task):
    with pytest.raises(NotRunnable, match="lrgd/stage1 needs seen templates of role 'demonstrate'"):
        stage1(**SMALL).fit(replace(task, templates={"recommend": task.templates["recommend"]}), 0)


def test_users_who_have_chosen_everything_have_no_wrong_choices(task):
    everything = Histories.of(np.unique(task.train.items) if user == 0 else row for user, row in enumerate(task.train))
    method = Lrgd(**{**SMALL, "negatives": len(task.train)})
    method.fit(replace(task, train=everything), 0)
    assert np.isfinite(method.score(task.valid)).all()


def test_wrong_choices_have_no_title_that_the_user_has_chosen(task, monkeypatch):
    titles = task.catalogue.titles[:16] * 2  # every title is that of two items
    shared = replace(task, catalogue=replace(task.catalogue, titles=titles))
    asked = []

    def encoded(encoder, query, answers):
        asked.extend([query] if list(answers) == ["x"] else [])
        return encode(encoder, query, answers)

    monkeypatch.setattr("methods.lrgd.icl.encode", encoded)
    Lrgd(**{**SMALL, "negatives": len(task.train)}).fit(shared, 0)
    shown = [(query, one) for query in asked for one in query.demonstrations]
    assert len(shown) > 20
    for query, one in shown:
        assert titles[one.choice] not in {titles[item] for item in query.history}
    alike = replace(task, catalogue=replace(task.catalogue, titles=("Red Space",) * 32))
    with pytest.raises(NotRunnable, match="share no items, titles do not tell items apart"):
        Lrgd(**SMALL).fit(alike, 0)


def test_where_nothing_can_be_demonstrated_stage_two_cannot_run(task):
    alone = Histories.of(row if user == 0 else row[:1] for user, row in enumerate(task.train))
    with pytest.raises(NotRunnable, match="lrgd: there is nothing to demonstrate"):
        Lrgd(**SMALL).fit(replace(task, train=alone), 0)


def test_half_precision_serves(task):
    method = Lrgd(**SMALL, alpha=0.1, beta=0.2, eps=0.3)
    method.fit(replace(task, compute=replace(task.compute, dtype="float16")), 0)
    assert np.isfinite(method.score(task.valid)).all()


@pytest.mark.parametrize(
    ("setting", "choices"),
    [("strategy", "'effect' or 'random' or 'recent' or 'similar'"), ("order", "'removal' or 'update'")],
)
def test_an_unknown_choice_is_refused_with_the_known_ones(setting, choices):
    with pytest.raises(ValueError, match=f"{setting} is {choices}, not 'best'"):
        Lrgd(**SMALL, **{setting: "best"})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"shots": -1}, "shots is at least 0, not -1"),
        ({"shown": 0}, "shown is at least 1, not 0"),
        ({"valid_users": 0}, "valid_users is at least 1, not 0"),
        ({"alpha": 1.5}, "alpha is between 0 and 1, not 1.5"),
        ({"redundancy": float("nan")}, "redundancy is between 0 and inf, not nan"),
        ({"shots": 17}, r"shots is at most own \+ others, which is 16, not 17"),
        ({"strategy": "recent", "shots": 5}, "shots is at most own, which is 4, not 5"),
        ({"stage_two": False, "eps": 0.1}, "nothing is changed: leave eps out"),
        ({"shots": 0, "alpha": 0.1}, "nothing is changed: leave alpha out"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Lrgd(**settings)


def test_what_makes_a_row_is_not_set_by_a_pattern():
    assert fixed("lrgd/zero-shot") == {"row", "shots", "stage_two"}


def test_a_given_strength_is_compared_with_the_unchanged_model(task, fitted):
    note = Lrgd(**SMALL, alpha=0.9, beta=0.0, eps=0.0).fit(task, 0).note
    plain = Lrgd(**SMALL, alpha=0.0, beta=0.0, eps=0.0).fit(task, 0).note
    assert note.split(", ")[-1] == plain.split(", ")[-1] and "alpha 0.9" in note


def test_what_is_given_holds_while_the_rest_is_chosen(fitted, monkeypatch):
    tried, likelihood = [], IclScorer.answer_likelihood

    def spy(self, prompts, strength, material):
        tried.append(strength)
        return likelihood(self, prompts, strength, material)

    monkeypatch.setattr(IclScorer, "answer_likelihood", spy)
    fitted(Lrgd, alpha=0.3)
    *chosen, first, second = tried  # the unchanged model comes last, in both wordings
    assert {strength.alpha for strength in chosen} == {0.3} and first.plain and second.plain


def test_quality_is_about_the_positive_of_every_list(task, monkeypatch):
    monkeypatch.setattr(IclScorer, "answer_likelihood", lambda _, prompts, *__: np.eye(1, 4).repeat(len(prompts), 0))
    assert "ndcg@10 1.0000" in Lrgd(**SMALL).fit(task, 0).note


def test_values_of_wrong_choices_are_means_over_tokens(fitted, monkeypatch):
    seen, mean_values = [], attention.mean_values

    def spy(traces, tokens):
        seen.append((mean_values(traces, tokens), int(tokens.sum())))
        return seen[-1][0]

    monkeypatch.setattr(attention, "mean_values", spy)
    method = fitted(Lrgd, alpha=0.0, beta=0.5, eps=0.0)
    assert len({tokens for _, tokens in seen}) > 1
    expected = sum(mean * tokens for mean, tokens in seen) / sum(tokens for _, tokens in seen)
    torch.testing.assert_close(method._material.negative, expected)


def test_noise_is_that_of_the_seed(fitted):
    one, other = (fitted(Lrgd, seed, alpha=0.0, beta=0.0, eps=0.1)._material.noise for seed in (0, 1))
    assert not torch.equal(one, other)


def test_after_forgetting_everything_is_scored_anew(task, fitted, monkeypatch):
    method = fitted(stage1)
    method.score(task.valid)
    monkeypatch.setattr(method.scorer, "answer_likelihood", lambda prompts, *_: np.zeros((len(prompts), 6)))
    assert method.score(task.valid).any()
    method.forget()
    assert not method.score(task.valid).any()


def test_a_strength_is_kept_only_where_it_is_strictly_better():
    assert choose(lambda strength: 1.0).strength == Strength()
    choice = choose(
        lambda s: -abs(s.alpha - 0.1) - abs(s.eps - 0.2), {"alpha": (0.05, 0.1), "beta": (0.5,), "eps": (0.2, 0.4)}
    )
    assert choice.strength == Strength(alpha=0.1, eps=0.2) and choice.trials == 6
    assert choice.quality == 0.0 and choice.plain == pytest.approx(-0.3)


def test_quality_is_that_of_the_worst_template():
    good, bad = (ndcg(mid_rank(np.array([[2.0, 1.0, 0.0]]), column)) for column in (0, 2))
    assert good == 1.0 and worst([good, bad, good]) == bad[0] == pytest.approx(0.5)
