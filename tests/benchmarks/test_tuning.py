"""The search for settings: what it tries, what it keeps, and who uses what it found."""

import csv
import json
import threading
import tomllib
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from filelock import FileLock

from benchmarks import cells, suite, tuned_settings, tuning
from benchmarks.plan import make_plan
from benchmarks.protocol import Problem, prepare
from benchmarks.report.ledger import ledger
from benchmarks.report.results import load
from benchmarks.store import RunFolder
from benchmarks.tuned_settings import Best, Tuned
from benchmarks.tuning import TuningError, propose
from methods import hooks
from methods.base import Compute, MethodInfo
from methods.registry import REGISTRY, create
from tests.conftest import ROOT
from tests.fakes import Tunable

TUNABLE = "tests.fakes:Tunable"


@pytest.fixture
def planned(suite_file, tmp_path):
    """Plan a run of the tunable method; keyword arguments are its settings."""

    def plan(tuned=(), overrides=None, **settings):
        chosen = {"methods": [TUNABLE], "settings": {TUNABLE: settings}, **(overrides or {})}
        return make_plan(suite.load(str(suite_file), chosen), Compute(), tmp_path / "run", tuned)

    return plan


def search(made, trials):
    (found,) = tuning.searches(made.cells, trials)
    return found


def quiet(fraction, stage):
    pass


def test_trials_are_measured_by_ndcg_at_10(planned, monkeypatch):
    monkeypatch.setattr(tuning.metrics, "rank_of_positive", lambda *_: np.array([7.0]))
    assert search(planned(), 1)._measure({"skill": 0.1}) == pytest.approx(1 / np.log2(9))


def test_trials_of_other_validation_lists_are_others(planned):
    search(planned(), 2).execute(quiet)
    for changed in ({"valid_users": 20}, {"history_length": 3}, {"negatives": 7}):
        assert search(planned(overrides={"protocol": changed}), 2).waiting() == 2


def test_trials_are_fitted_with_a_seed_that_is_no_run_s(planned, monkeypatch):
    seeds, fit = [], Tunable.fit
    monkeypatch.setattr(Tunable, "fit", lambda self, task, seed: seeds.append(seed) or fit(self, task, seed))
    found = search(planned(), 3)
    for skill in (0.1, 0.3):
        found._measure({"skill": skill})
    assert len(seeds) == 2 and len(set(seeds)) == 1 and seeds[0] > 1000


def test_first_trial_is_the_defaults_and_no_trial_is_made_twice(planned):
    found = search(planned(), trials=12)
    found.execute(quiet)
    stored = json.loads(found.path.read_text())["trials"]
    assert stored[0]["settings"] == {"skill": 0.1, "flaw": "none"}
    assert len({json.dumps(trial["settings"], sort_keys=True) for trial in stored}) == len(stored) == 12


def test_a_stopped_search_goes_on_as_if_it_had_not_been(planned, tmp_path):
    whole, parts = search(planned(), trials=6), search(planned(), trials=6)
    parts = replace(parts, cell=replace(parts.cell, run=tmp_path / "other"))
    whole.execute(quiet)
    for trials in (2, 3, 6):
        replace(parts, trials=trials).execute(quiet)
    first, second = ([(t.settings, t.value) for t in s.kept()] for s in (whole, parts))
    assert first == second
    assert len(first) == 6


def test_smaller_budget_counts_only_as_many_of_the_trials_that_are_there(planned, tmp_path):
    found = search(planned(flaw="none"), trials=4)
    found.execute(quiet)
    for trials in (4, 1):
        (path,) = tuned_settings.write([replace(found, trials=trials)], tmp_path / "tuned")
        best = Tuned.model_validate(tomllib.loads(path.read_text())).methods[TUNABLE]
        assert (best.trials, best.settings["skill"]) == (trials, 1.0 if trials == 4 else 0.1)


