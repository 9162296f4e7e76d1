"""Big jobs through the OpenAI Batch API: requests to a JSON Lines file, and its results into the cache.

Source: https://platform.openai.com/docs/guides/batch. The file is uploaded and the results fetched by
hand or with the provider's own tool; a request's ``custom_id`` is what its answer is filed under.
"""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods.lm.answers import Answer, LlmError, judge, key
from methods.lm.client import LlmClient
from methods.lm.endpoint import Endpoint, request_body
from methods.lm.store import Store


def export_batch(client: LlmClient, prompts: Sequence[str], path: Path) -> int:
    """Write a request for every prompt whose answer is not known, or was unusable the first time.

    Returns:
        The number of requests.

    Raises:
        LlmError: if the client asks no endpoint.
    """
    if not isinstance(client.backend, Endpoint):
        raise LlmError("a batch needs a model of an endpoint: give --llm endpoint:MODEL")
    requests = client.open_requests(prompts)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for prompt, generation in requests:
            body = request_body(client.backend.model, prompt, generation)
            line = {
                "custom_id": key(client.backend.model, prompt, generation),
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": body,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return len(requests)


@dataclass(frozen=True)
class Imported:
    """What a results file brought.

    Args:
        answers: answers stored, usable or not.
        failed: requests without an answer, by status; they stay open.
    """

    answers: int
    failed: Counter[str]


def import_batch(client: LlmClient, path: Path) -> Imported:
    """Store the answers of a results file; importing it twice changes nothing.

    Raises:
        LlmError: for a line that is no batch result. A torn last line is left out: its request stays open.
    """
    answers: dict[str, bytes] = {}
    failed: Counter[str] = Counter()
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            result = json.loads(line)
            status, body = _response(result)
            if status == "200":
                answers[result["custom_id"]] = _answer(body).to_json().encode()
            else:
                failed[status] += 1
        except (json.JSONDecodeError, UnicodeDecodeError, LookupError, TypeError, AttributeError) as error:
            if number == len(lines):
                failed["torn line"] += 1
                continue
            raise LlmError(f"{path}:{number}: not a result of the OpenAI Batch API ({error!r})") from error
    with closing(Store(client.cache)) as store:
        store.put(answers)
    return Imported(len(answers), failed)


def _response(result: dict[str, Any]) -> tuple[str, Any]:
    if result.get("error"):
        return str(result["error"].get("code", "error")), None
    return str(result["response"]["status_code"]), result["response"]["body"]


def _answer(body: dict[str, Any]) -> Answer:
    choice, usage = body["choices"][0], body.get("usage") or {}
    text, problem = judge(
        choice["message"].get("content"), choice.get("finish_reason"), choice["message"].get("refusal")
    )
    return Answer(text, problem, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
