"""Check of the dual model on a real decoder: ``python -m methods.lrgd.check --backbone random-llama``.

Prints, for every precision, the largest difference between the dual models of all layers and heads and what
the model's own attention gave, over all queries and several splits of the tokens into demonstration and rest.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from data.random import generator
from methods.lm.attention import FAMILIES
from methods.lm.embedded import SHIPPED
from methods.lm.hub import BackboneError, first_line, load_model, source_of
from methods.lrgd.dual import Dual
from methods.lrgd.record import Trace, record

SIZES: Mapping[str, tuple[int, int, int]] = {"small": (64, 3, 4), "large": (1024, 16, 16)}
"""Width, layers and heads of random models; the large ones have a few hundred million parameters."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        backbone: which model.
        dtype: precision of the model; float32 features for half precisions.
        layers: attention layers checked.
        heads: query heads per layer.
        key_heads: key heads per layer.
        error: largest absolute difference between the dual models and the model's attention.
        steps: the same after one step per demonstration token.
        mixture: the same for (1 - lambda) attention(T) + lambda attention(D).
        size: largest absolute value of the model's attention.
    """

    backbone: str
    dtype: str
    layers: int
    heads: int
    key_heads: int
    error: float
    steps: float
    mixture: float
    size: float


def random_model(family: str, size: str = "small", vocabulary: int = 500, seed: int = 0) -> PreTrainedModel:
    """A decoder with random weights, of a family of :data:`methods.lm.attention.FAMILIES`.

    Keys have the size of those of trained models, so that attention is not nearly uniform.

    Raises:
        ValueError: for another family.
    """
    width, layers, heads = SIZES[size]
    common = {
        "vocab_size": vocabulary,
        "initializer_range": 1.5 * width**-0.5,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    grouped = {
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "max_position_embeddings": 512,
    }
    shapes: Mapping[str, Mapping[str, object]] = {
        "llama": grouped,
        "qwen2": grouped,
        "qwen3": {**grouped, "head_dim": width // heads},
        "mistral": {**grouped, "sliding_window": None},
        "gemma": {**grouped, "head_dim": width // heads},
        "phi3": {**grouped, "pad_token_id": None},
        "gpt2": {"n_embd": width, "n_layer": layers, "n_head": heads, "n_positions": 512},
    }
    if family not in shapes:
        raise ValueError(f"no random model {family!r}: families are {', '.join(shapes)}")
    config = AutoConfig.for_model(family, **common, **shapes[family])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    model.eval()
    return model


def check(name: str, model: PreTrainedModel, ids: torch.Tensor, splits: Sequence[torch.Tensor]) -> Row:
    """Differences between the dual models and the attention of a model on some token ids ``[1, n]``.

    Args:
        name: what to call the model.
        model: a decoder-only model.
        ids: token ids, shape ``[1, n]``.
        splits: True for demonstration tokens, shape ``[n]`` each.
    """
    with torch.no_grad():
        traces, _ = record(model, ids)
        worst = [max(errors) for errors in zip(*_errors(traces, splits), strict=True)]
    heads, keys = traces[0].query.shape[1], traces[0].query.shape[1] // traces[0].repeats
    size = max(float(trace.output.abs().max()) for trace in traces)
    dtype = str(model.dtype).removeprefix("torch.")
    return Row(name, dtype, len(traces), heads, keys, worst[0], worst[1], worst[2], size)


def _errors(traces: Sequence[Trace], splits: Sequence[torch.Tensor]) -> Iterator[tuple[float, float, float]]:
    for trace in traces:
        # Singular value decompositions know no half precision.
        precision = trace.query.dtype if trace.query.dtype.itemsize >= 4 else torch.float32
        dual = Dual.of_trace(trace, precision)
        output = trace.output.transpose(1, 2).to(precision)
        for split in splits:
            one = dual.apply(dual.start(split) + dual.update(split, eta=0.3))
            many = dual.apply(dual.token_by_token(split))
            share = dual.share(split)[..., None]
            mixed = (1 - share) * dual.attention(~split) + share * dual.attention(split)
            yield tuple(float((result - output).abs().max()) for result in (one, many, mixed))  # type: ignore[misc]


def splits(length: int, number: int = 3, seed: int = 0) -> list[torch.Tensor]:
    """A block of demonstrations after an instruction, and scattered tokens at random shares."""
    rng = generator(seed, "lrgd check splits")
    block = torch.zeros(length, dtype=torch.bool)
    block[length // 8 : 3 * length // 4] = True
    return [block, *(torch.from_numpy(rng.random(length) < rng.random()) for _ in range(number - 1))]


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    names = {
        "backbone": "model",
        "dtype": "dtype",
        "layers": "layers",
        "heads": "heads",
        "key_heads": "key heads",
        "error": "one step",
        "steps": "token by token",
        "mixture": "lambda mixture",
        "size": "largest output",
    }
    lines = [f"| {' | '.join(names.values())} |", f"|{'---|' * len(names)}"]
    for row in rows:
        values = (getattr(row, name) for name in names)
        lines.append(f"| {' | '.join(f'{v:.1e}' if isinstance(v, float) else str(v) for v in values)} |")
    return "\n".join(lines)


def _rows(name: str, asked: argparse.Namespace) -> Iterator[Row]:
    for dtype in asked.dtype:
        model = _model(name, asked)
        model.to(device=asked.device, dtype=getattr(torch, dtype))  # type: ignore[call-arg]
        drawn = generator(asked.seed, "lrgd check ids").integers(model.config.vocab_size, size=(1, asked.tokens))
        ids = torch.from_numpy(drawn).to(asked.device)
        yield check(name, model, ids, [s.to(asked.device) for s in splits(asked.tokens, seed=asked.seed)])


def _model(name: str, asked: argparse.Namespace) -> PreTrainedModel:
    if name.startswith("random-"):
        return random_model(name.removeprefix("random-"), asked.size, seed=asked.seed)
    if (SHIPPED / name).is_dir():
        name = str(SHIPPED / name)
    model: PreTrainedModel = load_model(AutoModelForCausalLM, name, source_of(name)).eval()
    return model


def _device(name: str) -> str:
    try:
        torch.zeros(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(f"{name} cannot be used here: {first_line(error)}") from error
    return name


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m methods.lrgd.check", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--backbone",
        nargs="+",
        default=[f"random-{family}" for family in FAMILIES],
        help="random-FAMILY, an embedded decoder, a folder or a Hugging Face id",
    )
    parser.add_argument("--size", choices=list(SIZES), default="small", help="size of random models")
    dtypes = ("float64", "float32", "bfloat16", "float16")
    parser.add_argument("--dtype", nargs="+", choices=dtypes, default=["float64", "float32", "bfloat16"])
    parser.add_argument("--device", type=_device, default="cpu")
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    try:
        print(table([row for name in asked.backbone for row in _rows(name, asked)]))
    except (BackboneError, ValueError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
