"""What searched triggers are worth: ``python -m benchmarks.trigger_study --output-dir FOLDER``.

PAP-REC accepts triggers by a surrogate metric on validation lists. For searches with few and with many validation
users, and for random triggers, all for the same frozen P5, the study says what a prompt's surrogate tells about its
quality on the test lists of the same users, and what a user's gain on the one tells about the gain on the other.
Nothing is chosen by it. Writes ``prompts.csv``, ``users.csv``, ``triggers.json`` (correlations, cost) and
``triggers.png``.
"""

import argparse
import csv
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from benchmarks import provenance
from benchmarks.metrics import hit, ndcg, rank_of_positive
from benchmarks.protocol import Problem, Protocol, prepare
from benchmarks.store import to_json
from data.prompts.library import templates
from data.prompts.template import Role
from data.random import generator
from data.types import FloatArray, IntArray
from methods.base import Compute, Requests

if TYPE_CHECKING:
    from methods.paprec.method import PapRec
    from methods.paprec.search import Step


ROLES: tuple[Role, ...] = ("recommend", "sequential", "choose")


@dataclass(frozen=True)
class Prompt:
    """Triggers, what the search knows of them, and what they are worth.

    Args:
        source: ``random``, ``start``, ``global`` or ``user``: where they come from.
        users: validation users the search had.
        evaluations: candidate tokens tried before.
        seconds: time the search had taken.
        surrogate: NDCG@5 + Hit@5 on the validation lists of these users.
        test_surrogate: the same on their test lists.
        test_ndcg: NDCG@10 on their test lists.
    """

    source: str
    users: int
    evaluations: int
    seconds: float
    surrogate: float
    test_surrogate: float
    test_ndcg: float


@dataclass(frozen=True)
class Gain:
    """What the first round of user triggers brought a user.

    Args:
        user: id of the user.
        surrogate: gain on the validation list, which accepted them.
        test_surrogate: gain on the test list.
    """

    user: str
    surrogate: float
    test_surrogate: float