def test_trials_are_not_used_again_for_other_fixed_settings(planned):
    search(planned(), trials=2).execute(quiet)
    assert search(planned(), trials=2).waiting() == 0
    assert search(planned(seconds=0.001), trials=2).waiting() == 2


def test_trials_are_not_lost_to_a_search_with_other_settings(planned):
    found = search(planned(), trials=2)
    found.execute(quiet)
    tuning.refuse_to_replace([found])
    with pytest.raises(TuningError, match=f"{found.path.name}: has trials of {TUNABLE} with other settings"):
        tuning.refuse_to_replace([search(planned(seconds=0.001), trials=2)])
    assert len(found.kept()) == 2


def test_trials_are_not_used_again_when_the_file_of_ones_own_method_has_changed(planned, monkeypatch):
    search(planned(), trials=2).execute(quiet)
    monkeypatch.setattr(cells, "source", lambda *_: "edited")
    assert search(planned(), trials=2).waiting() == 2


@pytest.mark.parametrize("content", ["", "[]", '{"key": "KEY"}', '{"key": "KEY", "trials": [{"colour": "red"}]}'])
def test_file_that_holds_no_trials_is_named(planned, content):
    found = search(planned(), trials=2)
    found.path.parent.mkdir(parents=True)
    found.path.write_text(content.replace("KEY", found.key))
    with pytest.raises(TuningError, match=f"{found.path.name}: no file of trials"):
        found.kept()


def test_trials_of_another_version_are_made_anew(planned):
    found = search(planned(), trials=2)
    found.path.parent.mkdir(parents=True)
    found.path.write_text('{"key": "of an earlier version", "trials": [{"colour": "red"}]}')
    assert found.waiting() == 2


def test_what_the_suite_fixes_is_not_searched(planned):
    assert search(planned(flaw="none"), trials=9).space.keys() == {"skill"}
    assert search(planned(flaw="none"), trials=9).waiting() == 4  # all there is to choose from


def test_failing_trials_are_recorded_with_their_reason(planned, tmp_path):
    made = planned(skill=0.3)
    found = search(made, trials=3)
    outcome = found.execute(quiet)
    stored = {t["settings"]["flaw"]: t for t in json.loads(found.path.read_text())["trials"]}
    assert stored["none"]["value"] > 0
    assert stored["nan"]["value"] is None and "not finite" in stored["nan"]["reason"]
    assert (stored["missing"]["outcome"], stored["missing"]["reason"]) == ("not run", "no tool for this setting")
    assert outcome.status == "finished" and outcome.reason.startswith("2 of 3 trials: ")
    (path,) = tuned_settings.write([found], tmp_path / "tuned")
    assert tomllib.loads(path.read_text())["methods"][TUNABLE]["failed"] == 2
    assert found.waiting() == 0


def test_method_that_cannot_run_here_is_tried_again_the_next_time(planned):
    found = search(planned(flaw="missing"), trials=3)
    outcome = found.execute(quiet)
    assert (outcome.status, outcome.reason) == ("not run", "no tool for this setting")
    assert len(json.loads(found.path.read_text())["trials"]) == 1
    assert found.waiting() == 3


def test_search_in_which_nothing_works_has_no_best_settings(planned, tmp_path):
    found = search(planned(flaw="nan"), trials=2)
    assert found.execute(quiet).status == "failed"
    assert tuned_settings.write([found], tmp_path / "tuned") == []
    assert not (tmp_path / "tuned").exists()


def test_search_that_was_stopped_midway_writes_nothing(planned, tmp_path):
    replace(search(planned(), trials=6), trials=3).execute(quiet)
    whole = search(planned(), trials=6)
    assert whole.waiting() == 3
    assert tuned_settings.write([whole], tmp_path / "tuned") == []
    whole.execute(quiet)
    (path,) = tuned_settings.write([whole], tmp_path / "tuned")
    assert tomllib.loads(path.read_text())["methods"][TUNABLE]["trials"] == 6


