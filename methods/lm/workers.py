"""Batches side by side on the cores of a CPU.

The kernels of a small model are too short to share among cores. Threads that take a batch each, with kernels on
cores of their own, scale where one thread whose kernels run on all cores does not.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
MOST = 8
"""Threads at most: Python itself runs in one of them at a time."""


def workers_for(device: torch.device) -> int:
    """How many batches to compute at a time: on a CPU as many as torch may use cores, up to :data:`MOST`."""
    return min(torch.get_num_threads(), MOST) if device.type == "cpu" else 1


def ahead(makers: Iterable[Callable[[], T]]) -> Iterator[T]:
    """What each of the makers makes, in order; the next one is at work while the caller uses what came before."""
    with ThreadPoolExecutor(1) as pool:
        waiting: list[Future[T]] = []
        for make in makers:
            waiting.append(pool.submit(make))
            if len(waiting) > 1:
                yield waiting.pop(0).result()
        for last in waiting:
            yield last.result()


def side_by_side(tasks: Iterable[T], work: Callable[[T], Iterable[T]], workers: int) -> None:
    """Do tasks in order, several at a time; the first error ends them all.

    Args:
        tasks: what to do.
        work: does a task and gives back what is left of it to do next.
        workers: threads, among which torch's own are divided.
    """
    pending = list(tasks)[::-1]

    def take() -> None:
        while pending:
            try:
                task = pending.pop()
            except IndexError:  # another thread was faster
                return
            pending.extend(reversed(list(work(task))))

    if workers == 1:
        return take()
    threads = torch.get_num_threads()

    def take_alone() -> None:
        torch.set_num_threads(max(1, threads // workers))
        try:
            take()
        except BaseException:
            pending.clear()
            raise

    try:
        with ThreadPoolExecutor(workers) as pool:
            try:
                for done in [pool.submit(take_alone) for _ in range(workers)]:
                    done.result()
            finally:
                pending.clear()
    finally:
        torch.set_num_threads(threads)
