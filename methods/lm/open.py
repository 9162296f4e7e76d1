"""A language-model client from what a user types: ``recorded``, ``endpoint:MODEL`` or ``local:MODEL``."""

from dataclasses import dataclass
from pathlib import Path

from data import recorded
from methods.base import Compute
from methods.lm.answers import Backend, LlmError
from methods.lm.budget import LlmBudget
from methods.lm.client import LlmClient
from methods.lm.recorded import Recorded

FORMS = "recorded, recorded:FILE, endpoint:MODEL or local:MODEL"


@dataclass(frozen=True)
class LlmChoice:
    """Which language model, at what cost.

    Args:
        llm: ``recorded`` for the data set's recorded answers, ``recorded:FILE`` for those of a file,
            ``endpoint:MODEL`` for a model of the OpenAI-compatible endpoint that the environment variables
            OPENAI_BASE_URL and OPENAI_API_KEY name, ``local:MODEL`` for a Hugging Face id or folder.
        budget: hard caps, such as ``requests=1000,tokens=2e6``.
        run: what the caps hold for; empty for one method.
        parallel: requests under way at once.
    """

    llm: str = "recorded"
    budget: str = ""
    run: str = ""
    parallel: int = 8


def recorded_file(llm: str, dataset: str, cache: Path) -> Path | None:
    """The recorded answers that a choice of language model reads, None if there are none.

    Without a file of its own a data set has those of the suite, or those filled in on this machine.
    """
    kind, _, name = llm.partition(":")
    if kind != "recorded" or name:
        return Path(name) if kind == "recorded" else None
    filled = cache / "recorded" / f"{dataset}.jsonl"
    return recorded.path(dataset) or (filled if filled.is_file() else None)


def checked_budget(choice: LlmChoice) -> LlmBudget:
    """The budget of a choice of one of the known forms.

    Raises:
        LlmError: for another form, no request at once, or what is no budget.
    """
    kind, _, name = choice.llm.partition(":")
    if kind != "recorded" and not (name and kind in ("endpoint", "local")):
        raise LlmError(f"llm {choice.llm!r}: give {FORMS}")
    if choice.parallel < 1:
        raise LlmError(f"at least 1 request is under way at once, not {choice.parallel}")
    return LlmBudget.parse(choice.budget)


def open_client(choice: LlmChoice, dataset: str, compute: Compute) -> LlmClient:
    """The client; loads no model yet.

    Args:
        choice: whom to ask.
        dataset: whose recorded answers.
        compute: where the cache is; device and type of a local model.

    Raises:
        LlmError: if the choice is none of the known forms, or what it names is not there.
    """
    budget = checked_budget(choice)
    kind, _, name = choice.llm.partition(":")
    cache = compute.cache / "answers.sqlite"
    if kind == "recorded":
        file = recorded_file(choice.llm, dataset, compute.cache)
        if file is None:
            raise LlmError(f"there are no recorded answers for {dataset}")
        if not file.is_file():
            raise LlmError(f"{file}: no such file of recorded answers")
        return LlmClient(recorded=Recorded.read(file), cache=cache)
    backend: Backend
    if kind == "endpoint":
        from methods.lm.endpoint import Endpoint

        backend = Endpoint(name, parallel=choice.parallel)
    else:
        from methods.lm.local import LocalModel

        backend = LocalModel(name, compute.device, compute.dtype)
    return LlmClient(backend, cache=cache, budget=budget, run=choice.run)
