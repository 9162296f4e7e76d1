"""Models and their parts by name: local folders and Hugging Face ids."""

import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from safetensors import SafetensorError

from data.spelling import near
from methods.base import NotRunnable
from methods.lm.embedded import RECIPES


class BackboneError(NotRunnable):
    """A backbone cannot be had, or not for this method."""


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


def load_model(
    auto: Any, name: str, source: Mapping[str, Any], what: str = "backbone", spare: str = "-", **how: Any
) -> Any:
    """A model with all its weights.

    Args:
        auto: which of the automatic classes of transformers loads it.
        name: as it was asked for.
        source: from :func:`source_of`.
        what: what the model is to be, for messages.
        spare: how the names of weights begin that nobody reads.
        how: more arguments of ``from_pretrained``.

    Raises:
        BackboneError: if it cannot be loaded, or random weights would stand in for some that it lacks.
    """
    # What transformers leaves in single precision beside float16, because it would overflow, stays so.
    loaded, read = load_part(auto, name, {**source, **how, "output_loading_info": True}, what)
    missing = dict(loaded.named_parameters()).keys() & read["missing_keys"]
    if lacking := sorted(name for name in missing if not name.startswith(spare)):
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
        raise BackboneError(f"cannot load {what} {name!r}: {reason}{embedded * what.endswith('backbone')}") from error


def first_line(error: Exception) -> str:
    """What an error says, without the lists that follow; of a list alone its first entry."""
    first, *others = str(error).strip().splitlines() or [type(error).__name__]
    return f"{first.rstrip()} {others[0].strip()}" if first.rstrip().endswith(":") and others else first


def quiet_transformers() -> None:
    """Send what transformers says to logging instead of the terminal, and show no bars of its own."""
    from huggingface_hub.utils.tqdm import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_default_handler()
    transformers_logging.enable_propagation()
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    logging.captureWarnings(True)
