import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from string import ascii_letters

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
from benchmarks.perturbations.distractor import SENTENCES, Distractor
from benchmarks.perturbations.format import STYLES, Format
from benchmarks.perturbations.history import HistoryDrop, HistoryInject, HistoryShuffle
from benchmarks.perturbations.identity import Identity
from benchmarks.perturbations.keyboard import NEIGHBOURS
from benchmarks.perturbations.register import GREETING, ROLE, THANKS, Register
from benchmarks.perturbations.synonyms import Synonyms, lexicon
from benchmarks.perturbations.title_noise import TitleNoise
from benchmarks.perturbations.typos import Typos, misspell
from benchmarks.perturbations.unseen import Unseen
from benchmarks.perturbations.wording import WORD, put_before, put_before_cue
from data.dataset import Domain
from data.histories import Histories
from data.prompts.library import templates
from data.prompts.template import Template, Wording, parse
from data.types import IntArray
from methods.base import Requests

GRADES = (0.05, 0.1, 0.2, 0.3, 0.6, 1.0)
GRADED: tuple[Callable[[float], Perturbation], ...] = (
    Typos,
    Synonyms,
    HistoryShuffle,
    HistoryDrop,
    HistoryInject,
    TitleNoise,
)
HISTORY: tuple[Callable[[float], HistoryPerturbation], ...] = (HistoryShuffle, HistoryDrop, HistoryInject)
SEEN = [template for template in templates("recommend") if template.family == "seen"]
UNSEEN = Template("u", "recommend", "unseen", parse("Judging by {history}, why not {target}?"))
MOVIES = Domain("movie", "movies", "watch", "watched", "watching", "viewer")
VALUES = {"history": ["Alien", "Dead Man Walking"], "target": "Quiz Show"}
NO_ITEMS = np.empty(0, np.int64)

