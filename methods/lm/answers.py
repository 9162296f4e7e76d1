"""What a language model is asked and what it answers."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, Protocol

from methods.base import NotRunnable

Problem = Literal["empty", "refused", "truncated", "non-text"]

REFUSAL = re.compile(
    r"i(['\u2019]m| am) (very |truly )?(?-i:sorry)\b|sorry,? (but )?i(['\u2019]\w+)? (?-i:[a-z])|as an ai\b"
    r"|(unfortunately,? )?i(['\u2019]m| am)? (can['\u2019]?t|cannot|can not|not able to|unable to) "
    r"(help|assist|provide|fulfil+|comply|describe|write|create|generate|answer|do)\b",
    re.IGNORECASE,
)
"""How answers begin that say no instead of answering; item texts, which may begin with a title, do not."""
THOUGHTS = re.compile(r"\A.*?</think>", re.DOTALL)
"""What some models write before their answer; chat templates may have begun it already."""


class LlmError(NotRunnable):
    """A language model could not be asked; what was answered before is kept."""


@dataclass(frozen=True)
class Generation:
    """Arguments of an answer.

    Args:
        max_tokens: most tokens of an answer.
        temperature: 0 for the most probable words.
        seed: seed of sampling, where the model has one.
    """

    max_tokens: int = 200
    temperature: float = 0.0
    seed: int = 0

    def again(self) -> "Generation":
        """Arguments for asking once more: room for twice as much, and sampled, so as not to repeat the first answer."""
        return replace(self, max_tokens=2 * self.max_tokens, temperature=max(self.temperature, 0.7), seed=self.seed + 1)


@dataclass(frozen=True)
class Answer:
    """An answer, usable or not.

    Args:
        text: what was said.
        problem: why it is not usable; None if it is.
        tokens_in: tokens of the prompt, as counted by the model.
        tokens_out: tokens of the answer.
    """

    text: str
    problem: Problem | None = None
    tokens_in: int = 0
    tokens_out: int = 0

    def to_json(self) -> str:
        """For the cache."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Answer":
        """From the cache."""
        return cls(**json.loads(text))


class Backend(Protocol):
    """Something that answers prompts.

    Attributes:
        parallel: how many calls of :meth:`answers` may be under way at once.
        batch_size: prompts per call.
        retries: how often a failed call is repeated at most.
    """

    parallel: int
    batch_size: int
    retries: int

    @property
    def model(self) -> str:
        """What the cache files answers under."""
        ...

    def answers(self, prompts: Sequence[str], generation: Generation, attempts: int) -> tuple[list[Answer], int]:
        """One answer per prompt, and how many requests it took (at most ``attempts``).

        Raises:
            LlmError: if there is no answer to be had.
        """
        ...


def key(model: str, prompt: str, generation: Generation) -> str:
    """What an answer is filed under: SHA-256 of model, prompt and arguments."""
    return hashlib.sha256(json.dumps([model, prompt, asdict(generation)]).encode()).hexdigest()


def judge(text: object, finish: str | None = None, refusal: object = None) -> tuple[str, Problem | None]:
    """An answer's text without surrounding space and the thoughts before it, and what is wrong with it.

    Args:
        text: the content of the answer.
        finish: why the model stopped, in the words of the OpenAI API.
        refusal: its refusal, where it says so apart.

    >>> judge("<think>Of films?</think> A fine film. ", "stop")
    ('A fine film.', None)
    >>> judge("I'm sorry, but I cannot help with that.", "stop")[1]
    'refused'
    """
    if refusal or finish == "content_filter":
        return str(refusal or text or ""), "refused"
    if text is not None and not isinstance(text, str):
        return json.dumps(text, default=str), "non-text"
    stripped = THOUGHTS.sub("", text or "").strip()
    if not stripped:
        return "", "non-text" if finish in ("tool_calls", "function_call") else "empty"
    if REFUSAL.match(stripped):
        return stripped, "refused"
    if not any(character.isalnum() for character in stripped) or "\ufffd" in stripped:
        return stripped, "non-text"
    return stripped, "truncated" if finish == "length" else None
