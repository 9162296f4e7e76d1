"""What a method owes: a report of its fit, and scores that can be ranked and kept."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import get_type_hints

import numpy as np

from data.types import FloatArray
from methods import hooks
from methods.base import FitReport, Method, Requests
from methods.settings import fits, words

USERS_PER_CALL = 64
OFFSET = 1e-5
"""Share of their size by which the scores of a user have to differ: more than a hundred times what float32 rounds."""


def checked(report: object) -> FitReport:
    """What ``fit`` returned, with Python's own values where it has NumPy's.

    Raises:
        TypeError: if it is no FitReport, or a field is not of its type; infinite and undefined numbers are of none.
    """
    if not isinstance(report, FitReport):
        raise TypeError(f"fit returns a FitReport, not {report!r}")
    values = {}
    for name, kind in get_type_hints(FitReport).items():
        value = getattr(report, name)
        values[name] = value = value.item() if isinstance(value, np.generic) else value
        if not fits(value, kind) or (isinstance(value, float) and not math.isfinite(value)):
            raise TypeError(f"{name} in a FitReport is {words(kind)}, not {value!r}")
    return FitReport(**values)


def for_roles(requests: Requests, method: Method) -> Requests:
    """The requests with the templates of the method's own roles only."""
    own = {role: row for role, row in requests.templates.items() if role in method.info.roles}
    return replace(requests, templates=own)


def score(method: Method, requests: Requests) -> FloatArray:
    """Scores of all rows, shape ``[rows, candidates]``; raises what :func:`scored` does."""
    return scored(method, requests)[0]


def scored(method: Method, requests: Requests) -> tuple[FloatArray, list[str]]:
    """Scores of all rows, shape ``[rows, candidates]``, and a flag of each row, a bounded number of users per call.

    Raises:
        ValueError: if the method returns another shape, values that are not finite, or flags of other rows.
        RuntimeError: if the method cannot read or write a file.
    """
    parts, flags = list[FloatArray](), list[str]()
    for rows in np.array_split(np.arange(len(requests)), range(USERS_PER_CALL, len(requests), USERS_PER_CALL)):
        with own_errors(method):
            parts.append(_scores(method, requests.select(rows)))
            flags += hooks.flags(method) or [""] * len(rows)
    if len(flags) != len(requests):
        raise ValueError(f"{method.info.name}: flags holds a text of every row that was scored last, or nothing")
    scores = np.concatenate(parts)
    if not np.isfinite(scores).all():
        row = int(np.argmin(np.isfinite(scores).all(axis=1)))
        user = requests.catalogue.user_ids[requests.users[row]]
        raise ValueError(f"{method.info.name}: scores of user {user!r} are not finite")
    return scores, flags


@contextmanager
def own_errors(method: Method) -> Iterator[None]:
    """Tell errors of a method's own files from those of the run folder, which would end the run."""
    try:
        yield
    except OSError as error:
        raise RuntimeError(f"{method.info.name}: {error}") from error


def _scores(method: Method, requests: Requests) -> FloatArray:
    scores, expected = method.score(requests), requests.candidates.shape
    if np.shape(scores) != expected:
        found = "nothing" if scores is None else f"shape {np.shape(scores)}"
        raise ValueError(f"{method.info.name}: score returns one number per candidate, shape {expected}, not {found}")
    if np.iscomplexobj(scores):
        raise ValueError(f"{method.info.name}: scores are complex numbers, which have no order")
    return np.asarray(scores, np.float64)


def check_range(method: Method, scores: FloatArray) -> None:
    """See that single precision, in which scores are kept, has numbers of their size.

    Raises:
        ValueError: if they are too large, or all too small.
    """
    most, limits = np.abs(scores).max(), np.finfo(np.float32)
    if most > limits.max or 0 < most < limits.tiny:
        raise ValueError(
            f"{method.info.name}: scores of size {most:.2g} are beyond the single precision in which they are kept: "
            "give their logarithms, or multiples"
        )


def check_offset(method: Method, scores: FloatArray) -> None:
    """See that single precision, in which scores are kept, tells those of a user apart.

    Raises:
        ValueError: if it does not for any user, because of what all candidates share.
    """
    spread, size = np.ptp(scores, axis=1), np.abs(scores).max(axis=1)
    varied = spread > 0
    if varied.any() and (spread < OFFSET * size)[varied].all():
        raise ValueError(
            f"{method.info.name}: the scores of a user differ by less than {OFFSET:g} of their size, too little for "
            "the single precision in which they are kept: take away what all candidates share"
        )
