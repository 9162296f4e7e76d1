"""Requests small enough to read, and a finished run."""

from pathlib import Path

import numpy as np
import pytest

from data.dataset import Catalogue, Domain
from data.histories import Histories
from data.prompts.template import Role, Template, parse
from methods.base import Requests
from tests.conftest import SUITE, start, write_atomic

TABLES = (
    "leaderboard.md",
    "leaderboard.csv",
    "leaderboard.tex",
    "leaderboard.json",
    "significance.csv",
    "families.csv",
    "cold-items.md",
    "cold-items.csv",
    "cold-items.tex",
)
"""Files of a run that come out the same to the byte."""
TITLES = (
    "Alien", "Brazil", "Casablanca", "Dead Man Walking", "Evita", "Fargo", "Gandhi", "Heat", "I.Q.", "Jaws",
    "Kolya", "Liar Liar", "M", "Nixon", "Othello", "Psycho", "Quiz Show", "Ransom", "Scream", "Twister",
    "Up Close and Personal", "Vertigo", "When Harry Met Sally...", "Young Frankenstein",
)  # fmt: skip
ASK = "After {history}, will this {consumer} choose {target} next? Answer {positive} or {negative}. Answer:"
ATTRIBUTE = "Given {history}, the attribute that matters most is"


@pytest.fixture(scope="session")
def toy() -> Requests:
    """Three users with 6, 4 and 1 items in their histories, 5 candidates each, and two roles."""
    catalogue = Catalogue(
        name="toy",
        user_ids=("u0", "u1", "u2", "u3"),
        item_ids=tuple(f"i{n}" for n in range(len(TITLES))),
        titles=TITLES,
        fields={"year": tuple(str(1970 + n) for n in range(len(TITLES)))},
        domain=Domain("movie", "movies", "watch", "watched", "watching", "viewer"),
    )
    templates: dict[Role, tuple[Template, ...]] = {
        "recommend": (Template("ask", "recommend", "seen", parse(ASK)),) * 3,
        "attribute": (Template("name", "attribute", "seen", parse(ATTRIBUTE)),) * 3,
    }
    return Requests(
        users=np.array([1, 2, 3]),
        histories=Histories.of([np.arange(6), np.arange(6, 10), np.array([12])]),
        candidates=np.array([[20, 21, 22, 23, 10], [0, 1, 2, 3, 4], [5, 9, 13, 17, 21]]),
        catalogue=catalogue,
        templates=templates,
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run of the tiny suite, for tests that leave it as it is: suite file and run folder."""
    base = tmp_path_factory.mktemp("finished")
    suite = base / "tiny.toml"
    suite.write_text(SUITE.format(folder=write_atomic(base / "tiny", users=60, items=60, length=12)))
    run = start("--suite", suite, "--output-dir", base / "run", "--jobs", 2)
    output, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    assert "popularity" in output
    return suite, base / "run"
