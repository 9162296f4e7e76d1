"""Any OpenAI-compatible endpoint, through the ``openai`` package.

The package itself waits and tries again on 408, 409, 429, 5xx, time-outs and broken connections: doubling
pauses with jitter, or what Retry-After says, up to two minutes. Here is added what it leaves out: answers
that are no valid JSON, parameters that a model does not take, and counting attempts. Base URL and key come
from the environment variables OPENAI_BASE_URL and OPENAI_API_KEY; they are neither logged nor stored nor
shown in messages.
"""

import json
import logging
import os
import random
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from methods.lm.answers import Answer, Generation, LlmError, judge
from methods.lm.lazy import Lazy

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletion

log = logging.getLogger(__name__)

INSTEAD: Mapping[str, str | None] = {"max_tokens": "max_completion_tokens", "temperature": None, "seed": None}
"""What is sent where an endpoint refuses a parameter: another name for it, or nothing. Reasoning models refuse the
first two, other servers do not know the new name."""

RESUME = "all answers so far are kept: run the same command again to go on"


@dataclass
class Endpoint(Lazy):
    """A model behind an endpoint.

    Args:
        model: its name there.
        parallel: requests under way at once.
        retries: how often a failed request is repeated at most.
        timeout: seconds to wait for an answer.
    """

    model: str
    parallel: int = 8
    retries: int = 6
    timeout: float = 120.0
    batch_size: int = 1
    _refused: set[str] = field(default_factory=set, init=False, repr=False)

    def answers(self, prompts: Sequence[str], generation: Generation, attempts: int) -> tuple[list[Answer], int]:
        """The answer to one prompt.

        Raises:
            LlmError: if the endpoint cannot be reached, refuses the key or the model, or keeps failing.
        """
        (prompt,) = prompts
        used = 0
        while used < attempts:
            body = request_body(self.model, prompt, generation, self._refused)
            answer, taken = self._attempt(body, attempts - used)
            used += taken
            if answer is not None:
                return [answer], used
            if used < attempts:
                time.sleep(min(0.5 * 2**used, 8.0) * random.uniform(0.75, 1.0))
        raise LlmError(f"the endpoint's answers are no valid chat completions, {used} times in a row; {RESUME}")

    @cached_property
    def _client(self) -> "OpenAI":
        import openai

        for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)  # below that they log the URL of every request
        url, secret = os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_API_KEY")
        if not url and not secret:
            raise LlmError(
                "no endpoint: set the environment variables OPENAI_BASE_URL (of any OpenAI-compatible server) "
                "and OPENAI_API_KEY (if it wants a key)"
            )
        return openai.OpenAI(base_url=url or None, api_key=secret or "none", timeout=self.timeout)

    def _attempt(self, body: dict[str, Any], attempts: int) -> tuple[Answer | None, int]:
        """An answer, or None for one that is no valid completion or whose request must be another; and the requests."""
        import openai

        client = self._client.with_options(max_retries=attempts - 1)
        try:
            raw = client.chat.completions.with_raw_response.create(**body)
        except openai.BadRequestError as error:
            # the request says itself how many came before it
            taken = int(error.request.headers.get("x-stainless-retry-count", 0)) + 1
            if error.code in ("content_filter", "content_policy_violation"):
                return Answer(str(error.code), "refused"), taken
            if error.param in body and error.param in INSTEAD:
                self._do_without(error.param)
                return None, taken
            raise LlmError(self._explain(error)) from None
        except openai.OpenAIError as error:
            raise LlmError(self._explain(error)) from None
        try:
            answer = read_completion(raw.parse(), body["messages"][0]["content"])
            return answer, raw.retries_taken + 1
        except (json.JSONDecodeError, UnicodeDecodeError, openai.APIResponseValidationError, TypeError, AttributeError):
            return None, raw.retries_taken + 1

    def _do_without(self, parameter: str) -> None:
        if parameter not in self._refused:
            self._refused.add(parameter)
            instead = INSTEAD[parameter] or "what it takes by default"
            log.warning("%s does not take %s: asked with %s instead", self.model, parameter, instead)

    def _explain(self, error: Exception) -> str:
        """What went wrong, without what must not be shown; the cause is not chained, it holds the request."""
        import openai

        detail = str(error)
        for secret in filter(None, (os.environ.get("OPENAI_API_KEY"), os.environ.get("OPENAI_BASE_URL"))):
            detail = detail.replace(secret, "***")
        detail = " ".join(detail.split())[:300]
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return f"the endpoint refuses the key: check OPENAI_API_KEY (HTTP {error.status_code})"
        if isinstance(error, openai.NotFoundError):
            return f"the endpoint has no model {self.model!r}, or OPENAI_BASE_URL lacks its /v1 ({detail})"
        if isinstance(error, openai.APITimeoutError):
            return f"the endpoint did not answer within {self.timeout:g} seconds, even after trying again; {RESUME}"
        if isinstance(error, openai.APIConnectionError):
            return f"the endpoint cannot be reached: check OPENAI_BASE_URL ({detail}); {RESUME}"
        return f"the endpoint does not answer ({detail}); {RESUME}"


def request_body(
    model: str, prompt: str, generation: Generation, refused: Collection[str] = frozenset()
) -> dict[str, Any]:
    """A chat completion request, without the parameters that the model has refused."""
    wanted = {name: getattr(generation, name) for name in INSTEAD}
    sent = {INSTEAD[name] if name in refused else name: value for name, value in wanted.items()}
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        **{name: value for name, value in sent.items() if name is not None},
    }


def read_completion(completion: "ChatCompletion", prompt: str) -> Answer:
    """The answer in a chat completion; tokens that the endpoint does not count are estimated.

    Raises:
        TypeError, AttributeError: if it is none: no choice, or a part of it that is not even an object.
    """
    choices = getattr(completion, "choices", None)
    if not isinstance(choices, list) or not choices or getattr(choices[0], "message", None) is None:
        raise TypeError("no choice in the completion")
    message, usage = choices[0].message, completion.usage
    text, problem = judge(message.content, choices[0].finish_reason, getattr(message, "refusal", None))
    return Answer(text, problem, _tokens(usage, "prompt_tokens", prompt), _tokens(usage, "completion_tokens", text))


def _tokens(usage: object, name: str, text: str) -> int:
    counted = getattr(usage, name, None)
    return counted if isinstance(counted, int) else len(text) // 4 + 1
