"""Backbones by name: embedded ones, local folders and Hugging Face ids."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from methods.base import Task
from methods.lm.embedded import FACTS, RECIPES, embedded
from methods.lm.hub import BackboneError, load_model, load_part, quiet_transformers, source_of
from methods.lm.prompts import Encoder
from methods.lm.t5 import FAMILIES

log = logging.getLogger(__name__)
Architecture = Literal["decoder", "encoder-decoder"]
DEFAULT_WINDOW = 512
AUTO: Mapping[Architecture, Any] = {"decoder": AutoModelForCausalLM, "encoder-decoder": AutoModelForSeq2SeqLM}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Backbone:
    """A language model ready for use.

    Args:
        model: in evaluation mode, on its device.
        tokenizer: with a pad token.
        architecture: ``decoder`` or ``encoder-decoder``.
        description: what it is, for the ledger.
        window: longest sequence in tokens.
        embedded: whether it was made here; its tokenizer works on pieces between white space and punctuation.
        tokens: tokens it was trained on here; 0 for one that came trained.
        reused: seconds that training had taken, where it came from the cache.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    architecture: Architecture
    description: str
    window: int
    embedded: bool = False
    tokens: int = 0
    reused: float = 0.0

    def encoder(self) -> Encoder:
        """An encoder of prompts for this backbone."""
        return Encoder(self.tokenizer, self.window, self.embedded)


def load_backbone(
    task: Task,
    default: str,
    accepts: Sequence[Architecture] = ("decoder", "encoder-decoder"),
    steps: int | None = None,
) -> Backbone:
    """The backbone that ``task.compute`` names, or the default.

    Args:
        task: names backbone, revision, dtype, device and cache; embedded backbones learn from its
            training part and seen templates.
        default: backbone of the method where none is named.
        accepts: architectures the method can use.
        steps: of training an embedded backbone, where that is not for its recipe to say.

    Raises:
        BackboneError: if there is no such backbone, it cannot be reached, lacks weights or vectors of its
            tokens, or its architecture is wrong or scored wrong.
        NotRunnable: if an embedded one cannot be made here, as :func:`methods.lm.embedded.embedded` says.
    """
    quiet_transformers()
    compute = task.compute
    name, dtype = compute.backbone or default, floating(compute.dtype)
    if name in RECIPES:
        _check_architecture(name, RECIPES[name].architecture, accepts)  # before it is trained
        made = read_embedded(name, *embedded(name, task, {} if steps is None else {"steps": steps}))
        return replace(made, model=_placed(made.model, device=compute.device, dtype=dtype))
    source = source_of(name, compute.revision)
    config = load_part(AutoConfig, name, source)
    architecture: Architecture = "encoder-decoder" if config.is_encoder_decoder else "decoder"
    _check_architecture(name, architecture, accepts)
    if config.is_encoder_decoder and config.model_type not in FAMILIES:
        known = f"encoder-decoders known here are {', '.join(FAMILIES)}"
        raise BackboneError(f"backbone {name!r} is {config.model_type}, which cannot score: {known}{_instead(accepts)}")
    tokenizer = load_part(AutoTokenizer, name, source, "tokenizer of backbone")
    loaded = load_model(AUTO[architecture], name, source, dtype=dtype)
    _check_tokens(name, loaded, tokenizer)
    model = _placed(loaded, device=compute.device)
    if architecture == "decoder":
        _check_decoder(name, model, accepts)
    if tokenizer.pad_token is None:
        # Padding is masked everywhere; the token only has to exist.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        log.info("%s has no pad token: using %r", name, tokenizer.pad_token)
    commit = getattr(config, "_commit_hash", None)
    size = sum(parameter.numel() for parameter in model.parameters())
    facts = [f"{name}{f' at {commit[:12]}' if commit else ''}", config.model_type, f"{size / 1e6:.1f} M parameters"]
    if getattr(model, "is_quantized", False):
        facts.append(f"quantised, the rest {str(model.dtype).removeprefix('torch.')}")
    if architecture == "decoder":
        starts = tokenizer.bos_token is not None and tokenizer("a").input_ids[0] == tokenizer.bos_token_id
        facts.append(f"prompts begin with {tokenizer.bos_token!r}" if starts else "prompts without a start token")
    return Backbone(model, tokenizer, architecture, ", ".join(facts), window(config, tokenizer))


