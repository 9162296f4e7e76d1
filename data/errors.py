"""What cannot be used."""


class InputError(ValueError):
    """What a user has given cannot be used; the message names the place and what can."""
