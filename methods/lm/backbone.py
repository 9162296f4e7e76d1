"""Backbones by name: embedded ones, local folders and Hugging Face ids."""

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from data.spelling import near
from methods.base import NotRunnable, Task
from methods.lm.embedded import RECIPES, embedded
from methods.lm.prompts import Encoder
from methods.lm.t5 import FAMILIES

log = logging.getLogger(__name__)
Architecture = Literal["decoder", "encoder-decoder"]
DEFAULT_WINDOW = 512
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class BackboneError(NotRunnable):
    """A backbone cannot be had, or not for this method."""


@dataclass(frozen=True)
class Backbone:
    """A language model ready for use.

    Args:
        model: in evaluation mode, on its device.
        tokenizer: with a pad token.
        architecture: ``decoder`` or ``encoder-decoder``.
        description: what it is, for the ledger.
        window: longest sequence in tokens.
        local: whether its tokenizer works on pieces between white space and punctuation.
        tokens: tokens it was trained on here; 0 for one that came trained.
        reused: seconds that training had taken, where it came from the cache.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    architecture: Architecture
    description: str
    window: int
    local: bool = False
    tokens: int = 0
    reused: float = 0.0

    @property
    def embedded(self) -> bool:
        """Whether it was made here."""
        return self.local

    def encoder(self) -> Encoder:
        """An encoder of prompts for this backbone."""
        return Encoder(self.tokenizer, self.window, self.local)


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
        made = embedded(name, task, {} if steps is None else {"steps": steps})
        return Backbone(
            _placed(made.model, device=compute.device, dtype=dtype),
            made.tokenizer,
            made.architecture,
            made.description,
            made.window,
            local=True,
            tokens=made.tokens,
            reused=made.reused,
        )
    source = source_of(name, compute.revision)
    config = load_part(AutoConfig, name, source)
    architecture: Architecture = "encoder-decoder" if config.is_encoder_decoder else "decoder"
    _check_architecture(name, architecture, accepts)
    if config.is_encoder_decoder and config.model_type not in FAMILIES:
        known = f"encoder-decoders known here are {', '.join(FAMILIES)}"
        raise BackboneError(f"backbone {name!r} is {config.model_type}, which cannot score: {known}{_instead(accepts)}")
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    tokenizer = load_part(AutoTokenizer, name, source)
    loaded = load_model(auto, name, source, dtype=dtype)
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
    description = f"{name}{f' at {commit[:12]}' if commit else ''}, {config.model_type}, {size / 1e6:.1f} M parameters"
    return Backbone(model, tokenizer, architecture, description, window(config, tokenizer))


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
    """Longest sequence of a model in tokens; ``unsaid`` where neither model nor tokenizer says."""
    config = config.get_text_config()  # of models that read images, too, the part that reads texts
    told = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
    limits = [limit for limit in (*told, tokenizer.model_max_length) if limit and limit < 1e9]
    return min(limits) if limits else unsaid


def quiet_transformers() -> None:
    """Send what transformers says to logging instead of the terminal, and show no bars of its own."""
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_default_handler()
    transformers_logging.enable_propagation()
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    logging.captureWarnings(True)


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
    family = model.config.model_type
    raise BackboneError(f"backbone {name!r} is {family}, {kind}: it would be scored wrong{_instead(accepts)}")


def _instead(accepts: Sequence[Architecture]) -> str:
    fitting = [name for name, recipe in RECIPES.items() if recipe.architecture in accepts]
    return f"; embedded ones are {', '.join(fitting)}" if fitting else ""


def means_folder(name: str) -> bool:
    """Whether a name can only be that of a folder: ids of the hub have at most one slash, and no dot before it.

    >>> means_folder("./qwen"), means_folder("models/qwen/1"), means_folder("Qwen/Qwen2.5-0.5B")
    (True, True, False)
    """
    return (os.sep in name and name.count("/") != 1) or name.startswith((".", "~", "/"))


def source_of(name: str, revision: str | None = None) -> dict[str, Any]:
    """Where to load from: a folder, files fetched before, or the hub if it can be reached; for ``from_pretrained``."""
    if Path(name).is_dir():
        return {"pretrained_model_name_or_path": name, "local_files_only": True}
    source = {"pretrained_model_name_or_path": name, "revision": revision or "main"}
    if means_folder(name):
        raise BackboneError(f"no folder {name!r} to load a model from")
    return source | {"local_files_only": not _hub_reachable()}


def _hub_reachable() -> bool:
    """Whether the hub's name can be looked up; without this check every file is tried for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    try:
        socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def load_model(auto: Any, name: str, source: Mapping[str, Any], what: str = "backbone", **how: Any) -> Any:
    """A model with all its weights.

    Args:
        auto: which of the automatic classes of transformers loads it.
        name: as it was asked for.
        source: from :func:`source_of`.
        what: what the model is to be, for messages.
        how: more arguments of ``from_pretrained``.

    Raises:
        BackboneError: if it cannot be loaded, or random weights would stand in for some that it lacks.
    """
    # What transformers leaves in single precision beside float16, because it would overflow, stays so.
    loaded, read = load_part(auto, name, {**source, **how, "output_loading_info": True}, what)
    if lacking := sorted(dict(loaded.named_parameters()).keys() & read["missing_keys"]):
        raise BackboneError(f"{what} {name!r} comes without {', '.join(lacking[:3])}: random weights would stand in")
    return loaded


def load_part(auto: Any, name: str, source: Mapping[str, Any], what: str = "backbone") -> Any:
    """A configuration, tokenizer or model, arguments as for :func:`load_model`; code that comes with it is not run.

    Raises:
        BackboneError: if it cannot be loaded.
    """
    quiet_transformers()
    try:
        return auto.from_pretrained(**source, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        if isinstance(error, RuntimeError | SafetensorError):
            reason = f"its weights are damaged or do not fit its configuration ({first_line(error)})"
        elif not isinstance(error, OSError):
            reason = f"it cannot be read here ({first_line(error)})"
        elif Path(name).is_dir():
            reason = f"the folder does not hold it ({first_line(error)})"
        elif source["local_files_only"]:
            reason = (
                f"{name!r} is no folder here, its revision {source['revision']!r} was not fetched before, "
                "and the hub cannot be reached"
            )
        else:
            reason = f"{name!r} is no folder here, and the hub answers: {first_line(error)}"
        embedded = f". {near(name, RECIPES)}Embedded backbones, which need no network: {', '.join(RECIPES)}"
        raise BackboneError(f"cannot load {what} {name!r}: {reason}{embedded * (what == 'backbone')}") from error


def first_line(error: Exception) -> str:
    """What an error says, without the lists that follow."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
