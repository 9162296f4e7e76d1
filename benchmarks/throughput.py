"""How fast prompts are scored: ``python -m benchmarks.throughput``.

Every model scores the label words of the same requests with this project's scorer, with a plain padded
Hugging Face loop, and, if it is installed, with EleutherAI's lm-evaluation-harness. The weights are random:
speed does not depend on them. Prints a Markdown table, row by row.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.errors import positive, usage_errors
from benchmarks.machine import choose_device
from benchmarks.protocol import Protocol, prepare
from benchmarks.random_models import VOCABULARY, llama_1b, t5_base, tiny_llama, tiny_t5
from data.prompts.library import templates
from data.types import FloatArray
from methods.base import Requests

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


BATCH = 64
"""Prompts per forward pass of the plain loop and of lm-evaluation-harness."""


@dataclass(frozen=True)
class Case:
    """A model and how its candidates are asked about.

    Args:
        name: name in the table.
        model: makes it, with random weights, for a tokenizer.
        form: ``label_odds`` or, with the target in the decoder, ``decoded_odds``.
        t5: whether texts end as those for T5 do.
        large: whether it is measured only on request, with prompts tokenised whole, as those of hub models are.
        shared: leave out templates that name the target before the history, whose prompts share hardly a token.
    """

    name: str
    model: "Callable[[PreTrainedTokenizerBase], PreTrainedModel]"
    form: str = "label_odds"
    t5: bool = False
    large: bool = False
    shared: bool = False


CASES = (
    Case("tiny-llama", tiny_llama),
    Case("tiny-llama, target behind the history", tiny_llama, shared=True),
    Case("tiny-t5", tiny_t5, t5=True),
    Case("tiny-t5, target in the decoder", tiny_t5, "decoded_odds", t5=True),
    Case("T5 base", t5_base, t5=True, large=True),
    Case("T5 base, target in the decoder", t5_base, "decoded_odds", t5=True, large=True),
    Case("Llama 1B", llama_1b, large=True),
)


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Args:
        users: users to each of the twelve seen templates, with 100 candidates each.
        compared: candidates of each user that the slower ways score.
        rounds: how often all ways take turns; the fastest turn of each counts.
        warm: whether the turn before them, which does not count, is a whole one.
    """

    users: int
    compared: int
    rounds: int
    warm: bool = False


USUAL, LARGE = Effort(3, 100, 3), Effort(1, 8, 1)
GPU = Effort(10, 20, 2, warm=True)
"""A GPU is done with less in milliseconds."""


@dataclass(frozen=True)
class Row:
    """What was measured of one case.

    Args:
        name: name of the case.
        own: prompts per second of this project's scorer.
        plain: prompts per second of the padded loop.
        harness: prompts per second of lm-evaluation-harness; NaN if it is not installed.
        share: floating point operations per second of the matrix products of this project's scorer, as a share of
            those of large matrix products alone; on a CPU without those inside attention, which torch does not count.
        difference: largest difference between the scores and those of the padded loop; NaN where the two
            ask in different forms.
    """

    name: str
    own: float
    plain: float
    harness: float
    share: float
    difference: float


def matrix_rate(device: str, dtype: "torch.dtype") -> float:
    """Floating point operations per second of large square matrix products, measured for a second."""
    import torch

    size = 8192 if device.startswith("cuda") else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    a @ b
    _wait(device)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 1:
        a @ b
        _wait(device)
        count += 1
    return 2 * size**3 * count / (time.perf_counter() - start)


def plain_loop(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], labels: tuple[int, int]
) -> FloatArray:
    """Log-odds of two tokens after each text: padded batches, all logits, in the order given."""
    import torch

    odds = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            inputs = tokenizer(list(texts[start : start + BATCH]), padding=True, return_tensors="pt").to(model.device)
            inputs.pop("token_type_ids", None)
            if model.config.is_encoder_decoder:
                first = torch.full((len(inputs["input_ids"]), 1), model.config.decoder_start_token_id)
                logits = model(**inputs, decoder_input_ids=first.to(model.device)).logits[:, -1]
            else:
                last = inputs["attention_mask"].sum(1) - 1
                logits = model(**inputs).logits[torch.arange(len(last)), last]
            odds.append((logits[:, labels[0]] - logits[:, labels[1]]).float().cpu().numpy())
    return np.concatenate(odds).astype(np.float64)


