"""The progress bar of a run."""

import sys
from collections.abc import Mapping, Sequence

from benchmarks import executors
from benchmarks.cells import Outcome
from benchmarks.store import CellId

FORM = "{{percentage:3.0f}}%|{{bar:20}}| {{elapsed}}{} {{postfix}}"
FORESEEN = 0.02
"""Share of a run from which on the remaining time is shown: from less it cannot be told."""


class Bar:
    """The progress bar of a run, weighted by the expected cost of the cells."""

    def __init__(self, cells: Sequence[executors.Job], cost: Mapping[str, float]) -> None:
        from tqdm import tqdm

        self._cost, self._at = cost, dict.fromkeys((cell.id for cell in cells), 0.0)
        self._stages: dict[CellId, str] = {}
        form, pace = FORM.format(""), 0.1 if sys.stderr.isatty() else 30
        self._whole = sum(cost[cell.id.method] for cell in cells)
        # the mean pace so far: that of the last cell alone would make the remaining time jump
        self.bar = tqdm(total=self._whole, bar_format=form, file=sys.stderr, mininterval=pace, miniters=0, smoothing=0)

    def report(self, cell: executors.Job, fraction: float, stage: str) -> None:
        """A cell has reached a fraction of its work."""
        step = max(0.0, fraction - self._at[cell.id])
        self._at[cell.id] += step
        begins = cell.id not in self._stages
        self._stages[cell.id] = stage if stage.startswith(cell.id.method) else f"{cell.id.method} {stage}"
        self.bar.set_postfix_str(", ".join(self._stages.values()), refresh=begins)
        left = self._whole - self.bar.n
        self.bar.update(min(step * self._cost[cell.id.method], left))  # rounded sums may be above the whole
        if self.bar.n >= FORESEEN * self._whole:
            self.bar.bar_format = FORM.format("<{remaining}")

    def ended(self, cell: executors.Job, outcome: Outcome) -> None:
        """A cell has ended."""
        self.report(cell, 1.0, outcome.status)
        del self._stages[cell.id]
        reason = f": {outcome.reason}" if outcome.reason else ""
        log = f" (see {cell.run / 'run.log'})" if outcome.status == "failed" else ""
        self.bar.write(f"{cell.id}: {outcome.status}{reason}{log}", file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()
