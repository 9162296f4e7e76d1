"""How a run can end other than well."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from data.errors import InputError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_AUDIT = 3


class UsageError(InputError):
    """The command line asks for what cannot be done."""


def positive(text: str) -> int:
    """An option that counts something.

    Raises:
        ArgumentTypeError: unless it is a whole number above 0.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"at least 1 is needed, not {text}")
    return int(text)


@contextmanager
def usage_errors(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Let input that cannot be used end a program as options that cannot be parsed do."""
    try:
        yield
    except InputError as error:
        parser.error(str(error))