def test_search_never_asks_for_a_test_list(planned, monkeypatch):
    made = planned(flaw="none")

    def refuse(self):
        raise AssertionError("the search looked at the test part")

    monkeypatch.setattr(Problem, "test_requests", refuse)
    assert search(made, trials=4).execute(quiet).reason == ""


def test_best_settings_are_used_below_those_of_the_suite_and_only_for_the_same_data(planned, tmp_path):
    found = search(planned(), trials=12)
    found.execute(quiet)
    tuned_settings.write([found], tmp_path / "tuned")
    place, best = (tmp_path / "tuned",), {"skill": 1.0, "flaw": "none"}
    assert planned(place).cells[0].settings == best
    assert planned(place, skill=0.3).cells[0].settings == {"skill": 0.3, "flaw": "none"}
    assert planned().cells[0].settings == {}
    assert planned(place, overrides={"limit": 5}).cells[0].settings == best
    assert planned(place, overrides={"protocol": {"split": "temporal"}}).cells[0].settings == {}
    facts = next(iter(planned(place).manifest()["datasets"].values()))["tuned"][TUNABLE]
    assert facts["trials"] == 12 and facts["best"] > facts["default"]


def test_best_settings_are_used_only_beside_those_that_were_fixed_when_they_were_found(planned, tmp_path):
    found = search(planned(flaw="none"), trials=4)
    found.execute(quiet)
    tuned_settings.write([found], tmp_path / "tuned")
    place = (tmp_path / "tuned",)
    assert planned(place, flaw="none").cells[0].settings == {"skill": 1.0, "flaw": "none"}
    assert planned(place, flaw="none", seconds=0.001).cells[0].settings["skill"] == 1.0
    assert planned(place).cells[0].settings == {}
    assert planned(place, flaw="nan").cells[0].settings == {"flaw": "nan"}


@pytest.fixture
def kept(planned, tmp_path):
    """Put a file of tuned settings into a place, whose path is returned."""

    own = tuning.data_key(planned().cells[0].problem)

    def write(place="tuned", trials=8, data=own, **methods):
        (tmp_path / place).mkdir(exist_ok=True)
        tuned = Tuned(dataset="tiny", data=data, trials=trials, methods=methods)
        (tmp_path / place / "tiny.toml").write_text(tuned.toml())
        return tmp_path / place

    return write


def best(**settings):
    return Best(seed=0, lists=60, trials=8, best=0.5, settings=settings)


def test_settings_in_any_script_are_read_as_they_were_written():
    settings = {"λ": 0.1, "a b": "naïve", "plain_1": {"é.ü": [1, 2]}}
    best = Best(seed=0, lists=1, trials=1, best=0.5, settings=settings)
    tuned = Tuned(dataset="🎬", data="", trials=1, methods={"méthode:Q": best})
    assert Tuned.model_validate(tomllib.loads(tuned.toml())) == tuned
    assert "settings.plain_1." in tuned.toml()


def test_searches_that_write_into_one_file_wait_for_each_other(planned, tmp_path):
    found = search(planned(flaw="none"), trials=1)
    found.execute(quiet)
    path = tmp_path / "tuned" / "tiny.toml"
    path.parent.mkdir()
    other = threading.Thread(target=tuned_settings.write, args=([found], path.parent))
    with FileLock(path.with_name(".tiny.toml.lock")):
        other.start()
        other.join(0.2)
        assert not path.exists()
    other.join()
    assert path.exists()


def test_tuning_another_method_keeps_what_was_found_before(planned, kept):
    found = search(planned(), trials=2)
    found.execute(quiet)
    fixed = {"options": {"loss_type": "BPR", "sizes": [1, 2]}}
    earlier = best(rate=0.1, name='a "b"', deep=True).model_copy(update={"fixed": fixed})
    (path,) = tuned_settings.write([found], kept(trials=2, llmrec=earlier))
    both = Tuned.model_validate(tomllib.loads(path.read_text())).methods
    assert both.keys() == {"llmrec", TUNABLE}
    assert both["llmrec"] == earlier


