"""A small data set in atomic files, and the command line on it."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores; numpy reads this when it is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import io
import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from benchmarks.run import main

hypothesis.settings.register_profile("any-speed", deadline=None)
hypothesis.settings.load_profile("any-speed")
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"  # where the servers of the tests are
ROOT = Path(__file__).resolve().parent.parent
SUITE = """
name = "tiny"
methods = ["random", "popularity", "tests.fakes:Prompted"]
datasets = ["{folder}"]
[protocol]
negatives = 20
[conditions]
unseen = true
typos = [0.1, 0.3]
history-drop = [0.3]
[statistics]
draws = 199
resamples = 99
"""


def write_atomic(folder: Path, users: int = 30, items: int = 60, length: int = 8) -> Path:
    """Atomic files of random interactions; every user has ``length`` of them."""
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(users):
        chosen = rng.choice(items, length, replace=False)
        lines += [f"u{user}\ti{item}\t{1000 * position + user}" for position, item in enumerate(chosen)]
    (folder / "tiny.inter").write_text("\n".join(lines) + "\n")
    titles = ["item_id:token\ttitle:token_seq\tgenres:token_seq"]
    titles += [f"i{item}\tThing Number {item} &amp; Co\tKind{item % 4}" for item in range(items)]
    (folder / "tiny.item").write_text("\n".join(titles) + "\n")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "installed_wheel" not in item.name)  # the longest first: workers end together


@pytest.fixture
def atomic(tmp_path: Path) -> Path:
    return write_atomic(tmp_path / "tiny", items=20, length=12)


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    folder = write_atomic(tmp_path / "tiny", users=60, items=60, length=12)
    path = tmp_path / "tiny.toml"
    path.write_text(SUITE.format(folder=folder))
    return path


def start(*arguments: object) -> subprocess.Popen[str]:
    """The command line in a process of its own, which is not waited for."""
    command = [sys.executable, "-m", "benchmarks.run", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in this process, one cell after the other if nothing else is asked for."""
    texts = list(map(str, arguments))
    if not {"list", "report", "merge", "--jobs", "--executor"}.intersection(texts):
        texts += ["--jobs", "1"]
    output, errors, root = io.StringIO(), io.StringIO(), logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
            patch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))  # is put back afterwards
            status = main(texts)
    except SystemExit as stop:  # of argparse
        status = int(stop.code or 0)
    finally:  # what a run does to logging, for it has a process of its own
        for handler in set(root.handlers).difference(handlers):
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
    return subprocess.CompletedProcess(texts, status, output.getvalue(), errors.getvalue())


@pytest.fixture
def run_suite() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line: in this process, or, given anything that :func:`subprocess.run` takes, in one of its own."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        if not options:
            return call(*arguments)
        command = [sys.executable, "-m", "benchmarks.run", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, **{"cwd": ROOT, "timeout": 300, **options})  # type: ignore[call-overload,no-any-return]

    return run
