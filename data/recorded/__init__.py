"""Recorded answers of a large language model, one JSON Lines file per data set.

Each line has ``item_id``, ``prompt`` (template id), ``request_sha256`` (SHA-256 of the filled prompt in
UTF-8) and ``response``. They are read-only: what is asked anew goes to a run's own cache.
"""

from importlib import resources
from pathlib import Path


def path(dataset: str) -> Path | None:
    """The recorded answers of a data set, None if it has none."""
    file = Path(str(resources.files("data.recorded"))) / f"{dataset}.jsonl"
    return file if file.is_file() else None
