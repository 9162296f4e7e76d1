"""Where cells run: one after the other in this process, or several processes side by side."""

import logging
import multiprocessing
import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from benchmarks.cells import Outcome, Progress
from benchmarks.store import CellId, StoreError, disk_errors


class Job(Protocol):
    """A cell, or anything else that is executed for a method on a data set with a seed."""

    @property
    def id(self) -> CellId:
        """Whose results these are."""
        ...

    @property
    def run(self) -> Path:
        """The run folder."""
        ...

    def execute(self, progress: Progress) -> Outcome:
        """Do it, and store what comes of it in the run folder.

        Raises:
            StoreError: if the run folder cannot be written.
        """
        ...


Report = Callable[[Job, float, str], None]
Executor = Callable[[Sequence[Job], Report], Iterator[tuple[Job, Outcome]]]
PATIENCE = 10.0
"""Seconds that a process has to end when its cell is done."""


def attempt(cell: Job, progress: Progress) -> Outcome:
    """Execute a cell; an error of the method is its outcome, an error of the run folder ends the run.

    Raises:
        StoreError: if the run folder cannot be written.
    """
    try:
        return cell.execute(progress)
    except StoreError:
        raise
    except (Exception, SystemExit) as error:  # a method that calls sys.exit ends its own cell
        logging.getLogger(__name__).error("%s failed\n%s", cell.id, traceback.format_exc())
        return Outcome("failed", f"{type(error).__name__}: {error}")


def serial(cells: Sequence[Job], report: Report) -> Iterator[tuple[Job, Outcome]]:
    """Cells one after the other, in this process."""
    for cell in cells:
        yield cell, attempt(cell, lambda fraction, stage, cell=cell: report(cell, fraction, stage))  # type: ignore[misc]


def processes(
    cells: Sequence[Job], report: Report, jobs: int, gpus: Sequence[str] = ()
) -> Iterator[tuple[Job, Outcome]]:
    """Up to ``jobs`` cells at a time, each in a fresh process that ends with its parent.

    Each process sees one of the GPUs, and each GPU has as many processes as another or one more. A process that dies
    (killed for its memory, say) is the outcome of its cell alone.

    Raises:
        StoreError: if the run folder cannot be written.
    """
    context = multiprocessing.get_context("spawn")
    waiting, running = list(cells), dict[Connection, tuple[Job, Any, str | None]]()
    free = deque(gpus[n % len(gpus)] if gpus else None for n in range(jobs))
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                here, there = context.Pipe(duplex=False)
                gpu = free.popleft()
                process = context.Process(target=_child, args=(cell, there, gpu))
                process.start()
                there.close()
                running[here] = (cell, process, gpu)
            ready = wait(list(running), timeout=1.0)
            for connection, (cell, process, gpu) in list(running.items()):
                # what a killed process has started may hold its end of the pipe
                if connection in ready or not process.is_alive():
                    outcome = _receive(connection, cell, process, report)
                    if outcome is not None:
                        free.append(gpu)
                        yield running.pop(connection)[0], outcome
    finally:
        for _, process, _ in running.values():
            process.kill()
        for _, process, _ in running.values():
            process.join()  # who holds the run folder next meets no writer


def _receive(connection: Connection, cell: Job, process: Any, report: Report) -> Outcome | None:
    """What a child says: None for progress, its outcome at the end."""
    try:
        message = connection.recv() if connection.poll() else None
    except (EOFError, OSError):  # OSError: it was killed amid a message
        message = None
    if message is None:
        _end(process)
        message = Outcome(
            "failed", f"its process ended with exit code {process.exitcode} (-9: killed, often for memory)"
        )
    if isinstance(message, StoreError):
        raise message
    if isinstance(message, Outcome):
        _end(process)
        return message
    report(cell, *message)
    return None


def _end(process: Any) -> None:
    """Wait for a process that has said its last, and kill it where something, such as a thread, keeps it."""
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()


def _child(cell: Job, connection: Connection, gpu: str | None) -> None:
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read when CUDA is first used
    log_to(cell.run / "run.log", streams=True)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _show(lambda stage: connection.send((0.0, stage)))
    try:
        connection.send(attempt(cell, lambda fraction, stage: connection.send((fraction, stage))))
    except StoreError as error:
        connection.send(error)


def _show(say: Callable[[str], None]) -> None:
    """Have the bars of this process, such as that of a training, say how far they are instead of drawing themselves."""
    from tqdm import tqdm

    def display(bar: Any, msg: str | None = None, pos: int | None = None) -> None:
        if msg is None:  # or it clears its line
            say(f"{bar.desc.removesuffix(': ')} {bar.n / bar.total:.0%}" if bar.total else bar.desc)

    tqdm.display = display  # type: ignore[method-assign, assignment]
    tqdm.monitor_interval = 0  # its thread would speak between the words of this one


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def log_to(path: Path, streams: bool = False) -> None:
    """Send the messages and warnings of this process to a log file, and its output too if ``streams``.

    Raises:
        StoreError: if the file cannot be written.
    """
    with disk_errors(path):
        handler = logging.FileHandler(path, encoding="utf-8")
    if streams:
        with path.open("a", encoding="utf-8") as stream:
            for descriptor in (1, 2):
                os.dup2(stream.fileno(), descriptor)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