wordings: st.SearchStrategy[WordingPerturbation] = st.one_of(
    st.builds(Typos, st.sampled_from(GRADES)),
    st.builds(Synonyms, st.sampled_from(GRADES)),
    st.builds(Format, st.sampled_from(["list", "case", "spacing"])),
    st.builds(Distractor, st.sampled_from(["before", "after"])),
    st.builds(Register, st.sampled_from(["polite", "terse", "role-play"])),
)
seeds = st.integers(0, 2**32)
grades = st.floats(0, 1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def source(perturbation: WordingPerturbation, text: str, seed: int) -> str:
    template = Template("t", "recommend", "seen", parse(text))
    return perturbation.perturb_template(template, rng(seed)).source


def words(template: Template) -> list[str]:
    return [word for part in template.parts if isinstance(part, Wording) for word in WORD.findall(part.text)]


def changed(before: Iterable[str], after: Iterable[str]) -> dict[int, str]:
    return {n: b for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}


def is_subsequence(short: IntArray, long: IntArray) -> bool:
    rest = iter(long.tolist())
    return all(item in rest for item in short.tolist())


def same(a: Requests, b: Requests) -> bool:
    return (
        a.templates == b.templates
        and a.catalogue == b.catalogue
        and [row.tolist() for row in a.histories] == [row.tolist() for row in b.histories]
        and a.users.tolist() == b.users.tolist()
        and a.candidates.tolist() == b.candidates.tolist()
    )


# literal text


BEES = "Bees can see colours that humans cannot."
ASK = "After {history}, will this {consumer} choose {target} next? Answer:"


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


# wording


@given(word=st.text(ascii_letters, min_size=3, max_size=12), seed=seeds)
def test_a_misspelt_word_is_one_edit_away(word: str, seed: int) -> None:
    wrong = misspell(word, rng(seed))
    drops = {word[:n] + word[n + 1 :] for n in range(len(word))}
    doubles = {word[:n] + word[n] + word[n:] for n in range(len(word))}
    swaps = {word[:n] + word[n + 1] + word[n] + word[n + 2 :] for n in range(len(word) - 1)}
    keys = {word[:n] + k + word[n + 1 :] for n, c in enumerate(word.lower()) for k in NEIGHBOURS[c]}
    assert wrong != word
    assert wrong in drops | doubles | swaps or wrong.lower() in {key.lower() for key in keys}


def test_keys_are_neighbours_of_one_another() -> None:
    assert all(key in NEIGHBOURS[other] for key, others in NEIGHBOURS.items() for other in others)


def test_words_of_one_or_two_letters_are_never_misspelt() -> None:
    text = "I go to an {item}, so is it {target} or {history}?"
    assert all(source(Typos(1.0), text, seed) == text for seed in range(20))


def test_a_format_that_changes_nothing_is_not_drawn() -> None:
    text = "all {item} in lower case without stops"
    assert {source(Format("case"), text, seed) for seed in range(20)} == {
        "ALL {item} IN LOWER CASE WITHOUT STOPS",
        "All {item} In Lower Case Without Stops",
    }
    assert {source(Format("spacing"), text, seed) for seed in range(20)} == {text.replace(" ", "  ")}
    assert source(Format("spacing"), "{history}", 0) == "{history}"


def test_a_list_never_keeps_its_style() -> None:
    for own in STYLES:
        template = Template("t", "recommend", "seen", parse("{history}"), style=own)
        styles = {Format("list").perturb_template(template, rng(seed)).style for seed in range(50)}
        assert styles == set(STYLES) - {own}


def test_the_share_of_misspelt_words_is_counted_over_the_whole_template() -> None:
    text = "One {item} two {item} three {item} four {item} five"
    counts = {len(changed(text.split(), source(Typos(0.4), text, seed).split())) for seed in range(50)}
    assert counts == {2}


def test_synonyms_keep_capitals() -> None:
    assert source(Synonyms(1.0), "Title TITLE title", 0) == "Name NAME name"


def test_words_without_an_entry_keep_their_place_when_all_others_are_replaced() -> None:
    assert source(Synonyms(0.9), "The title of the zebra and the gnu", 0) == "The name of the zebra and the gnu"


def test_the_lexicon_replaces_a_word_by_other_single_words() -> None:
    for word, synonyms in lexicon().items():
        assert synonyms, word
        for synonym in (word, *synonyms):
            assert WORD.fullmatch(synonym), synonym
            assert synonym == synonym.lower()
        assert word not in synonyms
    assert len(lexicon()) >= 150


def test_the_lexicon_leaves_labels_alone() -> None:
    assert not {"yes", "no", "not"} & (lexicon().keys() | {s for entry in lexicon().values() for s in entry})


@pytest.mark.parametrize("template", SEEN, ids=lambda template: template.id)
def test_the_articles_stay_right_when_all_words_are_replaced(template: Template) -> None:
    for seed in range(10):
        text = Synonyms(1.0).perturb_template(template, rng(seed)).source
        assert not re.search(r"\b(a [aeio]|an [^aeio])", text, re.IGNORECASE), text


def test_the_distractor_is_the_same_before_and_after() -> None:
    for seed in range(5):
        (sentence,) = (s for s in SENTENCES if s in source(Distractor("before"), ASK, seed))
        assert sentence in source(Distractor("after"), ASK, seed)


def test_every_distractor_is_drawn() -> None:
    assert len({source(Distractor("before"), ASK, seed) for seed in range(200)}) == len(SENTENCES) == 12


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("After {history}, {target}?", "After {history}, {target}? X."),
        ("After {history}. {target}? Answer:", "After {history}. {target}? X. Answer:"),
        (
            "After {history}. {target}? {positive} or {negative}:",
            "After {history}. {target}? X. {positive} or {negative}:",
        ),
        ("After {history}\nNext {target}\nAnswer:", "After {history}\nNext {target}\nX.\nAnswer:"),
        ("After {history},\nis it {target}?", "After {history},\nis it {target}?\nX."),
        ("After {history} comes {target}, which is", "X. After {history} comes {target}, which is"),
    ],
)
def test_a_sentence_goes_before_the_answer_cue(text: str, expected: str) -> None:
    assert put_before_cue(Template("t", "recommend", "seen", parse(text)), "X.").source == expected


