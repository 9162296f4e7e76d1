"""How a run can end other than well."""

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_AUDIT = 3


class UsageError(ValueError):
    """The command line asks for what cannot be done."""
