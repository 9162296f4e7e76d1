"""Recorded answers of a language model: read-only, free, offline."""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

from methods.lm.answers import LlmError


@dataclass(frozen=True)
class Recorded:
    """Answers by the SHA-256 of their prompt.

    Args:
        by_request: first answer to each prompt.
        by_subject: answer to each prompt for each item: two items may share a title and so a prompt.
    """

    by_request: dict[str, str]
    by_subject: dict[tuple[str, str], str]

    @classmethod
    def read(cls, path: Path) -> "Recorded":
        """The answers of a JSON Lines file with item_id, request_sha256 and response.

        Raises:
            LlmError: for a line that lacks one of them, or has it not as a text; for a file that is none.
        """
        by_request: dict[str, str] = {}
        by_subject: dict[tuple[str, str], str] = {}
        for number, line in enumerate(io.StringIO(recorded_text(path)), start=1):
            try:
                record = json.loads(line)
                item, request, response = (_text(record[k]) for k in ("item_id", "request_sha256", "response"))
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise LlmError(
                    f"{path}:{number}: not a recorded answer with item_id, request_sha256 and response ({error})"
                ) from error
            by_request.setdefault(request, response)
            by_subject[request, item] = response
        return cls(by_request, by_subject)

    def get(self, prompt: str, subject: str | None = None) -> str | None:
        """The answer to a prompt, that for ``subject`` before others; None if there is none."""
        request = hashlib.sha256(prompt.encode()).hexdigest()
        if subject is not None and (request, subject) in self.by_subject:
            return self.by_subject[request, subject]
        return self.by_request.get(request)


def recorded_text(path: Path) -> str:
    """The text of a file of recorded answers.

    Raises:
        LlmError: if it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LlmError(f"{path}: recorded answers cannot be read: {error}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
