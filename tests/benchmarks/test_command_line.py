"""What users type, and what they are answered."""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest

import benchmarks
from benchmarks.families import FAMILIES
from benchmarks.run import main
from tests.conftest import ROOT, start, write_atomic


def test_help_lists_the_flags_users_of_such_tools_expect(run_suite):
    text = run_suite("--help").stdout
    flags = "suite methods datasets backbone device dtype seed seeds batch-size limit output-dir jobs executor"
    assert all(f"--{flag}" in text for flag in flags.split())


@pytest.mark.parametrize("asked", ["--help", "list"])
def test_help_and_list_import_no_heavy_package(asked):
    code = f"""
import sys
from benchmarks.run import main
try:
    main([{asked!r}])
except SystemExit as stop:
    assert stop.code == 0
print(*sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    modules = answer.stdout.splitlines()[-1].split()
    assert "benchmarks.run" in modules
    assert not {"torch", "transformers", "recbole", "pandas", "matplotlib"} & set(modules)


@pytest.mark.parametrize("program", ["demonstration_study", "effect_study", "throughput"])
def test_programs_without_their_data_say_so_and_leave_nothing(program, monkeypatch, tmp_path, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == "recbole" else find(name, *a))
    flags = ["--output-dir", str(tmp_path / "out")] if "study" in program else []
    with pytest.raises(SystemExit):
        importlib.import_module(f"benchmarks.{program}").main(flags)
    assert "error: ml-100k is read from the recbole package, which is not installed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["methods", "datasets", "suites", "conditions", "templates"])
def test_list_names_what_there_is(run_suite, what):
    answer = run_suite("list", what)
    assert answer.returncode == 0
    assert len(answer.stdout.splitlines()) >= 2
    assert all(line.startswith("  ") for line in answer.stdout.splitlines())  # one thing a line


def test_version_is_that_of_the_project(run_suite):
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run_suite("--version").stdout.strip() in {declared, "0+unknown"}  # not installed


def test_list_names_all_families_of_conditions(run_suite):
    listed = run_suite("list", "conditions").stdout
    assert all(f"  {family}" in listed for family in FAMILIES)
    assert "unseen/recommend-unseen-01" in listed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--suite", "robustnes"], "did you mean 'robustness'?"),
        (["--suit", "smoke"], "did you mean '--suite'?"),
        (["--methods", "popularty"], "did you mean 'popularity'"),
        (["--methods", "my_package.mine.Mine"], "did you mean my_package.mine:Mine?"),
        (["--methods", "no.such:Method"], "No module named 'no'"),
        (["--datasets", "ml-10k"], "did you mean 'ml-100k'?"),
        (["--methods", "random", "--set", "random.speed=3"], "has no setting 'speed'"),
        (["--methods", "sasrec", "--set", "bpr.nosuch=2"], "method 'bpr' has no setting 'nosuch'"),
        (
            ["--methods", "random", "--set", "bpr.epochs=2", "--tune"],
            "--set bpr: not in this run, whose methods are random",
        ),
        (["--seed", "1", "--seeds", "2", "3"], "not allowed with argument --seed"),
        (["--methods", "random", "--tuned", "typo"], "--tuned typo: no such folder"),
        (["--llm", "foo"], "llm 'foo': give recorded, recorded:FILE, endpoint:MODEL or local:MODEL"),
        (["--llm-budget", "nonsense"], "no budget 'nonsense'"),
        (["--set", "random"], "expected METHOD.SETTING=VALUE"),
        (["--tune", "--trials", "0"], "--trials: 0 is not a whole number of at least 1"),
        (["--trials", "99"], "--trials 99 is for --tune"),
        (["--batch-size", "0"], "--batch-size: 0 is not a whole number of at least 1 or auto"),
        (["--negatives", "abc"], "--negatives: abc is not a whole number of at least 1 or full"),
        (["--tune", "--methods", "random"], "none of these methods has settings to search"),
        (["--tune", "--tuned", "none"], "nowhere to write"),
        (["--device", "gpu"], "no device 'gpu': give auto, cpu, cuda"),
        (["--device", "cuda:x"], "no device 'cuda:x': give auto, cpu, cuda"),
        (["--executor", "serial", "--jobs", "2"], "--jobs 2 needs --executor processes"),
        (["--revision", "main"], "--revision main: of which --backbone?"),
        (["--revision", "main", "--backbone", "tiny-t5"], "--revision main: tiny-t5 has none, only models of"),
        (["--seeds", "0", "1", "0"], "error: --seeds: each is needed once, and 0 is there twice"),
        (["--datasets", "ml-100k", "ml-100k"], "'ml-100k' is there twice"),
        (["run", "smoke"], "unknown argument 'smoke': did you mean --suite smoke?"),
        (["report", "results/smoke"], "unknown argument 'results/smoke': did you mean --output-dir results/smoke?"),
        (["report", "--methods", "random", "--dry-run"], "report takes no --methods, --dry-run"),
        (["list", "--methods", "bpr", "datasets"], "list takes no --methods"),
        (["list", "metods"], "there are methods"),
        (["report", "--output-dir", "nowhere-at-all"], "no run here"),
        (["--backbone", "./nowhere"], "--backbone ./nowhere: no such folder"),
        (["--output-dir", ""], "--output-dir: the name of a folder is needed"),
    ],
)
def test_bad_input_is_answered_with_a_sentence_and_neighbours(run_suite, tmp_path, arguments, sentence):
    if "--output-dir" not in arguments and arguments[0] != "list":
        arguments = [*arguments, "--output-dir", tmp_path / "run"]
    answer = run_suite(*arguments)
    assert answer.returncode == 2
    assert sentence in answer.stderr
    assert "Traceback" not in answer.stderr


def test_what_is_a_positive_is_an_option_and_a_dry_run_says_what_it_leaves(tmp_path, run_suite):
    file = write_atomic(tmp_path / "tiny", users=60, items=60, length=12) / "tiny.inter"
    header, *rows = file.read_text().splitlines()
    rated = [f"{row}\t{2 + n % 4}" for n, row in enumerate(rows)]
    file.write_text("\n".join([f"{header}\trating:float", *rated]) + "\n")
    flags = ("--methods", "random", "--datasets", tmp_path / "tiny", "--output-dir", tmp_path / "r", "--dry-run")
    flags = (*flags, "--negatives", 40)
    for rating, count, left in (("2", "1", 720), ("3", "1", 540), ("2", "13", None)):
        answer = run_suite(*flags, "--min-rating", rating, "--min-count", count)
        if left is None:
            assert answer.returncode == 2 and "lower --min-rating or --min-count" in answer.stderr
        else:
            assert f"60 items, {left} interactions; 60 of 60 test users judged" in answer.stderr
        assert (f"rated under {rating} and not counted as positives" in answer.stderr) == (rating == "3")
    assert "--min-rating: Input should be a finite number" in run_suite(*flags, "--min-rating", "nan").stderr


def test_data_of_the_same_name_are_refused(suite_file, tmp_path, run_suite):
    folders = [write_atomic(tmp_path / name / "tiny", users=60, items=60, length=12) for name in "ab"]
    answer = run_suite("--suite", suite_file, "--datasets", *folders, "--output-dir", tmp_path / "r")
    assert answer.returncode == 2 and "are both called 'tiny': rename the files of one" in answer.stderr


def test_data_without_tuned_settings_are_named_unless_none_were_asked_for(suite_file, tmp_path, run_suite):
    flags = ("--suite", suite_file, "--methods", "random", "--output-dir", tmp_path / "r")
    assert "tiny: no tuned settings for these data and methods" in run_suite(*flags).stderr
    assert "no tuned settings" not in run_suite(*flags, "--tuned", "none").stderr


@pytest.mark.parametrize("stream", ["1", "2"])
def test_closed_streams_cost_nothing(suite_file, tmp_path, stream):
    command = [sys.executable, "-m", "benchmarks.run", "--suite", suite_file, "--methods", "random", "--output-dir"]
    words = shlex.join(map(str, [*command, tmp_path / "r"]))
    assert subprocess.run(f"{words} {stream}>&-", shell=True, cwd=ROOT).returncode == 0
    assert (tmp_path / "r" / "index.html").exists()


def test_report_finds_the_run_of_a_suite_file_by_the_name_in_it(finished, tmp_path, run_suite):
    file, run = finished
    (tmp_path / "other-name.toml").write_text(file.read_text())
    place = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    shutil.copytree(run, tmp_path / "results" / "tiny")
    assert run_suite("report", "--suite", "other-name.toml", **place).returncode == 0
    assert run_suite("--suite", "other-name.toml", "--dry-run", **place).stdout.count(": finished") == 3


def test_reader_that_has_seen_enough_ends_the_list_quietly():
    process = start("list")
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait()


def test_a_stream_of_few_characters_ends_no_finished_run(finished, tmp_path, run_suite):
    run = shutil.copytree(finished[1], tmp_path / "run")
    plain = {**os.environ, "PYTHONIOENCODING": "ascii"}
    answer = run_suite("report", "--output-dir", run, env=plain)
    assert answer.returncode == 0 and "| Unseen mean ? |" in answer.stdout


def test_interrupt_while_importing_ends_the_command_quietly(monkeypatch, capsys):
    class Interrupt:
        def find_spec(self, *_: object) -> None:
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "benchmarks.commands", raising=False)
    monkeypatch.delattr(benchmarks, "commands", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupt()])
    assert main(["list"]) == 130
    assert capsys.readouterr().err.startswith("stopped")


def test_unwritable_folder_is_a_clear_error(suite_file, tmp_path, run_suite):
    (tmp_path / "file").write_text("")
    answer = run_suite("--suite", suite_file, "--output-dir", tmp_path / "file" / "run")
    assert answer.returncode == 2
    assert "cannot write" in answer.stderr