@pytest.mark.parametrize("template", SEEN, ids=lambda template: template.id)
def test_the_answer_cue_of_every_template_survives_the_distractor(template: Template) -> None:
    before, after = (Distractor(place).perturb_template(template, rng(1)).source for place in ("before", "after"))
    assert before.endswith(template.source)
    if template.source.endswith("?"):
        assert after.startswith(template.source)
    else:
        assert after.split()[-1] == template.source.split()[-1]


def test_a_sentence_in_front_takes_a_line_where_there_are_lines() -> None:
    lines = Template("t", "recommend", "seen", parse("After {history}\nAnswer:"))
    assert put_before(lines, "X.").source == "X.\nAfter {history}\nAnswer:"


def test_a_telegram_keeps_what_is_not_filler() -> None:
    text = "Please tell me a title: the {item} or option A? An answer is the best, my friend, very kindly."
    assert source(Register("terse"), text, 0) == "tell me title: {item} or option A? An answer is best, friend, kindly."


def test_the_registers_add_no_label_word() -> None:
    assert not re.search(r"\b(yes|no)\b", " ".join([GREETING, THANKS, ROLE, *SENTENCES]), re.IGNORECASE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Format("font"), "format is one of list, case, spacing, not 'font'"),  # type: ignore[arg-type]
        (lambda: Distractor("middle"), "before or after, not 'middle'"),  # type: ignore[arg-type]
        (lambda: Register("rude"), "polite, terse, role-play, not 'rude'"),  # type: ignore[arg-type]
    ],
)
def test_an_unknown_variant_is_refused(make: Callable[[], Perturbation], message: str) -> None:
    with pytest.raises(PerturbationError, match=message):
        make()


# unseen templates


def test_unseen_shows_everybody_the_same_template_and_leaves_other_roles(toy: Requests) -> None:
    after = Unseen((UNSEEN,)).apply(toy, 1)
    assert after.templates == {"recommend": (UNSEEN,) * 3, "attribute": toy.templates["attribute"]}
    assert same(after, replace(toy, templates=after.templates))


def test_unseen_adds_no_role(toy: Requests) -> None:
    bare = replace(toy, templates={})
    assert Unseen((UNSEEN,)).apply(bare, 1).templates == {}


def test_unseen_refuses_a_seen_template_and_two_of_one_role() -> None:
    with pytest.raises(PerturbationError, match="template 'u' is a seen one"):
        Unseen((replace(UNSEEN, family="seen"),))
    with pytest.raises(PerturbationError, match="one unseen template per role"):
        Unseen((UNSEEN, replace(UNSEEN, id="v")))


# histories


@given(make=st.sampled_from(HISTORY), severity=grades, seed=seeds)
def test_histories_never_contain_a_candidate_or_an_item_twice(
    toy: Requests, make: Callable[[float], HistoryPerturbation], severity: float, seed: int
) -> None:
    after = make(severity).apply(toy, seed)
    for history, candidates in zip(after.histories, after.candidates, strict=True):
        assert not set(history.tolist()) & set(candidates.tolist())
        assert len(set(history.tolist())) == len(history)


@given(severity=grades, seed=seeds, n=st.integers(0, 10))
def test_shuffling_keeps_all_items(severity: float, seed: int, n: int) -> None:
    history = np.arange(n)
    assert np.sort(HistoryShuffle(severity).perturb(history, NO_ITEMS, rng(seed))).tolist() == history.tolist()
    assert history.tolist() == list(range(n)), "the request's own array is not written to"


@given(seed=seeds, n=st.integers(2, 10))
def test_a_full_shuffle_moves_every_item(seed: int, n: int) -> None:
    history = np.arange(n)
    assert (HistoryShuffle(1.0).perturb(history, NO_ITEMS, rng(seed)) != history).all()


