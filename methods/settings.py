"""Whether the value of a setting is of the type it is annotated with."""

import inspect
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

KINDS: Mapping[Any, tuple[type | tuple[type, ...], str]] = {
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "a text"),
    NoneType: (NoneType, "none"),
    **dict.fromkeys((list, tuple, Sequence), ((list, tuple), "a list")),
    **dict.fromkeys((dict, Mapping), (Mapping, "a table")),
}
"""Type -> what is accepted for it, and how it is called; ``True`` and ``False`` are no numbers."""


def annotation(factory: Callable[..., object], setting: str) -> Any:
    """The type of a setting; Any where it cannot be told, as with names imported for type checkers alone."""
    found = inspect.signature(factory).parameters[setting].annotation
    if not isinstance(found, str):
        return found
    made = factory.func if isinstance(factory, partial) else factory
    try:
        return eval(found, {**vars(typing), **vars(sys.modules[made.__module__])})
    except Exception:  # a text may say anything
        return Any


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type; all are of one that is not in :data:`KINDS`.

    >>> fits(3, float | None), fits(True, int), fits("tpu", Literal["cpu", "gpu"])
    (True, False, False)
    """
    origin = get_origin(kind) or kind
    if origin in (Union, UnionType):
        return any(fits(value, each) for each in get_args(kind))
    if origin is Literal:
        return value in get_args(kind)
    accepted, _ = KINDS.get(origin, (object, ""))
    return isinstance(value, accepted) and not (isinstance(value, bool) and origin in (int, float))


def words(kind: Any) -> str:
    """A type in words.

    >>> words(float | None), words(Literal["cpu", "gpu"])
    ('a number', "'cpu' or 'gpu'")
    """
    origin = get_origin(kind) or kind
    if origin in (Union, UnionType):
        return " or ".join(words(each) for each in get_args(kind) if each is not NoneType)
    return " or ".join(map(repr, get_args(kind))) if origin is Literal else KINDS[origin][1]
