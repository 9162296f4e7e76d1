"""What to do where memory is short."""

from collections.abc import Callable

import torch


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that the memory is full."""
    said = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in said)


def has_room_for(work: Callable[[], None], least: bool) -> bool:
    """Do some work; False if it does not fit into memory, of which what it has taken is free again.

    Args:
        work: what is to be done.
        least: whether it cannot be done in smaller pieces: that there is no room for it is an error then.
    """
    try:
        work()
        return True
    except RuntimeError as error:
        if least or not out_of_memory(error):
            raise
    if torch.cuda.is_available():  # not before the error has let go of what it holds
        torch.cuda.empty_cache()
    return False
