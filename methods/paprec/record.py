"""What a search found, in readable form, for the run folder."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields

import numpy as np
from transformers import PreTrainedTokenizerBase

from data.types import IntArray
from methods.artifacts import csv_text
from methods.paprec.search import Gain, Search, Step


def account(search: Search) -> Iterator[str]:
    """What each kind of rounds gained on the part it accepts on and on the part held out, and why the search ended."""
    for name, gain in search.gains.items():
        undone = f" (a round of {_gained(search.undone[name])} undone)" if name in search.undone else ""
        yield f"{name} triggers: surrogate {_gained(gain)}{undone}"
    if search.steps:
        yield "search ended by itself" if search.converged else "search ended with its budget"


def _gained(gain: Gain) -> str:
    held = "nothing" if math.isnan(gain.held) else f"{gain.held:+.3f}"
    return f"{gain.search:+.3f} where searched, {held} held out"


def files(
    search: Search,
    start: IntArray,
    shared: int,
    user_ids: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    most: int = 20,
) -> dict[str, str]:
    """Name and text of each file: the triggers in words, and the steps of the search.

    Args:
        search: after it has run.
        start: triggers that everybody started with, shape ``[size]``.
        shared: how many of the triggers are global; they come first.
        user_ids: ids of all users.
        tokenizer: turns tokens into words.
        most: how many of the most frequent searched user triggers are listed.
    """
    words: dict[int, str] = {id: str(tokenizer.decode([id])).strip() for id in np.unique(search.tokens).tolist()}
    common, own = search.tokens[:1, :shared], search.tokens[:, shared:]
    changed = own != start[shared:]
    counts = Counter(own[changed].tolist()).most_common(most)
    steps = (astuple(step) for step in search.steps)
    lines = [
        f"Global triggers: {_text(words, common[0]) if common.size else 'none'}",
        "",
        *(f"{line[0].upper()}{line[1:]}." for line in account(search)),
        f"{search.evaluations} candidate tokens tried, each for all users at once: {search.tried} tokens for one user",
        f"in {search.seconds:.1f} seconds.",
        f"User triggers that are still those of the start: {(~changed).sum()} of {changed.size}.",
        "",
        "| user trigger | times |",
        "|---|---|",
        *(f"| {words[id]} | {count} |" for id, count in counts),
    ]
    return {
        "triggers.md": "\n".join(lines) + "\n",
        "user-triggers.csv": csv_text(
            ["user", "triggers"], ((user, _text(words, row)) for user, row in zip(user_ids, own, strict=True))
        ),
        "search.csv": csv_text([field.name for field in fields(Step)], steps),
    }


def _text(words: dict[int, str], tokens: IntArray) -> str:
    return " ".join(words[token] for token in tokens.tolist())