def test_settings_do_not_go_into_a_file_of_other_data_or_another_number_of_trials(planned, kept):
    found = search(planned(), trials=2)
    with pytest.raises(TuningError, match=r"tiny.toml was found on another split"):
        tuned_settings.write([found], kept(data="other", sasrec=best()))
    with pytest.raises(TuningError, match=r"sasrec had 8 trials, not 2: give --trials 8"):
        tuned_settings.write([found], kept(sasrec=best()))
    found.execute(quiet)
    (path,) = tuned_settings.write([found], kept(**{TUNABLE: best()}))  # nothing of the 8 trials is left
    assert tomllib.loads(path.read_text())["trials"] == 2


def test_of_two_places_the_first_counts_for_the_methods_it_has(planned, kept):
    places = [kept("run", sasrec=best(epochs=1)), kept("project", sasrec=best(epochs=2), bpr=best(epochs=2))]
    made = planned(places, overrides={"methods": ["sasrec", "bpr"]})
    assert {cell.id.method: cell.settings["epochs"] for cell in made.cells} == {"sasrec": 1, "bpr": 2}


def test_settings_found_with_another_language_model_hide_none_that_hold(planned, kept):
    other = best(rank=4).model_copy(update={"backbone": "org/model"})
    places = [kept("run", tallrec=other), kept("project", tallrec=best(rank=2))]
    made = planned(places, overrides={"methods": ["tallrec"]})
    assert [cell.settings for cell in made.cells] == [{"rank": 2}]


def test_rows_run_with_what_was_found_for_their_family_or_the_method_they_are_built_on(planned, kept):
    place = kept(p5=best(rate=1e-3), lrgd=best(shown=5), **{"lrgd/random": best(shown=2)})
    made = planned([place], overrides={"methods": ["p5", "paprec", "paprec/*", "lrgd", "lrgd/*"]})
    found = {cell.id.method: cell.settings for cell in made.cells}
    assert {"p5", "paprec", "paprec/global", "lrgd", "lrgd/random"} <= found.keys()
    assert found.pop("lrgd/no-model") == {}
    assert all(s == ({"shown": 5} if name.startswith("lrgd") else {"rate": 1e-3}) for name, s in found.items())
    assert {search.id.method for search in tuning.searches(made.cells, trials=2)} == {"p5", "lrgd"}
    with pytest.raises(TuningError, match="to search; paprec runs with what --tune finds for p5"):
        tuning.searches([cell for cell in made.cells if cell.id.method == "paprec"], trials=2)


def test_no_row_fixes_what_is_searched_for_its_family():
    for name in REGISTRY:
        row = create(name)
        family = create(hooks.tuned_as(name, row))
        own = {setting: getattr(row, setting) for setting in getattr(family, "space", {})}
        assert own == {setting: getattr(family, setting) for setting in own}, name


def test_setting_that_the_method_does_not_take_is_named_with_its_file(planned, kept):
    with pytest.raises(TuningError, match=r"tiny\.toml: method 'sasrec' has no setting 'hiden_size'"):
        planned([kept(sasrec=best(hiden_size=8))], overrides={"methods": ["sasrec"]})


def test_settings_tuned_with_one_language_model_are_not_used_with_another():
    info = MethodInfo("m", "none", needs=frozenset({"language model"}))
    found = best().model_copy(update={"backbone": "org/model"})
    assert found.holds_for(info, Compute(backbone="org/model"), {})
    assert not found.holds_for(info, Compute(), {})
    assert best().holds_for(MethodInfo("m", "none"), Compute(backbone="org/model"), {})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("dataset = ", "not a TOML file"),
        ('dataset = "tiny"\ndata = ""\ntrials = 1\nmethod = 1', "method: Extra inputs"),
    ],
)
def test_unreadable_file_of_tuned_settings_is_named(planned, tmp_path, text, sentence):
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "tiny.toml").write_text(text)
    with pytest.raises(TuningError, match=f"tiny.toml: {sentence}"):
        planned([tmp_path / "tuned"])


