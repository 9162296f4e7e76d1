"""Whether demonstrations help, which, and what an embedded backbone has to learn for it.

``python -m benchmarks.demonstration_study --output-dir FOLDER`` ranks the validation lists of ml-100k behind none to
eight of LRGD's demonstrations, in several variants. Writes ``lists.csv`` (one row per list),
``made.json`` (with what) and ``table.md``, which shows the NDCG@10 without demonstrations and what some of them change;
``--redraw`` makes the table again, without a model.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from benchmarks import provenance
from benchmarks.errors import positive, usage_errors
from benchmarks.metrics import ndcg, rank_of_positive
from benchmarks.protocol import Protocol, prepare
from benchmarks.report.table import Column, Table, of_records, read_records
from benchmarks.store import to_json
from data.prompts.library import templates
from data.prompts.template import Role
from data.random import generator
from data.types import FloatArray
from methods.base import Compute, Showing, Task
from methods.registry import create

Key = TypeVar("Key")
LISTS, MADE, TABLE = "lists.csv", "made.json", "table.md"
ROLES: tuple[Role, ...] = ("demonstrate", "recommend")
COUNTS = (0, 1, 2, 4, 8)
LATEST, EARLIER = "all training items", "all but the latest {}"


@dataclass(frozen=True)
class Variant:
    """Demonstrations of a kind, for a model that is trained in a way.

    Args:
        training: how the backbone was trained with demonstrations: not at all, or with which share of prompts whose
            answers a demonstration shows.
        shown: what demonstrations are chosen by.
        pool: which of the user's own items the pool was made with, that is, what was known when it was made.
        row: LRGD's row.
        settings: its settings.
    """

    training: str
    shown: str
    pool: str
    row: str
    settings: Mapping[str, Any]


def _variant(training: str, shown: str, targets: int = 2, **settings: Any) -> Variant:
    row = {"evidence": "lrgd/similar", "random": "lrgd/random", "Effect_D": "lrgd/stage1"}[shown]
    pool = EARLIER.format(targets) if targets else LATEST
    return Variant(training, shown, pool, row, {"targets": targets, **settings})


VARIANTS = (
    *(_variant("none", "evidence", targets, training_steps=0) for targets in (2, 0)),
    *(_variant("told = 0", "evidence", targets, told=0.0) for targets in (2, 0)),
    *(_variant("told = 0.8", "evidence", targets) for targets in (2, 0)),
    *(_variant("told = 0.8", "random", targets, own=0) for targets in (2, 0)),
    *(_variant("told = 0.8", "Effect_D", targets) for targets in (2, 1)),
)
"""Effect_D needs pseudo-targets, and a pool that does not know them; to be compared, other rows have the same pool."""


@dataclass(frozen=True)
class List:
    """A validation list, ranked once.

    Args:
        training: of the variant.
        shown: of the variant.
        pool: of the variant.
        seed: of training and of what is drawn.
        user: whose list it is.
        demonstrations: how many were shown, if there were so many.
        ndcg: NDCG@10.
    """

    training: str
    shown: str
    pool: str
    seed: int
    user: str
    demonstrations: int
    ndcg: float


def study(task: Task, variant: Variant, seed: int, users: int) -> Iterator[List]:
    """Rank validation lists in one variant."""
    method = create(variant.row, variant.settings)
    method.fit(task, seed)
    chosen = np.sort(generator(0, "demonstration study").permutation(len(task.valid))[:users])
    asked, positive = task.valid.select(chosen), task.valid_positive[chosen]
    for count in COUNTS:
        ranks = rank_of_positive(method.score(replace(asked, showing=Showing(count))), positive)
        for user, value in zip(asked.users.tolist(), ndcg(ranks, 10).tolist(), strict=True):
            key = variant.training, variant.shown, variant.pool
            yield List(*key, seed, task.catalogue.user_ids[user], count, value)


def table(lists: Sequence[List]) -> Table:
    """NDCG@10 without demonstrations, and the difference that some make: mean over users and seeds, which are paired.

    The standard error is that over users of their means over seeds; it says nothing of other trainings.
    """
    rows = []
    for (training, shown, pool), own in _grouped(lists, lambda one: (one.training, one.shown, one.pool)).items():
        mean = {count: _means(some) for count, some in _grouped(own, lambda one: one.demonstrations).items()}
        differences = {count: each - mean[0] for count, each in mean.items() if count}
        rows.append(
            {"training": training, "shown": shown, "pool": pool, "0": float(mean[0].mean())}
            | {str(count): f"{each.mean():+.3f} ± {_error(each):.3f}" for count, each in differences.items()}
        )
    users, seeds = len({one.user for one in lists}), len({one.seed for one in lists})
    columns = [
        Column("training", "Training"),
        Column("shown", "Chosen by"),
        Column("pool", "Pool knows of the user"),
        Column("0", "No demonstrations", digits=3),
        *(Column(str(count), str(count)) for count in COUNTS[1:]),
    ]
    return Table(
        columns,
        rows,
        f"ml-100k: ndcg@10 of {users} validation users, mean over seeds ({seeds}), without demonstrations; and the "
        "difference that 1 to 8 of them make, ± one standard error over users, not over trainings.",
    )


def _grouped(lists: Iterable[List], key: Callable[[List], Key]) -> dict[Key, list[List]]:
    groups: dict[Key, list[List]] = defaultdict(list)
    for one in lists:
        groups[key(one)].append(one)
    return groups


def _means(lists: Iterable[List]) -> FloatArray:
    """Mean of every user, in the order of users."""
    by_user = _grouped(lists, lambda one: one.user)
    return np.array([np.mean([one.ndcg for one in by_user[user]]) for user in sorted(by_user)])


def _error(values: FloatArray) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or make the table again, and show it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demonstration_study", description=__doc__)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--users", type=positive, default=400, help="validation users (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the trainings")
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache"), help="where trained backbones are kept")
    parser.add_argument("--redraw", action="store_true", help=f"make the table again from {LISTS}")
    given = parser.parse_args(arguments)
    folder: Path = given.output_dir
    if given.redraw and not (folder / LISTS).is_file():
        parser.error(f"--redraw: {folder} holds no {LISTS}")
    if not given.redraw:
        with usage_errors(parser):
            lists = _measure(given.users, given.seeds, given.cache_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LISTS).write_text(of_records(lists).csv(), encoding="utf-8")
        (folder / MADE).write_text(to_json(provenance.describe()), encoding="utf-8")
    made = table(read_records(folder / LISTS, List)).markdown()
    (folder / TABLE).write_text(made, encoding="utf-8")
    print(made)
    return 0


def _measure(users: int, seeds: Sequence[int], cache: Path) -> list[List]:
    from methods.lm.hub import quiet_transformers

    quiet_transformers()
    task = prepare("ml-100k", Protocol(), {role: templates(role) for role in ROLES}).task(Compute(cache=cache))
    fits = [(variant, seed) for variant in VARIANTS for seed in seeds]
    return [one for fit in tqdm(fits, desc="demonstrations", unit="fit") for one in study(task, *fit, users)]


if __name__ == "__main__":
    raise SystemExit(main())