@dataclass(frozen=True)
class Lists:
    """Validation and test lists of the same users.

    Args:
        valid: validation requests and column of the positive.
        test: test requests and column of the positive.
    """

    valid: tuple[Requests, IntArray]
    test: tuple[Requests, IntArray]

    @classmethod
    def of(cls, problem: Problem, compute: Compute) -> "Lists":
        """The lists of all users with validation who are tested."""
        task, tested = problem.task(compute), problem.test_requests()
        users = np.intersect1d(task.valid.users, tested.users)
        valid, test = (np.flatnonzero(np.isin(r.users, users)) for r in (task.valid, tested))
        return cls(
            (task.valid.select(valid), task.valid_positive[valid]), (tested.select(test), problem.test.positive[test])
        )

    def judge(self, method: "PapRec", tokens: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Surrogate on the validation and on the test list, and NDCG@10 on the test list, of every user."""
        method.tokens = tokens
        valid, test = (rank_of_positive(method.score(shown), positive) for shown, positive in (self.valid, self.test))
        return _surrogate(valid), _surrogate(test), ndcg(test, 10)


def _surrogate(rank: FloatArray) -> FloatArray:
    return ndcg(rank, 5) + hit(rank, 5)


def freeze(dataset: str, compute: Compute, settings: dict[str, Any], seed: int, folder: str) -> Compute:
    """Train P5 with all validation users, save it, and let it be the backbone."""
    from methods.p5.method import P5

    problem = prepare(dataset, Protocol(), {role: templates(role) for role in ROLES})
    method = P5(**{field.name: settings[field.name] for field in fields(P5) if field.name in settings})
    method.fit(problem.task(compute), seed)
    method.scorer.model.save_pretrained(folder)
    method.scorer.encoder.tokenizer.save_pretrained(folder)
    return replace(compute, backbone=folder)


def searched(
    problem: Problem, compute: Compute, settings: dict[str, Any], seed: int, random: int
) -> tuple[list[Prompt], list[Gain]]:
    """The prompts a search passes and random ones, and what its first user round brought every user."""
    from methods.paprec.method import PapRec
    from methods.paprec.prompts import word_initial

    task, lists = problem.task(compute), Lists.of(problem, compute)
    method = PapRec(**{**settings, "budget": 0})
    method.fit(task, seed)
    seen = [("start", 1, 0, 0.0, method.tokens)]
    vocabulary, rng = word_initial(method.scorer.encoder.tokenizer), generator(seed, "trigger study")
    for _ in range(random):
        drawn = np.tile(rng.choice(vocabulary, method.tokens.shape[1]), (len(method.tokens), 1))
        seen.append(("random", 0, 0, 0.0, drawn))
    search, started = PapRec(**settings), time.perf_counter()

    def watch(step: "Step", tokens: IntArray) -> None:
        seen.append((step.kind, step.round, step.evaluations, time.perf_counter() - started, tokens))

    search.watch = watch
    search.fit(task, seed)
    judged = [lists.judge(method, tokens) for *_, tokens in tqdm(seen, desc="judging", unit="prompt")]
    prompts = [
        Prompt(source, len(task.valid), evaluations, seconds, *(float(values.mean()) for values in found))
        for (source, _, evaluations, seconds, _), found in zip(seen, judged, strict=True)
    ]
    own = [n for n, (source, number, *_) in enumerate(seen) if (source, number) == ("user", 1)]
    before = next((n for n in range(min(own, default=0) - 1, -1, -1) if seen[n][0] != "random"), 0)
    after = max(own, default=before)
    ids = (task.catalogue.user_ids[user] for user in lists.valid[0].users.tolist())
    gains = (judged[after][part] - judged[before][part] for part in (0, 1))
    return prompts, [Gain(user, *map(float, gain)) for user, *gain in zip(ids, *gains, strict=True)]


def correlations(prompts: Sequence[Prompt], gains: Sequence[Gain]) -> dict[str, Any]:
    """Spearman correlations of the surrogate with the test, and what the search of most users cost."""
    from scipy.stats import spearmanr

    def between(rows: Sequence[Any], one: str, other: str) -> float:
        first, second = (np.array([getattr(row, name) for row in rows], np.float64) for name in (one, other))
        return float(spearmanr(first, second).statistic) if len(rows) > 2 else float("nan")

    largest = max(prompt.users for prompt in prompts)
    drawn = [prompt for prompt in prompts if prompt.source == "random"]
    passed = [prompt for prompt in prompts if prompt.source != "random" and prompt.users == largest]
    gained = [gain for gain in gains if gain.surrogate > 0]
    return {
        "random prompts: surrogate against test ndcg@10": between(drawn, "surrogate", "test_ndcg"),
        "prompts passed: surrogate against test ndcg@10": between(passed, "surrogate", "test_ndcg"),
        "users: gain on validation against gain on test": between(gains, "surrogate", "test_surrogate"),
        "users that gained on validation": len(gained),
        "their mean gain on validation": float(np.mean([gain.surrogate for gain in gained])) if gained else None,
        "their mean gain on test": float(np.mean([gain.test_surrogate for gain in gained])) if gained else None,
        "seconds": max(prompt.seconds for prompt in passed),
        "evaluations": max(prompt.evaluations for prompt in passed),
    }


def draw(prompts: Sequence[Prompt], path: Path) -> None:
    """Surrogate against test quality, and both along the searches, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8))
    left, right = figure.subplots(1, 2)
    for source in dict.fromkeys(prompt.source for prompt in prompts):
        shown = [prompt for prompt in prompts if prompt.source == source]
        left.scatter([p.surrogate for p in shown], [p.test_ndcg for p in shown], s=14, label=source)
    left.set_xlabel("surrogate on validation lists")
    left.set_ylabel("ndcg@10 on test lists")
    left.legend(frameon=False)
    for n, users in enumerate(dict.fromkeys(prompt.users for prompt in prompts)):
        passed = [prompt for prompt in prompts if prompt.users == users and prompt.source != "random"]
        tried = [prompt.evaluations for prompt in passed]
        right.plot(tried, [p.surrogate for p in passed], color=f"C{n}", label=f"{users} users")
        right.plot(tried, [p.test_surrogate for p in passed], color=f"C{n}", linestyle="--")
    right.set_xlabel("candidate tokens tried")
    right.set_ylabel("ndcg@5 + hit@5 (dashed: test)")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _write(path: Path, rows: Sequence[Prompt] | Sequence[Gain]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(rows[0])])
        writer.writerows([f"{v:.6g}" if isinstance(v, float) else v for v in asdict(row).values()] for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, and say the correlations."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trigger_study", description=__doc__)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--users", type=int, nargs="+", default=[50, 100, 200, 400], help="validation users searched")
    parser.add_argument("--random", type=int, default=16, help="random prompts judged beside the largest search")
    parser.add_argument("--set", type=_setting, action="append", default=[], help="SETTING=VALUE of paprec")
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache"), help="where trained backbones are kept")
    given = parser.parse_args(arguments)
    folder: Path = given.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    prompts: list[Prompt] = []
    gains: list[Gain] = []
    settings, compute = dict(given.set), Compute(device=given.device, cache=given.cache_dir)
    with TemporaryDirectory() as scratch:
        compute = freeze(given.dataset, compute, settings, given.seed, scratch)
        for users in sorted(given.users):
            problem = prepare(given.dataset, Protocol(valid_users=users), {role: templates(role) for role in ROLES})
            random = given.random if users == max(given.users) else 0
            passed, gains = searched(problem, compute, {**settings, "epochs": 0}, given.seed, random)
            prompts += passed
    _write(folder / "prompts.csv", prompts)
    _write(folder / "users.csv", gains)
    numbers = correlations(prompts, gains)
    (folder / "triggers.json").write_text(to_json(provenance.describe() | numbers), encoding="utf-8")
    draw(prompts, folder / "triggers.png")
    print(to_json(numbers))
    return 0


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, json.loads(value)


if __name__ == "__main__":
    raise SystemExit(main())
