"""What Effect_D of demonstrations tells about them: ``python -m benchmarks.effect_study --output-dir FOLDER``.

For a sample of validation users, every demonstration there is to choose from gets its Effect_D on the user's
pseudo-targets, exactly and at first order, and random sets of demonstrations rank the user's validation list.
Writes ``demonstrations.csv``, ``sets.csv``, ``made.json`` (with what), ``effect.json`` (correlations) and
``effect.png``; ``--redraw`` makes the last two again from the tables, without a model.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import provenance
from benchmarks.errors import positive, usage_errors
from benchmarks.metrics import evaluate, rank_of_positive
from benchmarks.protocol import Protocol, prepare
from benchmarks.report.table import of_records, read_records
from benchmarks.significance import rank_correlation
from benchmarks.store import to_json
from data.prompts.library import templates
from data.prompts.template import Role
from data.random import generator
from data.types import FloatArray
from methods.base import Compute, Task

if TYPE_CHECKING:
    from methods.lrgd.method import Lrgd

DEMONSTRATIONS, SETS, MADE, NUMBERS, FIGURE = "demonstrations.csv", "sets.csv", "made.json", "effect.json", "effect.png"
ROLES: tuple[Role, ...] = ("demonstrate", "recommend")
ORDERS = {"exact": "exact", "first_order": "first order"}


@dataclass(frozen=True)
class Effect:
    """A demonstration and its Effect_D on a user's pseudo-targets.

    Args:
        user: whom it could be shown to.
        demonstration: number among those to choose from.
        exact: exact Effect_D.
        first_order: first-order Effect_D.
    """

    user: str
    demonstration: int
    exact: float
    first_order: float


@dataclass(frozen=True)
class Quality:
    """A set of demonstrations, the sum of their effects, and how well the user's validation list is ranked with it.

    Args:
        user: whom it is shown to.
        set: number of the set.
        exact: sum of exact effects.
        first_order: sum of first-order effects.
        auc: share of negatives below the positive.
        ndcg: NDCG@10.
    """

    user: str
    set: int
    exact: float
    first_order: float
    auc: float
    ndcg: float


def study(method: "Lrgd", task: Task, users: int, sets: int, seed: int) -> Iterator[tuple[list[Effect], list[Quality]]]:
    """Effects and qualities of one user after the other.

    Args:
        method: fitted; its settings say how many demonstrations a prompt shows.
        task: what it was fitted on.
        users: validation users.
        sets: sets of demonstrations per user.
        seed: seed of users and sets.
    """
    from methods.lrgd.effect import exact_effects

    for row in np.sort(generator(seed, "effect study").permutation(len(task.valid))[:users]).tolist():
        asked, positive = task.valid.select(np.array([row])), task.valid_positive[[row]]
        user = task.catalogue.user_ids[asked.users[0]]
        found, first = method.selector.effects(int(asked.users[0]))
        _, exact = method.selector.effects(int(asked.users[0]), exact_effects)
        rng = generator(seed, "effect study", user)
        drawn = [rng.permutation(len(found))[: method.shots] for _ in range(sets)]
        prompts = [method.prompt(asked, 0, tuple(found[n] for n in chosen.tolist())) for chosen in drawn]
        scores = method.scorer.answer_likelihood(prompts)
        rank = rank_of_positive(scores, np.repeat(positive, sets))
        values = evaluate(rank, np.full(sets, scores.shape[1]))
        effects = [Effect(user, n, float(e), float(f)) for n, (e, f) in enumerate(zip(exact, first, strict=True))]
        auc, ndcg = values["auc"], values["ndcg@10"]
        qualities = [
            Quality(user, n, float(exact[chosen].sum()), float(first[chosen].sum()), float(auc[n]), float(ndcg[n]))
            for n, chosen in enumerate(drawn)
        ]
        yield effects, qualities


def correlations(effects: Sequence[Effect], qualities: Sequence[Quality]) -> dict[str, Any]:
    """Spearman correlations: all demonstrations at once, and means over users with 95 % intervals."""
    quality = [(name, metric) for metric in ("auc", "ndcg") for name in ORDERS]
    return {
        "exact against first_order, all demonstrations": rank_correlation(*_columns(effects, "exact", "first_order")),
        "exact against first_order": _within(effects, "exact", "first_order"),
        **{f"{name} against {metric}": _within(qualities, name, metric) for name, metric in quality},
    }


def _within(rows: Sequence[Effect] | Sequence[Quality], one: str, other: str) -> dict[str, float]:
    """Mean over users of the rank correlation among a user's rows; users with a constant column are left out."""
    each = np.array([rank_correlation(*_columns(own, one, other)) for own in _by_user(rows)])
    each = each[~np.isnan(each)]
    half = 1.96 * each.std(ddof=1) / len(each) ** 0.5 if len(each) > 1 else float("nan")
    mean = float(each.mean()) if len(each) else float("nan")
    return {"mean": mean, "low": mean - half, "high": mean + half, "users": len(each)}