def test_the_share_of_moved_items_is_the_severity_even_for_short_histories() -> None:
    history = np.arange(5)
    shuffled = [HistoryShuffle(0.1).perturb(history, NO_ITEMS, rng(seed)) for seed in range(2000)]
    assert np.mean([(row != history).mean() for row in shuffled]) == pytest.approx(0.1, abs=0.02)


@given(severity=grades, seed=seeds, n=st.integers(1, 10))
def test_dropping_keeps_the_order_and_at_least_one_item(severity: float, seed: int, n: int) -> None:
    kept = HistoryDrop(severity).perturb(np.arange(n), NO_ITEMS, rng(seed))
    assert is_subsequence(kept, np.arange(n))
    assert len(kept) >= 1
    assert severity < 1 or len(kept) == 1


@given(severity=grades, seed=seeds, n=st.integers(0, 10))
def test_injecting_keeps_the_history_and_takes_from_the_pool(severity: float, seed: int, n: int) -> None:
    history, pool = np.arange(n), np.arange(20, 40)
    longer = HistoryInject(severity).perturb(history, pool, rng(seed))
    assert is_subsequence(history, longer)
    assert set(longer.tolist()) - set(history.tolist()) <= set(pool.tolist())
    assert abs(len(longer) - n - severity * n) < 1


def test_injecting_reaches_every_place() -> None:
    rows = [HistoryInject(1.0).perturb(np.arange(1), np.arange(20, 40), rng(seed)) for seed in range(50)]
    assert {int(np.flatnonzero(row >= 20)[0]) for row in rows} == {0, 1}


def test_injecting_without_enough_items_is_an_error_that_says_why(toy: Requests) -> None:
    everything = np.broadcast_to(np.arange(toy.catalogue.n_items), (3, toy.catalogue.n_items))
    with pytest.raises(PerturbationError, match=r"6 items to insert, but only 0 .* use fewer negatives"):
        HistoryInject(1.0).apply(replace(toy, candidates=everything), 1)


@pytest.mark.parametrize("make", HISTORY)
def test_an_empty_history_stays_empty(make: Callable[[float], HistoryPerturbation]) -> None:
    assert make(1.0).perturb(NO_ITEMS, np.arange(3), rng()).tolist() == []


# titles


def test_an_item_is_called_the_same_in_every_prompt(toy: Requests) -> None:
    twins = replace(toy, histories=Histories.of([np.arange(6)] * 3), candidates=np.full((3, 5), 20))
    after = TitleNoise(0.3).apply(twins, 1)
    shown = [after.prompt("attribute", row).text for row in range(3)]
    assert len(set(shown)) == 1
    assert shown[0] != toy.prompt("attribute", 0).text


def test_two_items_with_one_title_are_misspelt_differently(toy: Requests) -> None:
    titles = ("Dead Man Walking",) * toy.catalogue.n_items
    after = TitleNoise(0.3).apply(replace(toy, catalogue=replace(toy.catalogue, titles=titles)), 1)
    assert len(set(after.catalogue.titles)) > 20


@given(title=st.text(min_size=1, max_size=20), severity=grades, seed=seeds)
def test_a_noisy_title_is_never_empty(title: str, severity: float, seed: int) -> None:
    assert TitleNoise(severity).perturb(title, rng(seed))


def test_a_title_of_one_letter_never_becomes_empty() -> None:
    assert all(TitleNoise(1.0).perturb("M", rng(seed)) for seed in range(20))


def test_title_noise_leaves_blanks_and_punctuation() -> None:
    shown = TitleNoise(1.0).perturb("... !?", rng())
    assert shown == "... !?"
    assert re.sub(r"\w", "", TitleNoise(1.0).perturb("When Harry Met Sally...", rng())) == "   ..."


def test_perturbations_of_ones_own_say_what_they_do_not_define(toy: Requests) -> None:
    for base in (WordingPerturbation, HistoryPerturbation, TitlePerturbation):
        with pytest.raises(NotImplementedError, match="Own"):
            type("Own", (base,), {"family": "own"})().apply(toy, 1)
