"""P5 learns from several families of prompts, once, and ranks by the likelihood of titles."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.histories import Histories
from methods import registry
from methods.base import NotRunnable
from methods.lm.backbone import load_backbone
from methods.lm.encdec import SENTINEL
from methods.lm.questions import Window
from methods.lm.tuning import Tuned
from methods.p5 import training
from methods.p5.method import P5
from methods.p5.training import FAMILIES, scorer
from methods.paprec.method import PapRec
from tests.methods.p5.world import CHOOSE, SEQUENTIAL, make_t5, make_titled_task, make_tokenizer, save, save_pieces
from tests.methods.test_tallrec import auc

QUICK = {"epochs": 1, "prompts": 8, "batch": 4, "valid_users": 4, "offered": 3}
SHOWN = Window(np.array([0, 1]), np.array([2, 3, 20, 21]), np.array([True, True, False, False]))


@pytest.fixture
def task(tmp_path):
    return make_titled_task(tmp_path, backbone=str(save(tmp_path / "hub")))


def texts(task, role, template, shown=SHOWN):
    """Prompts and answers of a window in words."""
    reader = scorer(load_backbone(task, "tiny-t5"), None).reader
    asked = FAMILIES[role](reader, task.catalogue, template, shown, np.random.default_rng(0))
    decode = reader.encoder.tokenizer.decode
    return [
        (decode(one.group.prefix[1:]), decode(suffix[-count:]))
        for one in asked
        for suffix, count in zip(one.group.suffixes, one.answers, strict=True)
    ]


def test_it_is_registered_with_the_role_it_is_scored_with():
    method = registry.create("p5")
    assert method.info.name == "p5" and method.info.roles == {"sequential"}


def test_asked_for_the_next_title_every_coming_title_is_an_answer(task):
    prompt = "After Red Space, Blue Space comes"
    assert texts(task, "sequential", SEQUENTIAL[0]) == [(prompt, "Green Space"), (prompt, "Black Space")]


def test_asked_yes_or_no_the_title_is_in_the_prompt(task):
    asked = texts(task, "recommend", task.templates["recommend"][1])
    prompt = "Is {} the next choice after Red Space, Blue Space?"
    assert asked == [(prompt.format("Green Space"), "Yes"), (prompt.format("White Love"), "No")]


def test_asked_to_choose_the_titles_are_offered_and_the_next_is_the_answer(task):
    ((prompt, answer),) = texts(task, "choose", CHOOSE[0])
    before, offered = prompt.removesuffix("?").split(", which of ")
    assert before == "After Red Space, Blue Space"
    assert sorted(offered.split(", ")) == sorted(task.catalogue.titles[item] for item in (2, 20, 21))
    assert answer == "Green Space"


def test_the_place_of_the_answer_says_nothing(task):
    reader, rng = scorer(load_backbone(task, "tiny-t5"), None).reader, np.random.default_rng(0)
    places = np.zeros(3)
    for _ in range(60):
        (asked,) = FAMILIES["choose"](reader, task.catalogue, CHOOSE[0], SHOWN, rng)
        offered = reader.encoder.tokenizer.decode(asked.group.prefix).split("which of ")[1]
        places[offered.removesuffix("?").split(", ").index("Green Space")] += 1
    assert places.min() >= 10


def test_negatives_drawn_twice_are_offered_once_and_none_is_no_second_right_answer(task):
    twice = Window(SHOWN.history, np.array([2, 3, 20, 20]), SHOWN.chosen)
    ((prompt, _),) = texts(task, "choose", CHOOSE[0], twice)
    assert prompt.count("White Love") == prompt.count("Green Space") == 1 and "Black Space" not in prompt
    none = Window(SHOWN.history, np.array([2, 3]), np.array([True, True]))
    assert [answer for _, answer in texts(task, "recommend", task.templates["recommend"][1], none)] == ["Yes"]


def test_titles_too_long_to_be_offered_together_are_said_with_what_to_change(task):
    titles = tuple(f"{title} {'Space ' * 100}" for title in task.catalogue.titles)
    task = replace(task, catalogue=replace(task.catalogue, titles=titles))
    with pytest.raises(NotRunnable, match=r"'which' needs .* lower the setting offered, or set"):
        texts(task, "choose", CHOOSE[0])


def test_a_catalogue_that_one_user_has_almost_chosen_is_learnt_from(task):
    items = np.arange(8)
    train = Histories.of(items if user < 30 else items[:6] for user in range(60))
    report = P5(**{**QUICK, "prompts": 40}, questions=0.4, choices=0.4).fit(replace(task, train=train), seed=0)
    assert report.epochs == 1


@pytest.mark.parametrize(
    ("questions", "choices", "negatives"),
    [(0.0, 0.0, "0"), (0.3, 0.0, "1 asked about"), (0.3, 0.2, "1 asked about, 5 offered")],
)
def test_the_ledger_counts_negatives_of_what_was_asked(task, questions, choices, negatives):
    method = P5(**{**QUICK, "prompts": 20, "offered": 5}, questions=questions, choices=choices)
    assert method.fit(task, seed=0).negatives == negatives


@pytest.fixture
def given(task, monkeypatch):
    """Fits with some settings, and says what tuning is given, and what is asked in which wording."""

    def fit(**settings):
        found, asked = {}, []

        def watched(role, ask):
            return lambda *a: asked.append((role, a[2].id, a[3])) or ask(*a)

        def spy(model, epochs, measure, schedule, **more):
            found.update(epochs=[list(batches) for batches in epochs], measure=measure, schedule=schedule, **more)
            return Tuned(1, True, 0.5, 1, 2, 3)

        monkeypatch.setattr(training, "FAMILIES", {role: watched(role, ask) for role, ask in FAMILIES.items()})
        monkeypatch.setattr(training, "tune", spy)
        P5(**{**QUICK, **settings}).fit(task, seed=0)
        return found, asked

    return fit


def test_every_pass_asks_anew_along_one_schedule(given):
    found, _ = given(epochs=2, warmup=0.2, rate=7e-3, patience=7)
    first, second = ([q.group.prefix.tolist() for batch in batches for q in batch] for batches in found["epochs"])
    schedule = found["schedule"]
    assert first != second and schedule.steps == sum(map(len, found["epochs"]))
    assert (schedule.warmup, schedule.rate, schedule.patience) == (0.2, 7e-3, 7)


def test_families_are_asked_as_often_as_is_set(given):
    _, asked = given(prompts=600, questions=0.1, choices=0.1)
    assert np.mean([role == "sequential" for role, *_ in asked]) == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize(("mean_over", "by_prompt"), [("tokens", False), ("prompts", True)])
def test_the_loss_is_the_mean_that_is_set(given, mean_over, by_prompt):
    assert given(mean_over=mean_over)[0]["by_prompt"] is by_prompt
    with pytest.raises(ValueError, match="mean_over is 'tokens' or 'prompts', not 'users'"):
        P5(mean_over="users")


def test_windows_are_asked_about_in_all_seen_wordings_with_as_many_items_as_is_set(task, given):
    _, asked = given(prompts=60, ahead=2)
    for role in FAMILIES:
        assert {name for at, name, _ in asked if at == role} == {template.id for template in task.templates[role]}
    assert {int(shown.chosen.sum()) for *_, shown in asked} == {1, 2}
    assert {int((~shown.chosen).sum()) for *_, shown in asked} == {3}


@pytest.mark.parametrize("normalised", [False, True])
def test_it_stops_on_what_it_ranks_by(given, monkeypatch, normalised):
    asked = []

    def likelihood(self, requests, role, normalised):
        asked.append((role, normalised, requests.candidates.shape))
        return np.zeros(requests.candidates.shape)

    monkeypatch.setattr(training.EncDecScorer, "title_likelihood", likelihood)
    given(normalised=normalised, valid_users=5, valid_negatives=2)[0]["measure"]()
    assert asked == [("sequential", normalised, (5, 3))]


@pytest.mark.parametrize(
    ("questions", "choices", "roles"),
    [
        (0.0, 0.0, {"sequential"}),
        (1.0, 0.0, {"recommend"}),
        (0.0, 1.0, {"choose"}),
        (0.9, 0.1, {"recommend", "choose"}),
        (0.4, 0.3, set(FAMILIES)),
    ],
)
def test_shares_say_which_families_are_learnt(task, monkeypatch, questions, choices, roles):
    seen = set()

    def watched(role, ask):
        def wrapped(*arguments):
            seen.add(role)
            return ask(*arguments)

        return wrapped

    monkeypatch.setattr(training, "FAMILIES", {role: watched(role, ask) for role, ask in FAMILIES.items()})
    P5(**{**QUICK, "prompts": 40}, questions=questions, choices=choices).fit(task, seed=0)
    assert seen == roles


def test_an_obvious_pattern_is_learnt(tmp_path):
    task = make_titled_task(tmp_path, users=120, backbone=str(save(tmp_path / "hub")))
    method = P5(epochs=4, prompts=320, batch=16, valid_users=30, rate=3e-3, offered=3)
    report = method.fit(task, seed=0)
    fresh = make_titled_task(tmp_path, users=60, seed=9)
    assert auc(method.score(fresh.valid), fresh.valid_positive) > 0.8
    assert 1 <= report.epochs <= 4 and report.tokens > report.interactions > 0
    assert "trained as P5" in report.note and "validation AUC" in report.note


def test_the_embedded_backbone_is_the_default(tmp_path):
    method = P5(**QUICK, backbone_steps=2)
    report = method.fit(make_titled_task(tmp_path), seed=0)
    assert "tiny-t5" in report.note


def test_it_is_trained_once_for_rows_that_share_its_settings(task, monkeypatch):
    first = P5(**QUICK)
    report = first.fit(task, seed=0)
    monkeypatch.setattr(training, "tune", lambda *_, **__: pytest.fail("trained again"))
    again = PapRec(**QUICK, budget=0, global_tokens=0, user_tokens=0)
    repeated = again.fit(task, seed=0)
    np.testing.assert_allclose(again.score(task.valid), first.score(task.valid), atol=1e-5)
    assert repeated.tokens == report.tokens > 0


CHANGES = ["seed", "rate", *FAMILIES, "valid wording", "titles", "history", "valid"]


@pytest.mark.parametrize("change", [*CHANGES, "weights", "vocabulary", "window", "config"])
def test_what_it_depends_on_is_part_of_its_key(task, change):
    backbone = load_backbone(task, "tiny-t5")

    def key(task, settings=None, seed=0, backbone=backbone):
        return training._key(backbone, task, settings or P5(), seed)

    def reworded(role):
        return replace(task, templates={**task.templates, role: (replace(SEQUENTIAL[0], id="other", role=role),)})

    def configured(**changes):
        model = deepcopy(backbone.model)
        model.config.update(changes)
        return replace(backbone, model=model)

    changed = {
        "seed": lambda: key(task, seed=1),
        "rate": lambda: key(task, P5(rate=5e-3)),
        **{role: lambda role=role: key(reworded(role)) for role in FAMILIES},
        "valid wording": lambda: key(
            replace(task, valid=replace(task.valid, templates={"sequential": SEQUENTIAL[:1] * 60}))
        ),
        "titles": lambda: key(
            replace(task, catalogue=replace(task.catalogue, titles=("Other", *task.catalogue.titles[1:])))
        ),
        "weights": lambda: key(task, backbone=replace(backbone, model=make_t5(len(backbone.tokenizer), seed=1))),
        "vocabulary": lambda: key(task, backbone=replace(backbone, tokenizer=make_tokenizer("Other"))),
        "window": lambda: key(task, backbone=replace(backbone, window=100)),
        "config": lambda: key(task, backbone=configured(dropout_rate=0.3)),
        "history": lambda: key(replace(task, train=task.train.last(3))),
        "valid": lambda: key(replace(task, valid_positive=task.valid_positive[::-1])),
    }
    assert changed[change]() != key(task) == key(task, PapRec(budget=3))
    assert key(task) == key(task, backbone=configured(name_or_path="somewhere/else"))


def test_without_epochs_the_backbone_is_used_as_it_is(task):
    method = P5(epochs=0)
    report = method.fit(task, seed=0)
    plain = scorer(load_backbone(task, "tiny-t5"), None).title_likelihood(task.valid, "sequential", normalised=False)
    np.testing.assert_array_equal(method.score(task.valid), plain)
    assert report.epochs == report.tokens == 0 and "trained as P5" not in report.note
    assert report.converged is None


def test_the_decoder_writes_the_answer_without_a_sentinel(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([SENTINEL])
    make_t5(len(tokenizer)).save_pretrained(tmp_path / "hub")
    tokenizer.save_pretrained(tmp_path / "hub")
    task = make_titled_task(tmp_path, backbone=str(tmp_path / "hub"))
    reader = scorer(load_backbone(task, "tiny-t5"), None).reader
    assert reader.title("Red Space").tolist() == [0, *reader.tokens("Red Space")]


@pytest.mark.parametrize("role", ["sequential", "recommend", "choose"])
def test_every_family_needs_templates(task, role):
    some = {other: group for other, group in task.templates.items() if other != role}
    with pytest.raises(NotRunnable, match=f"p5 needs seen templates of role '{role}'"):
        P5(**QUICK).fit(replace(task, templates=some), seed=0)


def test_fitting_leaves_the_global_random_state_alone(task):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    P5(**QUICK).fit(task, seed=0)
    assert torch.equal(torch.rand(1), expected)


def test_the_same_seed_gives_the_same_scores(tmp_path):
    def scores(name, seed):
        task = make_titled_task(tmp_path / name, backbone=str(save(tmp_path / "hub")))
        method = P5(**{**QUICK, "prompts": 160, "batch": 16, "valid_users": 30}, rate=3e-3)
        method.fit(task, seed)
        return method.score(task.valid)

    np.testing.assert_array_equal(scores("a", 0), scores("b", 0))
    assert not np.array_equal(scores("a", 0), scores("a", 1))


def test_training_that_comes_from_the_cache_is_counted_with_the_seconds_it_took(task):
    first, again, row = (method.fit(task, seed=5) for method in (P5(**QUICK), P5(**QUICK), PapRec(**QUICK, budget=0)))
    assert first.reused == 0 < again.reused == row.reused
    (spent,) = task.compute.cache.glob("backbones/p5-*/seconds.txt")
    assert float(spent.read_text()) == again.reused


@pytest.mark.parametrize("settings", [{"questions": 0.8, "choices": 0.4}, {"questions": -0.1}])
def test_unfit_shares_are_refused(settings):
    with pytest.raises(registry.MethodError, match="shares of the prompts"):
        registry.create("p5", settings)


@pytest.mark.parametrize("name", ["p5", "paprec"])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rate": 0.0}, "rate is more than 0, not 0.0"),
        *(({"warmup": share}, "warmup is at least 0 and at most 1") for share in (-0.1, 1.1)),
    ],
)
def test_unfit_rates_and_warmups_are_refused(name, settings, said):
    with pytest.raises(registry.MethodError, match=said):
        registry.create(name, settings)


@pytest.mark.parametrize("name", P5.least)
def test_settings_below_the_least_that_makes_sense_are_refused(name):
    with pytest.raises(registry.MethodError, match=f"{name} is at least {P5.least[name]}, not {P5.least[name] - 1}"):
        registry.create("p5", {name: P5.least[name] - 1})


def test_a_history_longer_than_requests_show_is_refused(task):
    with pytest.raises(NotRunnable, match="shortest is 40, but requests show 5 items at most"):
        P5(**QUICK, shortest=40).fit(task, seed=0)


def test_a_t5_with_pieces_is_trained_and_scores(tmp_path):
    task = make_titled_task(tmp_path, backbone=str(save_pieces(tmp_path / "hub")))
    method = P5(**QUICK)
    assert method.fit(task, seed=0).tokens > 0
    reader = method.scorer.reader
    assert reader.prompt(SEQUENTIAL[0], task.catalogue.domain, ["Red Space"])[-1] == 1
    assert [*reader.title("Red Space")[1:]] == reader.tokens("Red Space")
    assert np.isfinite(method.score(task.valid)).all()
