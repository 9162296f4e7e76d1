"""Things that load a model or open a connection when they first need it."""

from functools import cached_property
from typing import Any


class Lazy:
    """Is stored without its cached properties, which are made anew where they are needed again."""

    def __getstate__(self) -> dict[str, Any]:
        """Its attributes but for those: no model as large as all else, no connection and no key to it."""
        kind = type(self)
        return {k: v for k, v in vars(self).items() if not isinstance(getattr(kind, k, None), cached_property)}
