"""What is loaded when it is first needed, and is no part of what is stored."""

from functools import cached_property
from typing import Any


class Reloaded:
    """Leaves its cached properties out of its pickles: models, which a kept fit would hold whole, and connections.

    Whoever reads the pickle loads them again when they are needed.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Everything else."""
        found = ((name, getattr(type(self), name, None)) for name in vars(self))
        return {name: vars(self)[name] for name, how in found if not isinstance(how, cached_property)}
