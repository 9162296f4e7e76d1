"""Embedded backbones by name: shipped for the embedded protocol, else trained once and kept in the cache."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.fingerprint import fingerprint
from data.prompts.template import Template
from methods.base import NotRunnable, Task
from methods.lm.tiny import TinyLlama, train_tiny_llama
from methods.lm.tiny_t5 import TinyT5, train_tiny_t5

log = logging.getLogger(__name__)
SHIPPED = Path(__file__).parent / "weights"
"""Folders as the cache holds them: copy one from ``.cache/backbones`` here, under the name of its recipe."""
WEIGHTS, FACTS, SECONDS = "model.safetensors", "training.json", "seconds.txt"


@dataclass(frozen=True)
class Recipe:
    """How an embedded backbone is made.

    Args:
        architecture: what it becomes.
        settings: a frozen dataclass with at least ``steps``, ``window`` and ``seed``.
        train: makes and trains it; gives model, tokenizer and number of tokens seen.
        version: raised whenever the same settings would give another model.
    """

    architecture: Literal["decoder", "encoder-decoder"]
    settings: Any
    train: Callable[..., tuple[PreTrainedModel, PreTrainedTokenizerBase, int]]
    version: int = 1


RECIPES: dict[str, Recipe] = {
    "tiny-llama": Recipe("decoder", TinyLlama(), train_tiny_llama),
    "tiny-t5": Recipe("encoder-decoder", TinyT5(), train_tiny_t5),
}
"""Embedded backbones; their training sees the training part and the seen templates, and nothing else."""


def embedded(name: str, task: Task, changes: Mapping[str, Any]) -> tuple[Path, float]:
    """Folder with an embedded backbone for the training part of a task: shipped, from the cache, or trained now.

    Weights are shipped for the embedded protocol alone; for any other split, titles, seen templates or settings
    the key differs and they are not used. Two processes that need the same backbone train it once: the second
    waits for the first.

    Returns:
        The folder, and the seconds that its training had taken, where it came from the cache.

    Raises:
        NotRunnable: if the task has no seen template to learn questions from or no user with two training items, a
            setting is unknown, or shipped weights are damaged.
    """
    recipe = RECIPES[name]
    unknown = changes.keys() - {field.name for field in fields(recipe.settings)}
    if unknown:
        raise NotRunnable(f"backbone {name!r} has no setting {sorted(unknown)[0]!r}")
    settings = replace(recipe.settings, **changes)
    templates = task.templates.get("recommend")  # of one role, so that it is the same for methods with others beside it
    if not templates:
        raise NotRunnable(f"backbone {name!r} learns from seen templates of role 'recommend', and there is none")
    if task.train.lengths.max(initial=0) < 2:
        raise NotRunnable(f"{name} learns from users with two or more training items, and there are none")
    key = cache_key(name, recipe, settings, task)
    if (shipped := shipped_folder(name, key)) is not None:
        return shipped, 0.0
    folder = task.compute.cache / "backbones" / f"{name}-{key[:20]}"
    return folder, kept(folder, lambda scratch: _train_into(scratch, recipe, settings, task, templates, key))


def kept(folder: Path, make: Callable[[Path], None]) -> float:
    """Have a folder of the cache, filled by ``make`` if it is not there; it appears only when it is complete.

    Two processes that need the same folder make it once: the second waits for the first.

    Returns:
        Seconds it took when it was made, if that was not now; without those that were waited for it.
    """
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    asked = time.monotonic()
    with FileLock(f"{folder}.lock"):
        if folder.exists():
            waited, spent = round(time.monotonic() - asked, 1), folder / SECONDS  # older folders lack it
            return max(0.0, float(spent.read_text(encoding="utf-8")) - waited) if spent.exists() else 0.0
        scratch, start = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)), time.monotonic()
        try:
            make(scratch)
            (scratch / SECONDS).write_text(f"{time.monotonic() - start:.3f}", encoding="utf-8")
            os.replace(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return 0.0


def cache_key(name: str, recipe: Recipe, settings: Any, task: Task) -> str:
    """SHA-256 of all an embedded backbone depends on."""
    wording = [(t.source, t.labels, t.style) for t in task.templates["recommend"]]
    shown = (task.catalogue.titles, task.catalogue.domain, task.train, wording)
    return fingerprint(name, recipe.version, settings, *shown)


def shipped_folder(name: str, key: str) -> Path | None:
    """Folder of the weights that come with the project, if they are for this key.

    Raises:
        NotRunnable: if the weights are not those that were shipped.
    """
    folder = SHIPPED / name
    if not (folder / FACTS).exists():
        return None
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    if facts["key"] != key:
        return None
    if _sha256(folder / WEIGHTS) != facts["sha256"]:
        raise NotRunnable(f"{folder / WEIGHTS} is damaged: its SHA-256 is not that of the shipped file; reinstall")
    return folder


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _train_into(
    folder: Path, recipe: Recipe, settings: Any, task: Task, templates: Sequence[Template], key: str
) -> None:
    """Train and save."""
    start = time.monotonic()
    model, tokenizer, tokens = recipe.train(settings, task.catalogue, task.train, templates)
    seconds = time.monotonic() - start
    log.info("%s: %d tokens in %.0f s", type(settings).__name__, tokens, seconds)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    facts = {
        "key": key,
        "sha256": _sha256(folder / WEIGHTS),
        "settings": asdict(settings),
        "tokens": tokens,
        "seconds": round(seconds, 1),
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
