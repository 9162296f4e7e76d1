"""What cannot be used."""


class InputError(ValueError):
    """What a user has given cannot be used; the message names the place and what can."""


def told(error: BaseException) -> str:
    """An error of a user's own code; those that say by themselves what is wrong, as they say it."""
    plain = isinstance(error, TypeError | ValueError | ImportError | AttributeError)
    return str(error) if plain else f"{type(error).__name__}: {error}"
