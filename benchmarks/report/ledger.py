"""What every method was given: trials, passes, negatives, time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.report.leaderboard import converged, mean
from benchmarks.report.results import Results
from benchmarks.report.table import Column, Table

LEDGER = (
    Column("method", "Method"),
    Column("settings", "Settings"),
    Column("search_trials", "Search trials"),
    Column("trials", "Trials in the fit"),
    Column("epochs", "Epochs"),
    Column("ended", "Ended"),
    Column("interactions", "Interactions seen"),
    Column("negatives", "Negatives"),
    Column("loss", "Loss"),
    Column("tokens", "Tokens seen"),
    Column("fit_seconds", "Fit [s]", digits=1),
    Column("seconds_per_1000", "Score 1000 rankings [s]", digits=2),
    Column("host_memory", "Peak memory [MiB]", digits=0),
    Column("gpu_memory", "Peak GPU memory [MiB]", digits=0),
)
ENDED = {True: "converged", False: "at its limit", None: None}


def ledger(results: Results) -> Table:
    """Budget of every method. Wall-clock time differs from run to run, so no other table holds it."""
    return Table(
        LEDGER,
        [_row(results, method) for method in results.methods],
        f"{results.dataset}: numbers are means over seeds, memory the largest; the machine is in manifest.json. Search "
        "trials: fits of --tune on the validation part, the first of them with the method's defaults; 0 where the "
        "method runs with its defaults. Trials in the fit: what the method itself tries on validation. Epochs: passes "
        "over the training data; of language models, rounds of some of its prompts between two looks at the validation "
        "part, see interactions. Negatives: per positive in training. Fit: with the seconds of what another row had "
        "trained before; weights that come with the project count as tokens alone, sentence embeddings where they "
        "were made. Peak memory: of the process that fitted and scored, libraries included, and, where rows run one "
        "after the other in one process, the rows before; on a GPU of the row alone.",
    )


def _row(results: Results, method: str) -> dict[str, Any]:
    records = results.records[method]
    reports = [record["fit"] for record in records]
    # runs from before the search and the ledger lack these keys
    found = results.manifest["datasets"][results.dataset].get("tuned", {}).get(method)
    return {
        "method": method,
        "settings": _origin(records[0]["settings"], found["settings"] if found else None),
        "search_trials": found["trials"] if found else 0,
        **{key: mean(reports, key) for key in ("epochs", "interactions", "tokens", "trials")},
        "ended": ENDED[converged(reports)],
        **{key: reports[0].get(key) or None for key in ("negatives", "loss")},
        "fit_seconds": float(np.mean([r["seconds"]["fit"] + r["fit"].get("reused", 0.0) for r in records])),
        "seconds_per_1000": float(np.mean([record["seconds"]["score"] for record in records])),
        **{f"{where}_memory": _peak(records, where) for where in ("host", "gpu")},
    }


def _peak(records: Sequence[Mapping[str, Any]], where: str) -> float | None:
    """Largest memory over the seeds; None where it was not recorded or not used."""
    return max((record["memory"][where] for record in records if where in record.get("memory", {})), default=None)


def _origin(settings: dict[str, Any], tuned: dict[str, Any] | None) -> str:
    """Where a method's settings come from.

    >>> _origin({"rate": 0.1, "epochs": 3}, {"rate": 0.1})
    'tuned, but for epochs'
    """
    given = [key for key, value in settings.items() if (key, value) not in (tuned or {}).items()]
    origin = "default" if tuned is None else "tuned"
    return f"{origin}, but for {', '.join(sorted(given))}" if given else origin
