"""Fingerprints: SHA-256 over content, so that results of different inputs are never compared."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def fingerprint(*parts: object) -> str:
    """SHA-256 (hex) of arrays, dataclasses, strings, numbers and collections of them.

    The value depends on content only: neither on the machine nor on the order of mapping keys.

    Raises:
        TypeError: for a part that has no canonical form.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    >>> fingerprint(["ab"]) == fingerprint(["a", "b"])
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        _update(digest, part)
    return digest.hexdigest()


def stamps(folder: Path) -> list[str]:
    """Name, size and time of every file of a folder, by which another content is told."""
    return [f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in sorted(folder.iterdir())]


def _update(digest: "hashlib._Hash", part: object) -> None:
    if isinstance(part, np.ndarray):
        digest.update(f"array{part.dtype.str[1:]}{part.shape}".encode())
        for row in np.atleast_2d(part):  # one at a time: a broadcast array is far larger than what it holds
            digest.update(np.ascontiguousarray(row, dtype=part.dtype.newbyteorder("<")).tobytes())
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        _update(digest, {field.name: getattr(part, field.name) for field in dataclasses.fields(part)})
    elif isinstance(part, Mapping):
        _update(digest, sorted((str(key), value) for key, value in part.items()))
    elif isinstance(part, list | tuple):
        digest.update(f"list{len(part)}".encode())
        for element in part:
            _update(digest, element)
    elif part is None or isinstance(part, str | int | float | bool | np.integer | np.floating):
        scalar = part.item() if isinstance(part, np.generic) else part
        digest.update(json.dumps(scalar).encode() + b"\x1e")
    else:
        raise TypeError(f"no canonical form for a fingerprint: {type(part).__name__}")
