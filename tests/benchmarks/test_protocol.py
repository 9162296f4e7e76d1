"""From a data set to requests: the same for everybody, and seeded."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import suite
from benchmarks.cells import Cell
from benchmarks.contract import score
from benchmarks.perturbations.base import PerturbationError
from benchmarks.plan import make_plan, with_llm
from benchmarks.protocol import Protocol, prepare
from benchmarks.store import CellId
from benchmarks.suite import SuiteError
from data.prompts.library import templates
from data.prompts.template import ListStyle, parse
from data.sources.build import DataError
from data.split import SplitError
from methods.base import Compute, MethodInfo
from methods.registry import MethodError, create, names

X = 'name = "x"\nmethods = ["random"]\n'


@pytest.fixture(scope="module")
def wording():
    return {"recommend": templates("recommend")}


def made(atomic, wording, **options):
    return prepare(str(atomic), Protocol(**{"negatives": 5, **options}), wording)


def test_sample_of_users_has_the_candidates_and_templates_it_has_among_all(atomic, wording):
    everybody, some = made(atomic, wording), made(atomic, wording, users=7)
    rows = np.flatnonzero(np.isin(everybody.test.users, some.test.users))
    assert len(rows) == 7
    assert np.array_equal(everybody.test.items[rows], some.test.items)
    own = everybody.test_requests().select(rows).templates["recommend"]
    assert own == some.test_requests().templates["recommend"]


def test_judged_users_depend_on_the_seed(atomic, wording):
    first, second = made(atomic, wording, users=7), made(atomic, wording, users=7, seed=1)
    assert first.test.users.tolist() != second.test.users.tolist()


def test_judged_users_come_first_among_those_methods_tune_on(atomic, wording):
    for users, valid_users in ((6, 9), (9, 6), (6, 6)):
        problem = made(atomic, wording, users=users, valid_users=valid_users)
        both = np.intersect1d(problem.test.users, problem.valid.users)
        assert len(problem.valid) == valid_users and len(both) == min(users, valid_users)
        assert (np.diff(problem.valid.users) > 0).all()


def test_with_full_ranking_validation_lists_hold_nothing_else_of_the_user(atomic, wording):
    problem = made(atomic, wording, negatives="full")
    task = problem.task(Compute())
    assert problem.test.mask is not None and problem.valid.mask is None
    longest = problem.dataset.histories.lengths.max()
    assert task.valid.candidates.shape[1] == task.catalogue.n_items - longest + 1
    for user, items in zip(task.valid.users.tolist(), task.valid.candidates, strict=True):
        assert np.isin(items, problem.dataset.histories[user]).sum() == 1
        assert problem.split.test[user] not in items


def test_a_split_that_leaves_nobody_to_judge_is_refused(tmp_path):
    from tests.conftest import write_atomic

    file = write_atomic(tmp_path / "tiny", users=60, length=12) / "tiny.inter"
    header, *lines = file.read_text().splitlines()
    file.write_text("\n".join([header, *(line.rpartition("\t")[0] + "\t5" for line in lines)]))
    with pytest.raises(SplitError, match="tiny: the temporal split leaves no test users"):
        made(file.parent, {}, split="temporal")


def test_requests_show_the_latest_items_and_seen_templates_only(atomic, wording):
    problem = made(atomic, wording, history_length=3)
    requests = problem.test_requests()
    for row, user in enumerate(requests.users.tolist()):
        assert requests.histories[row].tolist() == problem.split.test_histories[user][-3:].tolist()
    assert {template.family for template in requests.templates["recommend"]} == {"seen"}
    assert len({template.id for template in requests.templates["recommend"]}) > 3


def test_task_holds_no_unseen_template_and_no_test_candidates(atomic, wording):
    problem = made(atomic, wording)
    task = problem.task(Compute())
    assert {template.family for template in task.templates["recommend"]} == {"seen"}
    assert np.array_equal(task.valid.candidates, problem.valid.items)


@pytest.mark.parametrize(("scores", "found"), [(None, "nothing"), (np.zeros(3), r"shape \(3,\)")])
def test_scores_of_another_shape_are_an_error_that_names_both(atomic, wording, scores, found):
    method = SimpleNamespace(info=MethodInfo("odd", "none"), score=lambda requests: scores)
    with pytest.raises(ValueError, match=rf"odd: score returns one number per candidate, shape \(30, 6\), not {found}"):
        score(method, made(atomic, wording).test_requests())


@pytest.mark.parametrize("change", [{"seed": 1}, {"negatives": 6}, {"history_length": 4}, {"users": 9}])
def test_fingerprint_changes_with_the_protocol(atomic, wording, change):
    assert made(atomic, wording).fingerprints["data"] != made(atomic, wording, **change).fingerprints["data"]
    assert made(atomic, wording).fingerprints == made(atomic, wording).fingerprints


def test_texts_of_items_are_in_the_fingerprints(atomic, wording):
    problem = made(atomic, wording)
    titles = ("Another title", *problem.dataset.catalogue.titles[1:])
    other = replace(
        problem, dataset=replace(problem.dataset, catalogue=replace(problem.dataset.catalogue, titles=titles))
    )
    assert other.fingerprints["data"] != problem.fingerprints["data"] and other.learnable != problem.learnable


@pytest.mark.parametrize(
    "change",
    [{"parts": parse("Now {history}: {target}?")}, {"labels": ("Sure", "Never")}, {"family": "unseen"}],
    ids=["wording", "labels", "family"],
)
def test_all_of_a_template_is_in_the_fingerprint_whatever_its_name(atomic, wording, change):
    first, *others = wording["recommend"]
    changed = {"recommend": (replace(first, **change), *others)}
    assert made(atomic, changed).fingerprints["recommend"] != made(atomic, wording).fingerprints["recommend"]


def test_templates_of_a_role_change_that_role_s_fingerprint_alone(atomic, wording):
    fewer = {"recommend": wording["recommend"][1:]}
    one, other = made(atomic, wording).fingerprints, made(atomic, fewer).fingerprints
    assert one["data"] == other["data"] and one["recommend"] != other["recommend"]
    restyled = {"recommend": (replace(wording["recommend"][0], style=ListStyle("; ")), *wording["recommend"][1:])}
    assert made(atomic, restyled).fingerprints["recommend"] != one["recommend"]
    two = {**wording, "augment": templates("augment")}
    assert made(atomic, two).for_roles(["recommend"]).fingerprints == one


def test_recorded_answers_are_in_the_fingerprints_of_the_methods_that_read_them(atomic, wording, tmp_path):
    def cell(method, **settings):
        return Cell(CellId("tiny", method, 0), settings, problem, (), Compute(cache=tmp_path), tmp_path)

    problem, file = made(atomic, wording), tmp_path / "recorded" / "tiny.jsonl"
    before = cell("llmrec/eng")
    assert before.fingerprints == cell("popularity").fingerprints == problem.fingerprints
    file.parent.mkdir()
    keys = {before.key}
    for answers in ("{}", "{}{}"):
        file.write_text(answers)
        keys.add(cell("llmrec/eng").key)
        assert cell("llmrec/eng").fingerprints.keys() - problem.fingerprints.keys() == {"recorded"}
        assert cell("llmrec/eng").fingerprints == cell("llmrec/all", llm=f"recorded:{file}").fingerprints
        assert cell("popularity").fingerprints == cell("llmrec/eng", llm="local:m").fingerprints == problem.fingerprints
    assert len(keys) == 3


def test_where_and_for_how_much_an_llm_was_asked_is_not_in_the_key(atomic, wording, tmp_path):
    def cell(**settings):
        settings = {"llm": "local:m", **settings}
        return Cell(CellId("tiny", "llmrec/eng", 0), settings, problem, (), Compute(), tmp_path)

    problem = made(atomic, wording)
    first = cell(llm_budget="requests=1", llm_run="a")
    assert cell(llm_budget="requests=9", llm_run="b").key == cell().key == first.key
    assert cell(llm="local:other").key != first.key


def test_prompt_keeps_the_target_open_for_every_candidate(atomic, wording):
    requests = made(atomic, wording).test_requests()
    prompt = requests.prompt("recommend", 0)
    assert "Thing Number 3 & Co" in prompt.with_value("target", "Thing Number 3 & Co").text
    assert all(
        requests.catalogue.titles[item] in prompt.with_value("target", "").text for item in requests.histories[0]
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("methods = [", "not a TOML file"),
        (f"{X}seed = 3", "unknown key seed: did you mean 'seeds'?"),
        (f"{X}[protocol]\nnegative = 3", "unknown key protocol.negative: did you mean"),
        (f"{X}[statistics]\ndraws = 3", "statistics.draws: Input should be greater"),
        (f"{X}[conditions]\ntypos = [true]", "typos: a grade is a share between 0 and 1, not True"),
        (f"{X}[conditions]\ndemonstration-count = [true]", "demonstration-count: a number is 0, 1, 2, ..., not True"),
        (f"{X}[conditions]\ntypos = []", "typos: the list is empty"),
        (f"{X}[conditions]\ntypos = [[1]]", "typos: Input should be true or false or a number or a text, not [1]"),
        (f"{X}seeds = [true]", "seeds: Input should be a whole number, not True"),
        (f"{X}limit = '3'", "limit: Input should be a whole number, not '3'"),
        (f"{X}[protocol]\nnegatives = true", "protocol.negatives: Input should be a whole number or 'full', not True"),
        (f"{X}[protocol]\nmin_rating = nan", "protocol.min_rating: Input should be a finite number, not nan"),
        (f"{X}[protocol]\nmin_rating = true", "protocol.min_rating: Input should be a number, not True"),
        (f"{X}[statistics]\nlevel = '0.9'", "statistics.level: Input should be a number, not '0.9'"),
        (f"{X}[settings]\nepochs = 3", "settings.epochs: Input should be a table, not 3"),
        (f"{X}[protocol]\nusers = 0", "protocol.users: Input should be greater"),
        (f"{X}[protocol]\nnegatives = 0", "Input should be greater than or equal to 1"),
        (f"{X}[protocol]\nnegatives = 0", "greater than or equal to 1 or 'full', not 0"),
        (f"{X}[conditions]\ntypos = 0.1", "x.toml: conditions.typos: Input should be a list or true or false, not 0.1"),
        (f"{X}[conditions]\ntypos = [1.5]", "x.toml: conditions: typos: severity is a share between 0 and 1, not 1.5"),
        (f"{X}[conditions]\ntypo = true", "x.toml: conditions: no condition family 'typo': did you mean 'typos'?"),
        ('name = ""\nmethods = ["random"]', "name: a name is needed that can be a folder's, not ''"),
        ('name = "../up"\nmethods = ["random"]', "name: a name is needed that can be a folder's, not '../up'"),
        ('name = "x"', "methods: Field required"),
        ('name = "x"\nmethods = []', "methods: at least one is needed, not []"),
        (f"{X}seeds = []", "seeds: at least one is needed, not []"),
        (f"{X}datasets = []", "datasets: at least one is needed, not []"),
        (f"{X}[settings.bpr]\nepoch = 3", "method 'bpr' has no setting 'epoch'"),
        (f"{X}[settings.tallrec]\nrate = inf", "settings.tallrec.rate: a finite number is needed, not inf"),
        (f'{X}[settings."gan*"]\nepoch = 3', "did you mean 'epochs'?"),
        (f'{X}[statistics]\nagainst = "sasrex"', "statistics.against: no method 'sasrex'"),
        (f'{X}[statistics]\nagainst = "p*"', "against names one method, not the pattern"),
    ],
)
def test_unusable_suite_file_is_an_error_that_names_the_key(tmp_path, content, sentence):
    (tmp_path / "x.toml").write_text(content)
    with pytest.raises((SuiteError, MethodError)) as error:
        suite.load(str(tmp_path / "x.toml"))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "given", "sentence"),
    [
        ("[settings]\nsasrec = 3", {"settings": {"sasrec": {"epochs": 2}}}, "settings.sasrec: Input should be a table"),
        ("settings = 3", {"settings": {"sasrec": {"epochs": 2}}}, "settings: Input should be a table, not 3"),
        ("protocol = 3", {"protocol": {"users": 2}}, "protocol: Input should be"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_of_the_file_whatever_the_command_line_adds(tmp_path, content, given, sentence):
    (tmp_path / "x.toml").write_text(X + content)
    with pytest.raises(SuiteError) as error:
        suite.load(str(tmp_path / "x.toml"), given)
    assert str(error.value).startswith(f"{tmp_path / 'x.toml'}: {sentence}")


def test_an_llm_is_named_to_the_methods_that_ask_one_in_the_settings_that_they_have():
    methods = ["random", "tests.fakes:Listener", "llm-rank"]
    found = with_llm(suite.load("smoke", {"methods": methods}), "local:m", "requests=1", "run").settings
    assert found["tests.fakes:Listener"] == {"llm": "local:m", "llm_run": "run"}
    assert found["llm-rank"] == {"llm": "local:m", "llm_run": "run", "llm_budget": "requests=1"}
    assert "random" not in found


def test_what_the_command_line_says_of_an_llm_wins_over_the_suite_file(tmp_path):
    file = tmp_path / "mine.toml"
    own = 'llm = "endpoint:small"\nllm_budget = "requests=9"\n'
    file.write_text(f'name = "mine"\nmethods = ["llm-rank"]\n[settings.llm-rank]\n{own}')
    asked = suite.load(str(file), {})
    of_file = {"llm": "endpoint:small", "llm_budget": "requests=9", "llm_run": "run"}
    assert with_llm(asked, None, None, "run").settings["llm-rank"] == of_file  # its budget holds for the run, too
    found = with_llm(asked, "endpoint:large", "requests=1", "run", {"llm-*": {"llm_budget"}}).settings["llm-rank"]
    assert found == of_file | {"llm": "endpoint:large"}


@pytest.mark.parametrize("asked", [True, False])
def test_history_inject_is_said_to_be_left_out_where_it_was_asked_for(suite_file, tmp_path, asked):
    chosen = {"protocol": {"negatives": "full"}, "conditions": {"history-inject": asked}}
    made = make_plan(suite.load(str(suite_file), chosen), Compute(), tmp_path)
    notes = made.facts(made.problems["tiny"])["notes"]
    assert any("history-inject left out" in note for note in notes) == asked
    assert not any(condition.name.startswith("history-inject") for condition in made.conditions)


def test_a_byte_order_mark_before_a_suite_is_none_of_it(tmp_path):
    (tmp_path / "x.toml").write_text('name = "x"\nmethods = ["random"]\n', encoding="utf-8-sig")
    assert suite.load(str(tmp_path / "x.toml")).name == "x"


def test_whole_numbers_stand_for_shares_and_ratings(tmp_path):
    (tmp_path / "x.toml").write_text(
        'name = "x"\nmethods = ["random"]\nprotocol.min_rating = 1\nconditions.typos = [1]'
    )
    found = suite.load(str(tmp_path / "x.toml"))
    assert found.protocol == Protocol(min_rating=1.0) and isinstance(found.protocol.min_rating, float)
    assert found.families == {"typos": (1.0,)}


def test_suite_file_that_is_not_there_is_called_a_file(tmp_path):
    with pytest.raises(SuiteError, match=r"no file '.*smoke\.toml'"):
        suite.load(str(tmp_path / "smoke.toml"))


def test_a_folder_is_no_suite_file(tmp_path):
    (tmp_path / "x.toml").mkdir()
    with pytest.raises(SuiteError, match=r"x\.toml: cannot be read: Is a directory"):
        suite.load(str(tmp_path / "x.toml"))


def test_a_value_of_the_command_line_is_not_blamed_on_the_file():
    with pytest.raises(SuiteError) as error:
        suite.load("smoke", {"seeds": [0, 0], "protocol": {"negatives": 0}})
    assert str(error.value) == (
        "--seeds: each is needed once, and 0 is there twice, not [0, 0]\n"
        "--negatives: Input should be greater than or equal to 1 or 'full', not 0"
    )


def test_command_line_wins_over_the_suite_file_key_by_key():
    plain = suite.load("smoke")
    changed = suite.load("smoke", {"protocol": {"negatives": 7}, "methods": ["random"]})
    assert changed.protocol.negatives == 7
    assert changed.protocol.users == plain.protocol.users
    assert changed.methods == ("random",)


def test_too_few_items_to_inject_are_refused_before_anything_is_fitted(suite_file, tmp_path):
    def planned(negatives, grades):
        overrides = {"protocol": {"negatives": negatives}, "conditions": {"history-inject": grades}}
        return make_plan(suite.load(str(suite_file), overrides), Compute(), tmp_path)

    with pytest.raises(PerturbationError, match=r"^tiny: history-inject: 10 items to insert, but only 1 .* fewer neg"):
        planned(48, [0.1, 1.0])
    assert planned(20, [1.0]) and planned(48, [0.1]) and planned("full", [1.0])


def test_settings_of_patterns_reach_every_row_but_for_what_it_is_about(tmp_path, suite_file):
    overrides = {
        "methods": ["llmrec/eng", "llmrec/all", "random"],
        "settings": {"llmrec/eng": {"negatives": 2}, "llmrec/*": {"negatives": 3, "epochs": 7}},
    }
    chosen = with_llm(suite.load(str(suite_file), overrides), "recorded:x", None, "run")
    found = {cell.id.method: cell.settings for cell in make_plan(chosen, Compute(), tmp_path).cells}
    asked = {"llm": "recorded:x", "llm_run": "run", "epochs": 7}
    expected = {"llmrec/eng": {**asked, "negatives": 2}, "llmrec/all": {**asked, "negatives": 3}, "random": {}}
    assert found == expected


def test_settings_of_a_pattern_reach_the_rows_that_have_them():
    found = suite.load("smoke", {"settings": {"*": {"epochs": 3}}}).settings
    assert found["sasrec"] == {"epochs": 3} and "epochs" not in found.get("random", {})


def test_settings_of_patterns_leave_out_what_a_subclass_does_not_take():
    given = {"paprec*": {"budget": 20, "top": 3, "personal": True}, "llmrec*": {"epochs": 7}}
    found = suite.load("smoke", {"settings": given}).settings
    assert found["paprec"].items() >= given["paprec*"].items()
    assert found["paprec/random"] == {"top": 3, "personal": True} and found["paprec/shared"] == {"budget": 20, "top": 3}
    assert all(create(name, found[name]) for name in names(list(given)))
    with pytest.raises(MethodError, match="'paprec/manual' has no setting 'watch'"):
        create("paprec/manual", suite.load("smoke", {"settings": {"paprec/*": {"watch": 1}}}).settings["paprec/manual"])


@pytest.mark.parametrize(("pattern", "setting"), [("llmrec*", "strategy"), ("ganprompt*", "row"), ("lrgd", "row")])
def test_a_setting_that_no_row_of_a_pattern_takes_is_refused(pattern, setting):
    with pytest.raises(MethodError, match=f"{setting} makes the row what it is and cannot be set"):
        suite.load("smoke", {"settings": {pattern: {setting: "eng"}}})


def test_patterns_of_the_command_line_win_over_names_in_the_file():
    found = suite.load("smoke", {"settings": {"sas*": {"epochs": 9}}}).settings
    assert suite.load("smoke").settings["sasrec"]["epochs"] == 2 and found["sasrec"]["epochs"] == 9
    with pytest.raises(MethodError, match=r"no method 'ganpromt/.*did you mean 'ganprompt'"):
        suite.load("smoke", {"settings": {"ganpromt/*": {"epochs": 9}}})


def test_every_suite_names_registered_methods_only():
    for name in suite.available():
        assert names(suite.load(name).methods)


def test_patterns_select_methods_and_unknown_settings_are_refused():
    assert names(["rand*", "random"]) == ("random",)
    with pytest.raises(MethodError, match="no method 'sasrex'"):
        names(["sasrex"])
    with pytest.raises(MethodError, match="has no setting 'x'"):
        create("random", {"x": 1})


def test_prompts_a_method_learns_from_are_in_its_task_and_its_key_and_in_no_condition(suite_file, tmp_path):
    overrides = {"methods": ["p5", "tallrec"], "conditions": {"unseen": True}}
    chosen = suite.load(str(suite_file), overrides)
    p5, tallrec = sorted(make_plan(chosen, Compute(), tmp_path).cells, key=lambda cell: cell.id.method)
    assert p5.fingerprints.keys() == {"data", "recommend", "sequential", "choose"}
    assert tallrec.fingerprints.keys() == {"data", "recommend"}
    task = p5.problem.task(Compute())
    assert {template.family for template in task.templates["choose"]} == {"seen"}
    assert [condition.describe()["name"] for condition in p5.conditions] == [
        condition.describe()["name"] for condition in tallrec.conditions
    ]


def test_a_validation_request_shows_what_was_before_its_item_alone(atomic, wording):
    problem = made(atomic, wording, history_length=4)
    valid = problem.task(Compute()).valid
    for user, history in zip(valid.users.tolist(), valid.histories, strict=True):
        assert history.tolist() == problem.split.train[user][-4:].tolist()


def test_another_seed_draws_other_candidates_and_templates_of_both_parts(atomic, wording):
    first, second = made(atomic, wording), made(atomic, wording, seed=1)
    assert first.test_requests().templates != second.test_requests().templates
    assert not np.array_equal(first.test.items, second.test.items)
    assert not np.array_equal(first.valid.items, second.valid.items)
    assert first.test.positive.tolist() != first.valid.positive.tolist()


def test_templates_are_drawn_for_every_role(atomic, wording):
    requests = made(atomic, {**wording, "choose": wording["recommend"]}).test_requests()
    assert requests.templates["recommend"] != requests.templates["choose"]


def test_ratings_and_counts_of_positives_are_those_of_the_protocol(atomic):
    header, *lines = (atomic / "tiny.inter").read_text().splitlines()
    (atomic / "tiny.inter").write_text("\n".join([f"{header}\trating:float", *(f"{line}\t3" for line in lines)]))
    assert made(atomic, {}, min_rating=3.0).dataset.catalogue.n_users == 30
    with pytest.raises(DataError, match="no interaction is left"):
        made(atomic, {}, min_rating=3.0, min_count=13)


def test_history_length_is_told_to_methods_and_part_of_what_they_learn_from(atomic, wording):
    short, long = made(atomic, wording, history_length=3), made(atomic, wording)
    assert short.task(Compute()).history_length == 3
    assert short.learnable != long.learnable


def test_with_full_ranking_validation_lists_are_as_long_as_every_user_allows(tmp_path):
    from tests.conftest import write_atomic

    problem = made(write_atomic(tmp_path / "tiny", items=300), {}, negatives="full", min_count=1)
    items, longest = problem.dataset.catalogue.n_items, problem.dataset.histories.lengths.max()
    assert problem.valid.items.shape[1] == items - longest + 1 > 100
