"""What searched triggers are worth: ``python -m benchmarks.trigger_study --output-dir FOLDER``.

PAP-REC accepts triggers by a surrogate metric on validation lists. For searches of global triggers with few and with
many validation users, one of global and user triggers, and random triggers, all for the same frozen P5 and judged on
the same users, the study says what a prompt's surrogate tells about its quality on the test lists, and what a user's
gain on the one tells about the gain on the other. Nothing is chosen by it. Writes ``prompts.csv``, ``users.csv``,
``triggers.json`` (correlations, cost) and ``triggers.png``.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from benchmarks import provenance
from benchmarks.errors import usage_errors
from benchmarks.machine import choose_device
from benchmarks.metrics import hit, ndcg, rank_of_positive
from benchmarks.protocol import Problem, Protocol, prepare
from benchmarks.report.table import of_records
from benchmarks.significance import rank_correlation
from benchmarks.store import to_json
from benchmarks.suite import typed
from data.prompts.library import templates
from data.prompts.template import Role
from data.random import generator
from data.types import FloatArray, IntArray
from methods.base import Compute, Requests, Task
from methods.lm.hub import quiet_transformers
from methods.registry import create

if TYPE_CHECKING:
    from methods.paprec.method import PapRec
    from methods.paprec.search import Step

    Passed = tuple[Step, IntArray]

ROLES: tuple[Role, ...] = ("recommend", "sequential", "choose")


@dataclass(frozen=True)
class Prompt:
    """Triggers, what a search knows of them, and what they are worth to the validation users of the largest search.

    Args:
        source: ``start``, ``random``, ``global`` or ``user`` for a step of that kind, or ``final``.
        row: row of the leaderboard whose search passed them; empty if none did.
        users: validation users searched; half of them stop.
        evaluations: candidate tokens tried before.
        seconds: time the search had taken.
        surrogate: NDCG@5 + Hit@5 on the lists that the search accepts on.
        valid_surrogate: the same on the whole validation lists.
        test_surrogate: the same on the test lists.
        test_ndcg: NDCG@10 on the test lists.
    """

    source: str
    row: str
    users: int
    evaluations: int
    seconds: float
    surrogate: float
    valid_surrogate: float
    test_surrogate: float
    test_ndcg: float


@dataclass(frozen=True)
class Gain:
    """What the user triggers of the first user round bring a user, kept or not, beside the same global triggers.

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
    """Lists of the same users with the columns of their positives.

    Args:
        searched: validation lists as searches accept on them.
        valid: validation lists.
        test: test lists.
    """

    searched: tuple[Requests, IntArray]
    valid: tuple[Requests, IntArray]
    test: tuple[Requests, IntArray]

    @classmethod
    def of(cls, problem: Problem, task: Task, negatives: int, seed: int) -> "Lists":
        """Those of the validation users of a task, who all have a test list."""
        from methods.lm.tuning import valid_sample

        asked = valid_sample(task, len(task.valid), negatives, seed)
        rows = np.searchsorted(problem.test.users, task.valid.users)
        return cls(
            (asked, np.zeros(len(asked), np.int64)),
            (task.valid, task.valid_positive),
            (problem.test_requests().select(rows), problem.test.positive[rows]),
        )

    def judge(self, method: "PapRec", tokens: IntArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Every user's surrogate on each list, and NDCG@10 on the test list."""
        method.tokens = tokens
        asked, valid, test = (
            rank_of_positive(method.score(shown), positive)
            for shown, positive in (self.searched, self.valid, self.test)
        )
        return _surrogate(asked), _surrogate(valid), _surrogate(test), ndcg(test, 10)


def _surrogate(rank: FloatArray) -> FloatArray:
    return ndcg(rank, 5) + hit(rank, 5)


def freeze(task: Task, settings: Mapping[str, Any], seed: int, folder: str) -> Compute:
    """Train P5 with all validation users, save it, and let it be the backbone."""
    from methods.p5.method import P5

    method = P5(**{field.name: settings[field.name] for field in fields(P5) if field.name in settings})
    method.fit(task, seed)
    method.scorer.model.save_pretrained(folder)
    method.scorer.encoder.tokenizer.save_pretrained(folder)
    return replace(task.compute, backbone=folder)


def with_users(task: Task, users: int, seed: int) -> Task:
    """The task with some of its validation users; with fewer, a part of the same."""
    rows = np.sort(generator(seed, "trigger study users").permutation(len(task.valid))[:users])
    return task.with_valid(rows)


def searched(row: str, settings: Mapping[str, Any], task: Task, seed: int) -> "tuple[PapRec, list[Passed]]":
    """A row of PAP-REC after its search, and the steps with the triggers after each."""
    method: Any = create(row, settings)
    passed: list[Passed] = []
    method.watch = lambda step, tokens: passed.append((step, tokens))
    method.fit(task, seed)
    return method, passed


def study(
    problem: Problem, task: Task, settings: Mapping[str, Any], sizes: Sequence[int], random: int, seed: int
) -> tuple[list[Prompt], list[Gain], float]:
    """Prompts and users, judged, and tokens tried per second in the search for global and user triggers.

    Args:
        problem: with the test lists.
        task: with the frozen P5 as backbone; its validation users have test lists.
        settings: of PAP-REC.
        sizes: validation users of the searches for global triggers; that of user triggers has the most of them.
        random: random prompts.
        seed: of the searches and all draws.
    """
    from methods.paprec.prompts import word_initial

    largest = with_users(task, max(sizes), seed)
    judge, _ = searched("paprec", {**settings, "budget": 0}, largest, seed)
    start, lists = judge.tokens, Lists.of(problem, largest, judge.negatives, seed)
    vocabulary, rng = word_initial(judge.scorer.encoder.tokenizer), generator(seed, "trigger study")
    prompts = []

    def add(tokens: IntArray, source: str, row: str = "", users: int = 0, step: "Step | None" = None) -> None:
        values = (float(each.mean()) for each in lists.judge(judge, tokens))
        spent = (step.evaluations, step.seconds) if step else (0, 0.0)
        prompts.append(Prompt(source, row, users, *spent, *values))

    add(start, "start")
    for _ in range(random):
        add(np.tile(rng.choice(vocabulary, start.shape[1]), (len(start), 1)), "random")
    for row, users in (*(("paprec/shared", size) for size in sorted(sizes)), ("paprec", max(sizes))):
        method, passed = searched(row, settings, with_users(task, users, seed), seed)
        for step, tokens in tqdm(passed, desc=f"judging {row}, {users} users", unit="prompt"):
            add(tokens, step.kind, row, users, step)
        add(method.tokens, "final", row, users, passed[-1][0])
    after = next((t for step, t in reversed(passed) if (step.kind, step.round) == ("user", 1)), start)
    before = np.hstack([after[:, : method.global_tokens], start[:, method.global_tokens :]])
    late, early = lists.judge(judge, after), lists.judge(judge, before)
    ids = (task.catalogue.user_ids[user] for user in largest.valid.users.tolist())
    gained, gained_test = ((late[part] - early[part]).tolist() for part in (0, 2))
    gains = [Gain(*row) for row in zip(ids, gained, gained_test, strict=True)]
    last = passed[-1][0]
    return prompts, gains, last.tried / last.seconds


def correlations(prompts: Sequence[Prompt], gains: Sequence[Gain]) -> dict[str, Any]:
    """Spearman correlations of the surrogate with the test, and what the search for user triggers cost."""
    drawn = [prompt for prompt in prompts if prompt.source == "random"]
    passed = [prompt for prompt in prompts if prompt.row == "paprec"]
    # steps that changed nothing, or were taken back, are no other prompts; those of one search say nothing of others
    different = list({(prompt.surrogate, prompt.test_ndcg): prompt for prompt in passed}.values())
    path = _spearman(different, "surrogate", "test_ndcg")
    gained = [gain for gain in gains if gain.surrogate > 0]
    return {
        "random prompts: surrogate against test ndcg@10": _spearman(drawn, "surrogate", "test_ndcg"),
        "random prompts: whole lists against test ndcg@10": _spearman(drawn, "valid_surrogate", "test_ndcg"),
        "prompts passed: surrogate against test ndcg@10": {name: path[name] for name in ("spearman", "n")},
        "users: gain on validation against gain on test": _spearman(gains, "surrogate", "test_surrogate"),
        "users that gained on validation": len(gained),
        "their mean gain on validation": float(np.mean([gain.surrogate for gain in gained])) if gained else None,
        "their mean gain on test": float(np.mean([gain.test_surrogate for gain in gained])) if gained else None,
        "seconds": max(prompt.seconds for prompt in passed),
        "evaluations": max(prompt.evaluations for prompt in passed),
    }


def _spearman(rows: Sequence[Any], one: str, other: str) -> dict[str, float]:
    """Rank correlation of two columns, its 95 % bootstrap interval over rows, and how many rows there are."""
    pair = np.array([[getattr(row, name) for row in rows] for name in (one, other)])
    found = rank_correlation(*pair) if len(rows) > 2 else float("nan")
    if np.isnan(found):
        return {"spearman": found, "low": found, "high": found, "n": len(rows)}
    resampled = generator("trigger study", one, other).integers(len(rows), size=(1000, len(rows)))
    low, high = np.nanquantile([rank_correlation(*pair[:, some]) for some in resampled], [0.025, 0.975])
    return {"spearman": found, "low": float(low), "high": float(high), "n": len(rows)}


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
    for n, (row, users) in enumerate(dict.fromkeys((prompt.row, prompt.users) for prompt in prompts if prompt.row)):
        passed = [prompt for prompt in prompts if (prompt.row, prompt.users) == (row, users)]
        tried = [prompt.evaluations for prompt in passed]
        right.plot(tried, [p.surrogate for p in passed], color=f"C{n}", label=f"{row}, {users}")
        right.plot(tried, [p.test_surrogate for p in passed], color=f"C{n}", linestyle="--")
    right.set_xlabel("candidate tokens tried")
    right.set_ylabel("ndcg@5 + hit@5 (dashed: test)")
    right.legend(frameon=False, title="validation users searched;\nhalf of them stop")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=150, metadata={"Software": None})


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, and say the correlations."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trigger_study", description=__doc__)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--users", type=int, nargs="+", default=[50, 100, 200, 400], help="validation users searched")
    parser.add_argument("--random", type=int, default=32, help="random prompts (default: %(default)s)")
    parser.add_argument("--set", type=_setting, action="append", default=[], help="SETTING=VALUE of paprec")
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache"), help="where trained backbones are kept")
    given = parser.parse_args(arguments)
    settings = dict(given.set)
    quiet_transformers()
    with usage_errors(parser):
        compute = Compute(device=choose_device(given.device), cache=given.cache_dir)
        shared: Any = create("paprec/shared", settings)
        create("paprec", settings)
        problem = prepare(given.dataset, Protocol(), {role: templates(role) for role in ROLES})
    if not (shared.budget and shared.global_tokens):
        parser.error("--set: the study is about searches for global triggers: leave budget and global_tokens above 0")
    task = problem.task(compute)
    tested = np.flatnonzero(np.isin(task.valid.users, problem.test.users))
    if not 2 <= min(given.users) <= max(given.users) <= len(tested):
        parser.error(f"--users: {given.dataset} has {len(tested)} users to search and judge; at least 2 are needed")
    folder: Path = given.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        task = replace(task, compute=freeze(task, settings, given.seed, scratch))
        task = task.with_valid(tested)
        unfrozen = {**settings, "epochs": 0}
        prompts, gains, rate = study(problem, task, unfrozen, given.users, given.random, given.seed)
    tables: dict[str, Sequence[Any]] = {"prompts": prompts, "users": gains}
    for name, rows in tables.items():
        (folder / f"{name}.csv").write_text(of_records(rows).csv(), encoding="utf-8")
    numbers = correlations(prompts, gains) | {"tokens tried per second": rate}
    made = {"dataset": given.dataset, "seed": given.seed, "settings": settings}
    (folder / "triggers.json").write_text(to_json(provenance.describe() | made | numbers), encoding="utf-8")
    draw(prompts, folder / "triggers.png")
    print(to_json(numbers))
    return 0


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: expected SETTING=VALUE, such as budget=30")
    return name, typed(value)


if __name__ == "__main__":
    raise SystemExit(main())
