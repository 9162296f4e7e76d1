"""What somebody may have meant who typed a name that there is not."""

import difflib
from collections.abc import Iterable


def near(name: str, valid: Iterable[str], n: int = 1) -> str:
    """A question after the nearest valid names, with a blank behind it; empty if none is near.

    Args:
        name: what was typed.
        valid: what there is.
        n: names to offer at most.

    >>> near("sasrek", ["din", "sasrec"])
    "did you mean 'sasrec'? "
    """
    found = difflib.get_close_matches(name, list(valid), n=n)
    return f"did you mean {' or '.join(map(repr, found))}? " if found else ""