def read_embedded(name: str, folder: Path, reused: float = 0.0) -> Backbone:
    """An embedded backbone from a folder that :func:`methods.lm.embedded.embedded` has found."""
    architecture = RECIPES[name].architecture
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    model = AUTO[architecture].from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    size, tokens = sum(parameter.numel() for parameter in model.parameters()), facts["tokens"]
    description = f"{name} ({size / 1e6:.2f} M parameters, {tokens / 1e6:.2f} M tokens of the training part)"
    longest = facts["settings"]["window"]
    return Backbone(model, tokenizer, architecture, description, longest, embedded=True, tokens=tokens, reused=reused)


def _placed(model: Any, **to: Any) -> PreTrainedModel:
    """The model on its device and in evaluation mode."""
    placed: PreTrainedModel = model.to(**to).eval()
    return placed


def floating(name: str) -> torch.dtype:
    """A torch floating point type by name.

    Raises:
        BackboneError: for one that language models do not compute in.
    """
    if name not in DTYPES:
        raise BackboneError(f"no floating point type {name!r}: dtypes are {', '.join(DTYPES)}")
    return DTYPES[name]


def window(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, unsaid: int = DEFAULT_WINDOW) -> int:
    """Longest sequence of a model in tokens; ``unsaid`` where neither model nor tokenizer says.

    Models with longrope (Ding et al., 2024) turn all positions of a batch by other angles once one lies beyond the
    length they were first trained with: they get no longer prompts than that, which depend on nothing else.
    """
    config = config.get_text_config()  # of models that read images, too, the part that reads texts
    told = [
        getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len")
    ]
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        told += [source.get("original_max_position_embeddings") for source in (rope, vars(config))]
    limits = [limit for limit in (*told, tokenizer.model_max_length) if limit and limit < 1e9]
    return min(limits) if limits else unsaid


def _check_architecture(name: str, architecture: Architecture, accepts: Sequence[Architecture]) -> None:
    if architecture not in accepts:
        needed = f"but this method needs {' or '.join(accepts)}"
        raise BackboneError(f"backbone {name!r} is {architecture}, {needed}{_instead(accepts)}")


def _check_tokens(name: str, model: Any, tokenizer: Any) -> None:
    """See that the model has a vector for every token of texts; tokens added to those may lack one."""
    rows, last = model.get_input_embeddings().num_embeddings, max([tokenizer.vocab_size - 1, *tokenizer("a").input_ids])
    if last >= rows:
        told = f"has vectors of {rows} tokens and a tokenizer with token {last}"
        raise BackboneError(f"backbone {name!r} {told}: they do not belong together")


def _check_decoder(name: str, model: Any, accepts: Sequence[Architecture]) -> None:
    """See that scoring, which computes common beginnings once and no more than the output layer, fits the model.

    Some models see what comes after, some cap or scale their logits or have a layer in between; configurations have no
    common name for it.
    """
    if model.base_model is model:
        kind = "whose states transformers does not show apart from its output layer"
        raise _wrong(name, model, kind, accepts)
    tokens = torch.arange(8, device=model.device)[None]
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = model.get_output_embeddings().register_forward_hook(lambda _, read, made: calls.append((read[0], made)))
    with torch.inference_mode():
        logits = model(input_ids=tokens, use_cache=False).logits
        states, early = (
            model.base_model(input_ids=shown, use_cache=False).last_hidden_state for shown in (tokens, tokens[:, :4])
        )
    hook.remove()
    read, made = calls[0]
    kept = torch.allclose(made.float(), logits.float(), 0.0, 0.0, equal_nan=True)
    # In half precision, two passes over the same tokens may differ.
    if not kept or read.shape != states.shape or (read - states).norm() > 0.1 * states.norm():
        kind = "whose logits are not those of its output layer"
    elif (states[:, :4] - early).norm() > 0.1 * early.norm():
        kind = "which sees what comes after a token"
    else:
        return
    raise _wrong(name, model, kind, accepts)


def _wrong(name: str, model: Any, kind: str, accepts: Sequence[Architecture]) -> BackboneError:
    family = model.config.model_type
    return BackboneError(f"backbone {name!r} is {family}, {kind}: it would be scored wrong{_instead(accepts)}")


def _instead(accepts: Sequence[Architecture]) -> str:
    fitting = [name for name, recipe in RECIPES.items() if recipe.architecture in accepts]
    return f"; embedded ones are {', '.join(fitting)}" if fitting else ""
