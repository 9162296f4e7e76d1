"""How a run can end other than well."""

from data.errors import InputError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_AUDIT = 3


class UsageError(InputError):
    """The command line asks for what cannot be done."""
