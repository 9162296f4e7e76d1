"""Checks of the settings of methods."""

import inspect
from collections.abc import Iterable, Mapping

from methods.settings import annotation, fits, words


def check_types(method: object) -> None:
    """See that settings are of the types they are annotated with, one of the choices where there are some.

    Raises:
        ValueError: naming the first that is not, and what there is to choose from.
    """
    for name in inspect.signature(type(method)).parameters:
        if not fits(value := getattr(method, name), kind := annotation(type(method), name)):
            raise ValueError(f"{name} is {words(kind)}, not {value!r}")


def check_least(method: object, least: Mapping[str, int]) -> None:
    """See that settings are not below their least value; None, a method's own choice, passes.

    Raises:
        ValueError: naming the first that is.
    """
    for name, bound in least.items():
        value = getattr(method, name)
        if value is not None and not value >= bound:
            raise ValueError(f"{name} is at least {bound}, not {value}")


def check_positive(method: object, names: Iterable[str]) -> None:
    """See that settings are more than 0; None, a method's own choice, passes.

    Raises:
        ValueError: naming the first that is not.
    """
    for name in names:
        value = getattr(method, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name} is more than 0, not {value}")


def check_shares(method: object, names: Iterable[str], zero: bool = True, one: bool = True) -> None:
    """See that settings are between 0 and 1, these included or not.

    Raises:
        ValueError: naming the first that is not.
    """
    low, high = "at least" if zero else "more than", "at most" if one else "below"
    for name in names:
        value = getattr(method, name)
        if not 0 <= value <= 1 or (value == 0 and not zero) or (value == 1 and not one):
            raise ValueError(f"{name} is {low} 0 and {high} 1, not {value}")
