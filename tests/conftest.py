"""A small data set in atomic files, and the command line on it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
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


@pytest.fixture
def run_suite() -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "benchmarks.run", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, **{"cwd": ROOT, "timeout": 300, **options})  # type: ignore[call-overload,no-any-return]

    return run
