"""Which code made a result."""

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import provenance


def loaded(path: Path) -> ModuleType:
    """The module as if it ran from another place, with nothing remembered."""
    spec = importlib.util.spec_from_file_location("elsewhere", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one module and a card, not yet under version control."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "a")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@example.org")
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(provenance.__file__, tmp_path / "benchmarks" / "provenance.py")
    (tmp_path / "benchmarks" / "README.md").write_text("card\n")
    return tmp_path


def test_outside_a_checkout_no_commit_is_named(checkout: Path) -> None:
    found = loaded(checkout / "benchmarks" / "provenance.py").code()
    assert (found["commit"], found["dirty"]) == (None, False)


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
def test_the_commit_is_that_of_the_code_and_an_edit_of_code_alone_is_dirty(checkout: Path) -> None:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", checkout, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    module, card = checkout / "benchmarks" / "provenance.py", checkout / "benchmarks" / "README.md"
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "code")
    commit = git("rev-parse", "HEAD")
    card.write_text("another card\n")
    assert loaded(module).code() == {"version": provenance.version(), "commit": commit, "dirty": False}
    git("commit", "-q", "-a", "-m", "card")
    assert loaded(module).code()["commit"] == commit
    module.write_text(module.read_text() + "\n# edited\n")
    assert loaded(module).code()["dirty"]


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="needs Linux")
def test_the_model_of_the_processor_is_named_since_rounding_differs_between_them(monkeypatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "model name\t: Quick CPU 3\nmodel name\t: 2\n")
    assert provenance.describe()["machine"]["processor"].endswith(" Quick CPU 3")