def harness(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], labels: Sequence[str]
) -> None:
    """Log-likelihood of both label words after each text by lm-evaluation-harness.

    Raises:
        ImportError: if it is not installed.
    """
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    backend = "seq2seq" if model.config.is_encoder_decoder else "causal"
    wrapped = HFLM(pretrained=model, tokenizer=tokenizer, backend=backend, batch_size=BATCH, max_length=2048)
    pairs = [(text, f" {label}") for text in texts for label in labels]
    requests = [Instance("loglikelihood", {}, pair, index, ("throughput", 0, 1)) for index, pair in enumerate(pairs)]
    wrapped.loglikelihood(requests, disable_tqdm=True)


def harness_installed() -> bool:
    """Whether lm-evaluation-harness is here, and can be used with the transformers that are."""
    try:
        import lm_eval.models.huggingface  # noqa: F401
    except ImportError:
        return False
    return True


def prompts(requests: Requests) -> list[str]:
    """All prompts of the requests, row by row."""
    return [
        requests.prompt("recommend", row).with_value("target", requests.catalogue.titles[item]).text
        for row in range(len(requests))
        for item in requests.candidates[row].tolist()
    ]


def measure(case: Case, requests: Requests, effort: Effort, device: str, dtype: "torch.dtype", peak: float) -> Row:
    """Measure one case.

    Args:
        case: the model.
        requests: whom to rank what for.
        effort: how much of it is measured.
        device: torch device.
        dtype: torch type.
        peak: rate of large matrix products.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from methods.lm.encdec import EncDecScorer
    from methods.lm.prompts import Encoder
    from methods.lm.scoring import Scorer

    torch.manual_seed(0)
    tokenizer = tokenizer_for(case, requests)
    model: Any = case.model(tokenizer)
    model = model.to(device=device, dtype=dtype).eval()
    encoder = Encoder(tokenizer, 2048, local=not case.large)
    requests = sharing(requests) if case.shared else requests
    requests = each(requests, effort.users)
    few = replace(requests, candidates=requests.candidates[:, : effort.compared])
    texts = prompts(few)
    labels = few.templates["recommend"][0].labels
    yes, no = (encoder.word(word)[0] for word in labels)
    scorer: Any = (EncDecScorer if model.config.is_encoder_decoder else Scorer)(model, encoder)
    score = partial(getattr(scorer, case.form), role="recommend")
    ways: dict[str, tuple[Callable[[Any], Any], Any, Any]] = {
        "own": (score, requests, requests.select(np.arange(1))),
        "plain": (lambda texts: plain_loop(model, tokenizer, texts, (yes, no)), texts, texts[:BATCH]),
        "lm_eval": (lambda texts: harness(model, tokenizer, texts, labels), texts, texts[:2]),
    }
    if not harness_installed():
        del ways["lm_eval"]
    # The first call of everything is slower.
    results = {name: way(asked if effort.warm else first) for name, (way, asked, first) in ways.items()}
    seconds = dict.fromkeys(("own", "plain", "lm_eval"), math.nan)
    for _ in range(effort.rounds):
        for name, (way, asked, _) in ways.items():
            took, results[name] = _timed(partial(way, asked), device)
            seconds[name] = float(np.fmin(took, seconds[name]))
    with FlopCounterMode(display=False) as counter:  # sees its own thread alone
        getattr(replace(scorer, workers=1), case.form)(requests, "recommend")
    same = case.form == "label_odds"
    scores = results["own"][:, : effort.compared].ravel()
    return Row(
        case.name,
        own=requests.candidates.size / seconds["own"],
        plain=len(texts) / seconds["plain"],
        harness=len(texts) / seconds["lm_eval"],
        share=counter.get_total_flops() / seconds["own"] / peak,
        difference=float(np.abs(scores - results["plain"]).max()) if same else math.nan,
    )


def each(requests: Requests, users: int) -> Requests:
    """The first rows of each template, so many or fewer where there are no more."""
    ids = np.array([template.id for template in requests.templates["recommend"]])
    return requests.select(np.sort(np.concatenate([np.flatnonzero(ids == one)[:users] for one in np.unique(ids)])))


def sharing(requests: Requests) -> Requests:
    """The rows whose template names the target behind the history, so that candidates share what is before it."""
    slots = [template.slots for template in requests.templates["recommend"]]
    return requests.select(np.flatnonzero([names.index("target") > names.index("history") for names in slots]))


def tokenizer_for(case: Case, requests: Requests) -> "PreTrainedTokenizerBase":
    """A tokenizer that knows every word of the requests, in the form the case needs: of bytes for large decoders."""
    from methods.lm.encdec import BLANK
    from methods.lm.tiny_t5 import end_texts
    from methods.lm.words import word_tokenizer

    words = [*requests.catalogue.titles, *(template.source for template in requests.templates["recommend"])]
    labels = [f" {label}" for template in requests.templates["recommend"] for label in template.labels]
    if case.large and not case.t5:
        return byte_tokenizer([*words, *labels])
    tokenizer = word_tokenizer([*words, *labels, BLANK], 2048)
    if case.t5:
        end_texts(tokenizer)
    return tokenizer


def byte_tokenizer(texts: Sequence[str]) -> "PreTrainedTokenizerBase":
    """A byte-level BPE tokenizer, as Llama 3 has one, that has learnt the words of the texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY["llama-1b"],
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def _timed(action: Callable[[], Any], device: str) -> tuple[float, Any]:
    _wait(device)
    start = time.perf_counter()
    result = action()
    _wait(device)
    return time.perf_counter() - start, result


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