def test_folder_in_the_place_of_tuned_settings_is_named(planned, tmp_path):
    (tmp_path / "tuned" / "tiny.toml").mkdir(parents=True)
    with pytest.raises(TuningError, match=r"tiny\.toml: cannot be read: Is a directory"):
        planned([tmp_path / "tuned"])


def test_defaults_outside_the_search_space_are_refused(planned, monkeypatch):
    monkeypatch.setattr(Tunable, "space", {"skill": (0.5, 1.0)})
    with pytest.raises(TuningError, match=r"the default 0\.1 of skill is not in its search space"):
        search(planned(), trials=2).execute(quiet)


def test_none_is_searched_only_where_it_is_the_default_that_a_file_without_it_means(planned, monkeypatch):
    monkeypatch.setattr(Tunable, "space", {"skill": (0.1, None)})
    with pytest.raises(TuningError, match=r"the search space of skill holds None, .*, beside the default 0\.1: make"):
        search(planned(), trials=2)
    undecided = planned(overrides={"methods": ["tests.fakes:Undecided"], "settings": {}})
    assert search(undecided, trials=2).defaults() == {"skill": None}


def test_proposals_depend_on_seed_method_and_earlier_trials_alone():
    space = {"rate": (1e-3, 1e-2, None), "size": (16, 32, 64), "pooling": ("mean", "max")}
    trials = [tuning.Trial({"rate": None, "size": 16, "pooling": "mean"}, "failed")]
    assert propose(space, trials, 0, "m") == propose(space, trials, 0, "m")
    drawn = [propose(space, trials, seed, method) for seed in range(6) for method in ("m", "n")]
    assert len({str(settings) for settings in drawn}) > 5


def test_every_search_space_holds_the_defaults_and_enough_to_choose_from():
    searched = [method for method in map(create, REGISTRY) if getattr(method, "space", {})]
    robustness = [create(name) for name in suite.load("robustness").methods]
    alone = {method.info.name for method in robustness if method not in searched}
    assert alone == {"random", "popularity", "paprec"}, "nothing to choose, or the validation lists are used up"
    for method in searched:
        assert all(getattr(method, setting) in choices for setting, choices in method.space.items()), method
        assert all(len(set(choices)) == len(choices) for choices in method.space.values()), method
        # None is left out of the file of tuned settings, and the default takes its place
        assert all(getattr(method, name) is None for name, choices in method.space.items() if None in choices), method
        assert prod(map(len, method.space.values())) >= 12, method


def test_settings_that_come_with_the_project_fit_the_methods():
    for path in (ROOT / "benchmarks" / "tuned").glob("*.toml"):
        tuned = Tuned.model_validate(tomllib.loads(path.read_text()))
        assert all(best.trials == tuned.trials for best in tuned.methods.values()), "the same budget for all"
        for name, best in tuned.methods.items():
            create(name, best.settings)
            assert best.settings.keys() <= create(name).space.keys()


def test_every_method_of_the_embedded_default_was_searched_with_the_same_budget_and_lists():
    pytest.importorskip("recbole")
    robustness = suite.load("robustness")
    problem = prepare("ml-100k", robustness.protocol, {})
    (tuned,) = tuned_settings.read(problem, tuned_settings.folders(None, ROOT / "no run")).values()
    assert tuned.methods.keys() == {name for name in robustness.methods if getattr(create(name), "space", {})}
    found = tuned.methods.values()
    assert {(best.trials, best.lists, best.failed, best.seed) for best in found} == {(4, len(problem.valid), 0, 0)}
    assert all(not best.fixed and best.best >= best.default for best in found)
    for name, best in tuned.methods.items():
        stored = ROOT / "results" / "reference" / "robustness" / "tuning" / "ml-100k" / name / "seed-0.json"
        trials = json.loads(stored.read_text())["trials"]
        assert trials[0]["value"] == best.default
        assert max(trial["value"] for trial in trials) == best.best


