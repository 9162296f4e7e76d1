"""Attention with a changed dual step: regularised start, perturbed demonstrations, negative demonstrations.

All three change keys and values before any attention function of the library or of the suite sees them, so
that model code stays as it is and shared prefixes work. For every layer, head and query (our definitions):

    (1 - alpha) W0          values of tokens that are no demonstration times 1 - alpha, Z as it was
    k_i + eps noise_i       keys of demonstrations, Z that of the perturbed keys
    v_i - beta mean(v_neg)  values of demonstrations

At alpha = beta = eps = 0 nothing is changed, bit for bit.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from data.random import generator
from methods.lm.attention import installed
from methods.lrgd.packed import Packed, packed_attention
from methods.lrgd.record import Trace

NAME = "promptrec_lrgd"
LONGEST = 4096
"""Positions that noise is drawn for: for all of a window of 131072, an 8 B model would take 17 GB of it."""


@dataclass(frozen=True)
class Strength:
    """How much the dual step is changed.

    Args:
        alpha: share of W0 to leave out, in [0, 1].
        beta: how much of the mean value of negative demonstrations to subtract.
        eps: size of the noise on demonstration keys, as a share of the size of the key.
    """

    alpha: float = 0.0
    beta: float = 0.0
    eps: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether nothing is changed."""
        return not (self.alpha or self.beta or self.eps)


UNCHANGED = Strength()


@dataclass(frozen=True)
class Material:
    """What the changes are made of, for one model.

    Args:
        noise: standard normal noise by layer, key head and position, which comes again behind its last position,
            shape ``[layers, key heads, positions, size]``.
        negative: mean value of negative demonstrations, shape ``[layers, key heads, size]``.
    """

    noise: Tensor
    negative: Tensor

    @classmethod
    def of(cls, model: PreTrainedModel, window: int, negative: Tensor | None = None, seed: int = 0) -> "Material":
        """Noise drawn from the seed; no negative demonstrations unless given."""
        layers, heads, size = shape(model)
        length = min(window, LONGEST)
        drawn = generator(seed, "lrgd noise").standard_normal((layers, heads, length, size), dtype=np.float32)
        noise = torch.from_numpy(drawn).to(model.device, model.dtype)
        return cls(noise, noise.new_zeros(layers, heads, size) if negative is None else negative)


def shape(model: PreTrainedModel) -> tuple[int, int, int]:
    """Layers, key heads and head size of a decoder."""
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, heads, size


@dataclass(frozen=True)
class Step:
    """The changed dual step of one forward pass.

    Args:
        demonstration: True for demonstration tokens, shape ``[batch, n]``.
        positions: position of every token, shape ``[batch, n]``.
        strength: how much is changed.
        material: what the changes are made of.
    """

    demonstration: Tensor
    positions: Tensor
    strength: Strength
    material: Material

    def keys(self, key: Tensor, layer: int) -> Tensor:
        """Keys ``[batch, key heads, n, size]`` with noise on those of demonstrations."""
        size = key.norm(dim=-1, keepdim=True) * key.shape[-1] ** -0.5
        drawn = self.material.noise[layer]
        noise = drawn[:, self.positions % drawn.shape[1]].transpose(0, 1)
        shaken: Tensor = key + self.strength.eps * self.demonstration[:, None, :, None] * size * noise
        return shaken.to(key.dtype)

    def values(self, value: Tensor, layer: int) -> Tensor:
        """Values ``[batch, key heads, n, size]``, contrasted in demonstrations and smaller elsewhere."""
        contrasted = value - self.strength.beta * self.material.negative[layer][None, :, None]
        return torch.where(self.demonstration[:, None, :, None], contrasted, (1 - self.strength.alpha) * value)


def step_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    step: Step | None = None,
    packed: Packed | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention with a changed dual step; the signature is that of transformers.

    Args:
        module: the attention layer.
        query: shape ``[batch, heads, n, size]``.
        key: shape ``[batch, key heads, n, size]``.
        value: shape ``[batch, key heads, n, size]``.
        attention_mask: as for the library's scaled dot product attention.
        step: what is changed; nothing if None.
        packed: the layout, where answers share a prompt.
        options: passed on.

    Returns:
        Shape ``[batch, n, heads, size]``, and no weights.
    """
    if step is not None:
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        key, value = step.keys(key, layer), step.values(value, layer)
    if packed is not None:
        return packed_attention(query, key, value, packed, options.get("scaling")), None
    output, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **options)
    return output, None


def step_implementation(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Let the model use :func:`step_attention`; its forward pass then takes ``step`` and ``packed``."""
    return installed(model, NAME, step_attention)


def mean_values(traces: list[Trace], tokens: Tensor) -> Tensor:
    """Mean value of some tokens in every layer, shape ``[layers, key heads, size]``.

    Args:
        traces: of one forward pass.
        tokens: True for the tokens, shape ``[batch, n]``.
    """
    values = (trace.value[:, :: trace.repeats].detach().transpose(1, 2)[tokens] for trace in traces)
    return torch.stack([value.mean(0) for value in values])