HEAD = """\
| model | prompts/s | plain loop | ratio | lm_eval | ratio | of matrix rate | difference |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def line(row: Row) -> str:
    """A row in Markdown.

    >>> line(Row("m", 50.0, 10.0, math.nan, 0.4, 1e-6))
    '| m | 50 | 10 | 5.0 | - | - | 40 % | 1e-06 |'
    """
    cells = (
        row.name,
        _short(row.own),
        _short(row.plain),
        f"{row.own / row.plain:.1f}",
        _short(row.harness),
        _or_dash(row.own / row.harness, ".1f"),
        f"{100 * row.share:.0f} %",
        _or_dash(row.difference, ".0e"),
    )
    return f"| {' | '.join(cells)} |"


def _short(rate: float) -> str:
    return _or_dash(rate, ".0f" if rate >= 100 else ".2g")


def _or_dash(value: float, style: str) -> str:
    return "-" if math.isnan(value) else format(value, style)


def problem_requests() -> Requests:
    """Test requests of 500 users of ml-100k, with seen templates."""
    made = prepare("ml-100k", Protocol(users=500), {"recommend": templates("recommend")})
    return made.test_requests()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:1, ... (default: %(default)s)")
    dtypes = ("float32", "bfloat16", "float16")
    parser.add_argument("--dtype", default="float32", choices=dtypes, help="of the weights (default: %(default)s)")
    parser.add_argument("--users", type=positive, help="test users per template (default: 3, 1 if large, 10 on a GPU)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: torch's own choice)")
    parser.add_argument("--large", action="store_true", help="also measure models of 220 M and 1.2 G parameters")
    given = parser.parse_args(arguments)
    import torch
    from tqdm import tqdm

    from methods.lm.backbone import floating
    from methods.lm.hub import quiet_transformers

    quiet_transformers()
    if given.threads:
        torch.set_num_threads(given.threads)
    with usage_errors(parser):
        device, requests = choose_device(given.device), problem_requests()
    cases = [case for case in CASES if given.large or not case.large]
    name, dtype = torch.cuda.get_device_name(device) if device.startswith("cuda") else device, floating(given.dtype)
    peak = matrix_rate(device, dtype)
    print(f"{name}, {given.dtype}, {torch.get_num_threads()} threads, torch {torch.__version__}, ", end="")
    print(f"{peak / 1e9:.0f} GFLOP/s in matrix products\n\n{HEAD}", flush=True)
    for case in tqdm(cases, unit="model"):
        effort = GPU if device.startswith("cuda") else LARGE if case.large else USUAL
        effort = replace(effort, users=given.users or effort.users)
        print(line(measure(case, requests, effort, device, dtype, peak)), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
