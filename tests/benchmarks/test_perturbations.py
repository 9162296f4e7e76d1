"""What all perturbations keep, and what their grades are."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.perturbations.base import (
    Graded,
    HistoryPerturbation,
    Perturbation,
    PerturbationError,
    TitlePerturbation,
    WordingPerturbation,
    draw_touched,
)
from benchmarks.perturbations.distractor import Distractor
from benchmarks.perturbations.format import Format
from benchmarks.perturbations.history import HistoryDrop, HistoryInject, HistoryShuffle
from benchmarks.perturbations.identity import Identity
from benchmarks.perturbations.register import Register
from benchmarks.perturbations.synonyms import Synonyms
from benchmarks.perturbations.title_noise import TitleNoise
from benchmarks.perturbations.typos import Typos
from data.histories import Histories
from data.prompts.template import Template, parse
from methods.base import Requests
from tests.benchmarks.perturbed import (
    ASK,
    GRADED,
    GRADES,
    HISTORY,
    MOVIES,
    SEEN,
    VALUES,
    changed,
    grades,
    is_subsequence,
    rng,
    same,
    seeds,
    source,
    wordings,
    words,
)

BEES = "Bees can see colours that humans cannot."


@pytest.mark.parametrize(
    ("perturbation", "seed", "after"),
    [
        (Typos(0.5), 0, "Afteer {history}, will rhis {consumer} chooose {target} next? Answer:"),
        (Synonyms(0.5), 0, "After {history}, will that {consumer} pick {target} next? Reply:"),
        (Format("case"), 11, "after {history}, will this {consumer} choose {target} next? answer:"),
        (Format("case"), 1, "AFTER {history}, WILL THIS {consumer} CHOOSE {target} NEXT? ANSWER:"),
        (Format("case"), 0, "After {history}, Will This {consumer} Choose {target} Next? Answer:"),
        (Format("spacing"), 0, "After {history},\nwill this {consumer} choose {target} next?\nAnswer:"),
        (Format("spacing"), 1, "After  {history},  will  this  {consumer}  choose  {target}  next?  Answer:"),
        (Distractor("before"), 1, f"{BEES} {ASK}"),
        (
            Distractor("after"),
            1,
            f"After {{history}}, will this {{consumer}} choose {{target}} next? {BEES} Answer:",
        ),
        (
            Register("polite"),
            0,
            "Hello, I would be very grateful if you could help me with the following. "
            "After {history}, will this {consumer} choose {target} next? "
            "Thank you very much for your time. Answer:",
        ),
        (Register("terse"), 0, "After {history}, will {consumer} choose {target} next? Answer:"),
        (
            Register("role-play"),
            0,
            f"Act as a renowned expert who has been advising people on what to pick for twenty years. {ASK}",
        ),
    ],
    ids=repr,
)
def test_a_wording_perturbation_gives_this_text(perturbation: WordingPerturbation, seed: int, after: str) -> None:
    assert source(perturbation, ASK, seed) == after


@pytest.mark.parametrize(
    ("seed", "after"),
    [
        (0, "1. Alien\n2. Dead Man Walking"),
        (1, '"Alien", "Dead Man Walking"'),
        (4, "- Alien\n- Dead Man Walking"),
    ],
)
def test_another_list_style_gives_this_text(seed: int, after: str) -> None:
    template = Format("list").perturb_template(Template("t", "recommend", "seen", parse("{history}")), rng(seed))
    assert template.fill(MOVIES, VALUES).text == after


@pytest.mark.parametrize(
    ("perturbation", "seed", "after"),
    [
        (HistoryShuffle(0.5), 0, [12, 11, 10, 13]),
        (HistoryDrop(0.5), 0, [11, 13]),
        (HistoryInject(0.5), 2, [10, 1, 11, 3, 12, 13]),
    ],
    ids=repr,
)
def test_a_history_perturbation_gives_this_history(
    perturbation: HistoryPerturbation, seed: int, after: list[int]
) -> None:
    assert perturbation.perturb(np.array([10, 11, 12, 13]), np.array([1, 2, 3]), rng(seed)).tolist() == after


def test_title_noise_gives_this_title() -> None:
    assert TitleNoise(0.2).perturb("The Silence of the Lambs", rng(0)) == "Th Sukence of the Lakbbs"


# what every perturbation owes


@given(perturbation=wordings, template=st.sampled_from(SEEN), seed=seeds)
def test_wording_perturbations_touch_neither_slots_nor_labels_nor_values(
    perturbation: WordingPerturbation, template: Template, seed: int
) -> None:
    after = perturbation.perturb_template(template, rng(seed))
    assert after.slots == template.slots
    assert (after.id, after.labels, after.family) == (template.id, template.labels, template.family)
    assert after.parts != template.parts or after.style != template.style or isinstance(perturbation, Graded | Register)
    values = [(s.slot, s.text) for s in template.fill(MOVIES, VALUES).segments if s.slot]
    shown = [(s.slot, s.text) for s in replace(after, style=template.style).fill(MOVIES, VALUES).segments if s.slot]
    assert shown == values
    assert all(title in after.fill(MOVIES, VALUES).text for title in ("Alien", "Dead Man Walking", "Quiz Show"))


@given(perturbation=wordings, seed=seeds)
def test_wording_perturbations_change_nothing_but_templates(
    toy: Requests, perturbation: WordingPerturbation, seed: int
) -> None:
    after = perturbation.apply(toy, seed)
    assert perturbation.reach == "wording"
    assert same(after, replace(toy, templates=after.templates))
    assert {role: len(row) for role, row in after.templates.items()} == {"recommend": 3, "attribute": 3}


@pytest.mark.parametrize("make", HISTORY)
def test_history_perturbations_change_nothing_but_histories(
    toy: Requests, make: Callable[[float], HistoryPerturbation]
) -> None:
    after = make(1.0).apply(toy, 1)
    assert make(1.0).reach == "values"
    assert not same(after, toy)
    assert same(after, replace(toy, histories=after.histories))


def test_title_noise_changes_nothing_but_titles(toy: Requests) -> None:
    after = TitleNoise(0.3).apply(toy, 1)
    assert TitleNoise(0.3).reach == "values"
    assert len(changed(toy.catalogue.titles, after.catalogue.titles)) > 12
    assert same(after, replace(toy, catalogue=replace(toy.catalogue, titles=after.catalogue.titles)))


def test_title_noise_reaches_descriptions_and_the_texts_that_methods_bring(toy: Requests) -> None:
    described = replace(toy.catalogue, fields={**toy.catalogue.fields, "description": toy.catalogue.titles[::-1]})
    after = TitleNoise(0.3).apply(replace(toy, catalogue=described), 1)
    shown = after.catalogue.fields
    assert len(changed(described.fields["description"], shown["description"])) > 12
    assert shown["year"] == toy.catalogue.fields["year"]
    assert shown["description"] == tuple(map(after.noise, described.fields["description"]))
    assert toy.noise("A shark.") == TitleNoise(0.0).apply(toy, 1).noise("A shark.") == "A shark."
    assert after.noise("") == ""


@pytest.mark.parametrize("make", GRADED)
def test_severity_0_is_the_identity(toy: Requests, make: Callable[[float], Perturbation]) -> None:
    assert all(same(make(0.0).apply(toy, seed), toy) for seed in range(20))


def test_clean_is_the_identity(toy: Requests) -> None:
    assert Identity().apply(toy, 1) is toy
    assert Identity().reach == "none"


@pytest.mark.parametrize("make", GRADED)
@pytest.mark.parametrize("severity", [-0.1, 1.01, float("nan")])
def test_a_severity_outside_0_and_1_is_refused(make: Callable[[float], Perturbation], severity: float) -> None:
    with pytest.raises(PerturbationError, match="share between 0 and 1"):
        make(severity)


@pytest.mark.parametrize("make", GRADED)
def test_the_same_seed_gives_the_same_requests_and_another_seed_others(
    toy: Requests, make: Callable[[float], Perturbation]
) -> None:
    assert same(make(0.6).apply(toy, 1), make(0.6).apply(toy, 1))
    assert not same(make(0.6).apply(toy, 1), make(0.6).apply(toy, 2))


@pytest.mark.parametrize("make", GRADED)
def test_a_sample_of_users_is_perturbed_as_among_all(toy: Requests, make: Callable[[float], Perturbation]) -> None:
    rows = np.array([2, 0])
    assert same(make(0.6).apply(toy.select(rows), 1), make(0.6).apply(toy, 1).select(rows))


@pytest.mark.parametrize("make", [Typos, Synonyms])
def test_two_users_with_one_template_are_perturbed_differently(
    toy: Requests, make: Callable[[float], WordingPerturbation]
) -> None:
    shown = make(0.5).apply(toy, 1).templates["recommend"]
    assert len({template.source for template in shown}) == 3


@pytest.mark.parametrize("make", HISTORY)
def test_two_users_with_one_history_are_perturbed_differently(
    toy: Requests, make: Callable[[float], HistoryPerturbation]
) -> None:
    twins = replace(toy, histories=Histories.of([np.arange(6)] * 3), candidates=np.full((3, 5), 20))
    assert len({tuple(row.tolist()) for row in make(0.5).apply(twins, 1).histories}) > 1


def test_two_roles_are_perturbed_differently(toy: Requests) -> None:
    ask = toy.templates["recommend"]
    shown = Typos(0.5).apply(replace(toy, templates={"recommend": ask, "search": ask}), 1).templates
    assert shown["recommend"] != shown["search"]


# grades


@given(n=st.integers(0, 40), weak=grades, strong=grades, seed=seeds, least=st.integers(1, 2))
def test_a_stronger_grade_touches_what_a_weaker_one_does(
    n: int, weak: float, strong: float, seed: int, least: int
) -> None:
    weak, strong = sorted([weak, strong])
    touched = draw_touched(n, weak, rng(seed), least=least).tolist()
    assert draw_touched(n, strong, rng(seed), least=least).tolist()[: len(touched)] == touched


@pytest.mark.parametrize("severity", [0.05, 0.1, 0.3, 0.77, 1.0])
@pytest.mark.parametrize("n", [2, 7, 40])
@pytest.mark.parametrize("least", [1, 2])
def test_the_expected_share_of_touched_positions_is_the_severity(severity: float, n: int, least: int) -> None:
    draw = rng(1)
    touched = np.zeros(n)
    for _ in range(2000):
        positions = draw_touched(n, severity, draw, least=least)
        touched[positions] += 1 / 2000
    assert touched.mean() == pytest.approx(severity, abs=0.05 / n + 0.001 if least == 1 else 0.1 / n)
    assert touched == pytest.approx(np.full(n, severity), abs=0.06)


def test_no_fewer_positions_are_touched_than_change_something() -> None:
    draw = rng(1)
    assert {len(draw_touched(10, 0.1, draw, least=2)) for _ in range(100)} == {0, 2}


@pytest.mark.parametrize("make", [Typos, Synonyms])
@given(template=st.sampled_from(SEEN), seed=seeds)
def test_grades_of_a_wording_perturbation_are_nested(
    make: Callable[[float], WordingPerturbation], template: Template, seed: int
) -> None:
    before = words(template)
    touched = [changed(before, words(make(g).perturb_template(template, rng(seed)))) for g in GRADES]
    for weak, strong in pairwise(touched):
        assert weak.items() <= strong.items()
    assert touched[-1]


@pytest.mark.parametrize("make", [Typos, Synonyms])
@pytest.mark.parametrize("severity", [0.05, 0.1, 0.2, 0.3])
def test_the_expected_share_of_changed_words_is_the_severity(
    make: Callable[[float], WordingPerturbation], severity: float
) -> None:
    perturbation = make(severity)
    for template in SEEN:
        before = words(template)
        counts = [
            len(changed(before, words(perturbation.perturb_template(template, rng(seed))))) for seed in range(200)
        ]
        assert np.mean(counts) == pytest.approx(severity * len(before), abs=0.15), template.id


@given(weak=grades, strong=grades, seed=seeds, n=st.integers(2, 10))
def test_grades_of_the_history_perturbations_are_nested(weak: float, strong: float, seed: int, n: int) -> None:
    weak, strong = sorted([weak, strong])
    history, pool = np.arange(n), np.arange(20, 40)
    moved = [
        changed(map(str, history), map(str, HistoryShuffle(g).perturb(history, pool, rng(seed))))
        for g in (weak, strong)
    ]
    assert moved[0].keys() <= moved[1].keys()
    kept = [HistoryDrop(g).perturb(history, pool, rng(seed)) for g in (weak, strong)]
    assert is_subsequence(kept[1], kept[0])
    longer = [HistoryInject(g).perturb(history, pool, rng(seed)) for g in (weak, strong)]
    assert is_subsequence(longer[0], longer[1])


@given(seed=seeds)
def test_grades_of_title_noise_are_nested(seed: int) -> None:
    title = "éèêëáàâäíìîïóòôöúùûü"  # letters without neighbours on the keyboard: dropped or doubled
    shown = [TitleNoise(grade).perturb(title, rng(seed)) for grade in GRADES]
    edits = [{(letter, text.count(letter)) for letter in title if text.count(letter) != 1} for text in shown]
    for weak, strong in pairwise(edits):
        assert weak <= strong
    assert [len(edit) for edit in edits] == [1, 2, 4, 6, 12, 20]


@pytest.mark.parametrize("make", [Typos, Synonyms])
def test_grades_are_nested_for_every_user_and_role(toy: Requests, make: Callable[[float], WordingPerturbation]) -> None:
    weak, strong = (make(severity).apply(toy, 1).templates for severity in (0.3, 0.6))
    for role, row in toy.templates.items():
        for before, some, more in zip(row, weak[role], strong[role], strict=True):
            touched = changed(words(before), words(some))
            assert touched.items() <= changed(words(before), words(more)).items()


def test_perturbations_of_ones_own_say_what_they_do_not_define(toy: Requests) -> None:
    for base in (WordingPerturbation, HistoryPerturbation, TitlePerturbation):
        with pytest.raises(NotImplementedError, match="Own"):
            type("Own", (base,), {"family": "own"})().apply(toy, 1)


@pytest.mark.parametrize("make", GRADED)
def test_every_family_draws_for_itself(toy: Requests, make: Callable[[float], Perturbation]) -> None:
    other = type("Other", (make,), {"family": "other"})  # type: ignore[arg-type]
    assert not same(make(0.6).apply(toy, 1), other(0.6).apply(toy, 1))


def test_terse_leaves_out_every_article_and_possessive() -> None:
    text = "The an a these their our my your this {history}: just very kindly please {target}?"
    assert source(Register("terse"), text, 0) == "{history}: {target}?"
