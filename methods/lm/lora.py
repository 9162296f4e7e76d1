"""Low-rank adapters (Hu et al., 2021) through peft."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from methods.lm.hub import BackboneError

if TYPE_CHECKING:
    from peft import PeftModel

TARGETS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("t5", "mt5"), ("q", "v")),
    "gpt2": ("c_attn",),
    "phi3": ("qkv_proj",),
    **dict.fromkeys(("gpt_neox", "bloom", "falcon"), ("query_key_value",)),
}
"""Projections that get an adapter, by family. Some have queries, keys and values in one matrix."""
DEFAULT_TARGETS = ("q_proj", "v_proj")


@dataclass(frozen=True)
class Lora:
    """Size and place of the adapters.

    Args:
        rank: rank of the update.
        alpha: the update is scaled by ``alpha / rank``.
        dropout: share of the inputs of an adapter set to zero in training.
        targets: names of the adapted layers; those of queries and values of the family if empty.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.05
    targets: tuple[str, ...] = ()


def add_lora(model: PreTrainedModel, lora: Lora, seed: int = 0) -> "PeftModel":
    """The model with fresh adapters in place, which alone learn; at first they change nothing.

    Raises:
        BackboneError: if the model has none of the layers to adapt.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    kind = model.config.model_type
    targets = lora.targets or TARGETS.get(kind, DEFAULT_TARGETS)
    task = TaskType.SEQ_2_SEQ_LM if model.config.is_encoder_decoder else TaskType.CAUSAL_LM
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(targets),
        fan_in_fan_out=kind == "gpt2",
        task_type=task,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            raise BackboneError(f"{kind} models have no layers {', '.join(targets)} to adapt: {error}") from error


def save_adapters(model: "PeftModel", folder: Path) -> None:
    """Write the adapters, and only them, into a folder."""
    model.save_pretrained(str(folder))


def load_adapters(model: PreTrainedModel, folder: Path) -> "PeftModel":
    """The model with the adapters of a folder."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder)).eval()


def inner(model: "PeftModel") -> PreTrainedModel:
    """The model under the adapters; its forward pass goes through them."""
    found: PreTrainedModel = model.get_base_model()  # type: ignore[assignment]
    return found


def merged(model: "PeftModel") -> PreTrainedModel:
    """The model with its adapters added to the weights where that is exact: the same scores without their cost.

    Weights of half precision, and quantised ones, are too coarse for what the adapters add: there they stay beside
    them, without dropout.
    """
    from peft.tuners.lora import LoraLayer

    if inner(model).dtype != torch.float32 or getattr(inner(model), "is_quantized", False):
        for module in model.modules():
            if isinstance(module, LoraLayer):
                module.lora_dropout.update({name: torch.nn.Identity() for name in module.lora_dropout})
        return inner(model)
    result: PreTrainedModel = model.merge_and_unload(safe_merge=True)
    return result
