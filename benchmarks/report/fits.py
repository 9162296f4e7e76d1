"""Every fit on its own: what the means over seeds are made of."""

from benchmarks.report.leaderboard import converged
from benchmarks.report.results import PRIMARY, Results
from benchmarks.report.table import Column, Table

FITS = (
    Column("method", "Method"),
    Column("seed", "Seed"),
    Column("unseen", "Unseen mean", digits=4),
    Column("clean", "Clean", digits=4),
    Column("clean_auc", "AUC", digits=4),
    Column("clean_hit@10", "Hit@10", digits=4),
    Column("epochs", "Epochs"),
    Column("converged", "Converged"),
)


def fits(results: Results) -> Table:
    """One row per method and seed."""
    if not results.methods:
        return Table(FITS, [])
    means = {metric: results.values(metric).mean(axis=2) for metric in (PRIMARY, "auc", "hit@10")}
    rows = [
        {
            "method": method,
            "seed": seed,
            "unseen": float(means[PRIMARY][m, results.unseen, s].mean()) if len(results.unseen) else None,
            "clean": float(means[PRIMARY][m, 0, s]),
            "clean_auc": float(means["auc"][m, 0, s]),
            "clean_hit@10": float(means["hit@10"][m, 0, s]),
            "epochs": record["fit"]["epochs"],
            "converged": converged([record["fit"]]),
        }
        for m, method in enumerate(results.methods)
        for s, (seed, record) in enumerate(zip(results.seeds, results.records[method], strict=True))
    ]
    return Table(FITS, rows, f"{results.dataset}, {PRIMARY}, clean AUC and Hit@10 of every fit.")
