"""The progress bar of a run."""

import warnings
from types import SimpleNamespace

from benchmarks.cells import Outcome
from benchmarks.progress import Bar
from benchmarks.store import CellId


def test_rounded_costs_do_not_lead_beyond_the_whole(capsys):
    cells = [SimpleNamespace(id=CellId("tiny", name, 0), run=None) for name in "abcdefgh"]
    bar = Bar(cells, {name: 0.1 * n for n, name in enumerate("abcdefgh", start=1)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for cell in reversed(cells):
            for step in range(1, 8):
                bar.report(cell, step / 7, "fit")
            bar.ended(cell, Outcome("finished"))
            assert bar.bar.n <= bar.bar.total
        bar.close()
    assert "100%" in capsys.readouterr().err


def test_the_remaining_time_is_told_once_a_share_of_the_run_is_done(capsys):
    cell = SimpleNamespace(id=CellId("tiny", "tallrec", 0), run=None)
    bar = Bar([cell], {"tallrec": 100.0})
    bar.report(cell, 0.01, "fitting")
    bar.bar.refresh()
    assert "<" not in capsys.readouterr().err
    bar.report(cell, 0.5, "fitting")
    bar.bar.refresh()
    assert "<" in capsys.readouterr().err
    bar.close()


def test_a_stage_that_begins_with_the_method_does_not_name_it_twice(capsys):
    cell = SimpleNamespace(id=CellId("tiny", "tallrec", 0), run=None)
    bar = Bar([cell], {"tallrec": 1.0})
    for stage in ("fitting", "tallrec 25%", "training tiny-llama 50%"):
        bar.report(cell, 0.0, stage)
        bar.bar.refresh()
    bar.close()
    shown = capsys.readouterr().err
    assert all(f" {words}" in shown for words in ("tallrec fitting", "tallrec 25%", "tallrec training tiny-llama 50%"))
    assert "tallrec tallrec" not in shown