def test_command_line_tunes_and_the_same_command_without_the_flag_runs_with_it(suite_file, tmp_path, run_suite):
    run = tmp_path / "run"
    flags = (
        "--suite",
        suite_file,
        "--methods",
        TUNABLE,
        "random",
        "--output-dir",
        run,
        "--set",
        f"{TUNABLE}.flaw=none",
    )
    dry = run_suite(*flags, "--tune", "--trials", 3, "--dry-run")
    assert f"{TUNABLE} on tiny, seed 0: 3 fits to make" in dry.stdout and "random: no settings" in dry.stdout
    assert not run.exists()
    searched = run_suite(*flags, "--tune", "--trials", 3)
    assert searched.returncode == 0 and "the same command without --tune runs with them" in searched.stderr
    assert not (run / "leaderboard.md").exists()
    refused = run_suite(*flags, "--tune", "--trials", 2, "--tuned", run / "tuned", "--methods", "random")
    assert refused.returncode == 2 and "none of these methods has settings to search" in refused.stderr
    assert "0 fits to make" in run_suite(*flags, "--tune", "--trials", 3, "--dry-run").stdout

    elsewhere = run_suite(*flags, "--output-dir", tmp_path / "other")
    assert (
        f"tiny: no tuned settings for these data and methods; those of {run / 'tuned'} need --tuned" in elsewhere.stderr
    )
    with_them = run_suite(*flags)
    assert with_them.returncode == 0
    assert f"tiny: tuned settings for 1 method, of {run / 'tuned' / 'tiny.toml'}\n" in with_them.stderr
    with (run / "ledger.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert rows["random"]["settings"] == "default" and rows["random"]["search_trials"] == "0"
    tuned = rows[TUNABLE]
    assert (tuned["settings"], tuned["search_trials"]) == ("tuned, but for flaw", "3")
    assert (tuned["epochs"], tuned["ended"], tuned["negatives"]) == ("2", "at its limit", "3")
    assert float(tuned["fit_seconds"]) >= 0 and float(tuned["host_memory"]) > 0
    other = run_suite(*flags, "--tuned", "none", "--dry-run")
    assert other.stdout.count("to run") == 1 and other.returncode == 2 and "1 finished cell with" in other.stderr
    searched = run_suite(*flags, "--tune", "--trials", 3)
    assert "the same command with --fresh instead of --tune runs with them" in searched.stderr
    refused = run_suite(*flags, "--tune", "--fresh")
    assert refused.returncode == 2 and f"to search again, delete {run / 'tuning'}" in refused.stderr


def test_search_in_which_nothing_works_promises_nothing_and_its_log_is_named(suite_file, tmp_path, run_suite):
    flags = ("--methods", TUNABLE, "--set", f"{TUNABLE}.flaw='nan'", "--output-dir", tmp_path / "r", "--jobs", 1)
    answer = run_suite("--suite", suite_file, *flags, "--tune", "--trials", 1)
    assert answer.returncode == 1 and "no tuned settings: no trial has a value" in answer.stderr
    assert "without --tune" not in answer.stderr and f"(see {tmp_path / 'r' / 'run.log'})" in answer.stderr
    assert "not finite" in (tmp_path / "r" / "run.log").read_text()


def test_ledger_reads_runs_from_before_the_search(suite_file, tmp_path, run_suite):
    run = tmp_path / "run"
    assert run_suite("--suite", suite_file, "--methods", "popularity", "--output-dir", run).returncode == 0
    manifest = json.loads((run / "manifest.json").read_text())
    for described in manifest["datasets"].values():
        del described["tuned"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    (path,) = run.rglob("record.json")
    record = json.loads(path.read_text())
    del record["memory"], record["fit"]["loss"], record["fit"]["negatives"]
    path.write_text(json.dumps(record))
    (results,) = load(RunFolder(run))
    (row,) = ledger(results).rows
    assert row["method"] == "popularity" and row["search_trials"] == 0
    assert row["host_memory"] is row["loss"] is row["negatives"] is None