def _columns(rows: Sequence[Any], *names: str) -> list[FloatArray]:
    return [np.array([getattr(row, name) for row in rows]) for name in names]


def _by_user(rows: Sequence[Any]) -> list[list[Any]]:
    users: dict[str, list[Any]] = {}
    for row in rows:
        users.setdefault(row.user, []).append(row)
    return list(users.values())


def draw(effects: Sequence[Effect], qualities: Sequence[Quality], path: Path) -> None:
    """First-order against exact effects, and quality by quarter of a user's sets, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8))
    left, right = figure.subplots(1, 2)
    left.scatter(*_columns(effects, "exact", "first_order"), s=6, alpha=0.4, linewidths=0)
    left.set_xlabel("exact Effect_D")
    left.set_ylabel("first-order Effect_D")
    for shift, name in zip((-0.06, 0.06), ORDERS, strict=True):
        means = np.array([_quarters(own, name) for own in _by_user(qualities)])
        half = 1.96 * means.std(axis=0, ddof=1) / len(means) ** 0.5
        right.errorbar(np.arange(1, 5) + shift, means.mean(axis=0), half, label=ORDERS[name], marker="o", capsize=3)
    right.set_xticks(range(1, 5), ["least", "2nd", "3rd", "most"])
    right.set_xlabel("quarter of a user's sets by Effect_D")
    right.set_ylabel("ndcg@10 (mean over users, 95 % interval)")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _quarters(sets: Sequence[Quality], name: str) -> list[float]:
    """Mean NDCG@10 of each quarter of one user's sets, those with the least effect first."""
    effect, ndcg = _columns(sets, name, "ndcg")
    return [float(quarter.mean()) for quarter in np.array_split(ndcg[np.argsort(effect, kind="stable")], 4)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or draw again, and say the correlations."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.effect_study", description=__doc__)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--users", type=positive, default=100, help="validation users (default: %(default)s)")
    parser.add_argument("--sets", type=int, default=16, help="sets of demonstrations per user, at least 4")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache-dir", type=Path, default=Path(".cache"), help="where trained backbones are kept")
    parser.add_argument("--redraw", action="store_true", help="make numbers and figure again from the tables")
    given = parser.parse_args(arguments)
    if given.sets < 4:
        parser.error("--sets: a user's sets are compared by quarters, so at least 4 are needed")
    folder: Path = given.output_dir
    lacking = [name for name in (DEMONSTRATIONS, SETS) if given.redraw and not (folder / name).is_file()]
    if lacking:
        parser.error(f"--redraw: {folder} holds no {' and no '.join(lacking)}")
    if not given.redraw:
        with usage_errors(parser):
            made = _measure(given.users, given.sets, given.seed, given.cache_dir)
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in made.items():
            (folder / name).write_text(of_records(rows).csv(), encoding="utf-8")
        (folder / MADE).write_text(to_json(provenance.describe() | {"seed": given.seed}), encoding="utf-8")
    effects, qualities = read_records(folder / DEMONSTRATIONS, Effect), read_records(folder / SETS, Quality)
    numbers = to_json(correlations(effects, qualities))
    (folder / NUMBERS).write_text(numbers, encoding="utf-8")
    draw(effects, qualities, folder / FIGURE)
    print(numbers)
    return 0


def _measure(users: int, sets: int, seed: int, cache: Path) -> dict[str, list[Any]]:
    """Both tables, for the default backbone on ml-100k."""
    from tqdm import tqdm

    from methods.lm.hub import quiet_transformers
    from methods.registry import create

    quiet_transformers()
    task = prepare("ml-100k", Protocol(), {role: templates(role) for role in ROLES}).task(Compute(cache=cache))
    method: Any = create("lrgd/stage1")
    method.fit(task, seed)
    rows = list(tqdm(study(method, task, users, sets, seed), total=users, desc="Effect_D", unit="user"))
    return {
        DEMONSTRATIONS: [effect for effects, _ in rows for effect in effects],
        SETS: [quality for _, qualities in rows for quality in qualities],
    }


if __name__ == "__main__":
    raise SystemExit(main())
