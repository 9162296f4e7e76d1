"""An attention function of our own in a model of the library, for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel


@contextmanager
def installed(model: PreTrainedModel, name: str, function: Callable[..., tuple[Tensor, Any]]) -> Iterator[None]:
    """Let the model use an attention function; its own is back afterwards.

    No mask is made for it: it sees ``attention_mask`` as the caller gave it, None for plain causal attention.

    Args:
        model: goes through the attention interface of transformers.
        name: what the function is registered as.
        function: with the signature of the library's attention functions.
    """
    AttentionInterface.register(name, function)
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
