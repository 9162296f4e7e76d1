"""Prompts and histories to perturb, and what to compare."""

from collections.abc import Callable, Iterable

import numpy as np
from hypothesis import strategies as st

from benchmarks.perturbations.base import (
    HistoryPerturbation,
    Perturbation,
    WordingPerturbation,
)
from benchmarks.perturbations.distractor import Distractor
from benchmarks.perturbations.format import Format
from benchmarks.perturbations.history import HistoryDrop, HistoryInject, HistoryShuffle
from benchmarks.perturbations.register import Register
from benchmarks.perturbations.synonyms import Synonyms
from benchmarks.perturbations.title_noise import TitleNoise
from benchmarks.perturbations.typos import Typos
from benchmarks.perturbations.wording import WORD
from data.dataset import Domain
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
ASK = "After {history}, will this {consumer} choose {target} next? Answer:"
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
