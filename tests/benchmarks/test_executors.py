"""Processes that end otherwise than cells do."""

import multiprocessing
import os
import signal
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from tqdm import tqdm

from benchmarks import executors, machine
from benchmarks.cells import Outcome, Progress
from benchmarks.executors import _receive, processes
from benchmarks.store import CellId, StoreError


@dataclass
class Job:
    """Sleeps for good, or fails to write once another job sleeps."""

    run: Path
    sleeps: bool

    @property
    def id(self) -> CellId:
        return CellId("tiny", "sleeper" if self.sleeps else "full disk", 0)

    def execute(self, progress: Progress) -> Outcome:
        pid = self.run / "pid"
        if self.sleeps:
            pid.write_text(f"{os.getpid()}\n")
            time.sleep(600)
        while not pid.exists() or not pid.read_text().endswith("\n"):
            time.sleep(0.05)
        raise StoreError("disk full")


def test_no_process_is_left_when_the_run_folder_cannot_be_written(tmp_path):
    jobs = [Job(tmp_path, sleeps) for sleeps in (True, False)]
    with pytest.raises(StoreError, match="disk full"):
        list(processes(jobs, lambda *_: None, jobs=2))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_log_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "run.log").mkdir()
    with pytest.raises(StoreError, match=r"run\.log: cannot write: Is a directory"):
        executors.log_to(tmp_path / "run.log")


def test_process_that_is_killed_amid_a_message_is_the_outcome_of_its_cell_alone(tmp_path):
    here, there = multiprocessing.Pipe(duplex=False)
    os.write(there.fileno(), struct.pack("!i", 100) + b"half")
    there.close()
    killed = SimpleNamespace(join=lambda timeout: None, is_alive=lambda: False, exitcode=-9)
    outcome = _receive(here, Job(tmp_path, True), killed, lambda *_: None)
    assert outcome is not None and outcome.status == "failed" and "exit code -9" in outcome.reason


@dataclass
class Seeing(Job):
    """Says which GPU its process sees, when as many others run."""

    number: int = 0

    def execute(self, progress: Progress) -> Outcome:
        (self.run / str(self.number)).touch()
        for _ in range(1200):  # a minute
            if len(list(self.run.glob("[0-9]"))) >= 4:  # run.log lies there, too
                break
            time.sleep(0.05)
        return Outcome("finished", os.environ["CUDA_VISIBLE_DEVICES"])


def test_processes_are_spread_over_the_gpus(tmp_path):
    jobs = [Seeing(tmp_path, False, number) for number in range(6)]
    seen = [outcome.reason for _, outcome in processes(jobs, lambda *_: None, jobs=4, gpus=("2", "GPU-abc"))]
    assert sorted(seen[:4]) == ["2", "2", "GPU-abc", "GPU-abc"]
    assert set(seen) == {"2", "GPU-abc"}


@pytest.mark.parametrize(
    ("device", "named", "there", "gpus"),
    [
        ("cpu", "0,1", 2, ()),
        ("cuda:1", None, 4, ()),
        ("cuda", None, 3, ("0", "1", "2")),
        ("cuda", "2,5", 2, ("2", "5")),
        ("cuda", "2,9", 1, ("2",)),
    ],
)
def test_gpus_are_those_that_the_process_may_use(monkeypatch, device, named, there, gpus):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)
    assert machine.choose_gpus(device) == gpus
    if device != "cpu":
        assert machine.choose_jobs(None, device)[0] == max(1, len(gpus))
    assert machine.choose_jobs(7, device)[0] == 7


def test_no_more_cores_are_used_than_a_container_has(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 3)  # reads affinity and quotas
    assert machine.choose_jobs(None, "cpu") == (3, 1)
    assert machine.choose_jobs(1, "cpu") == (1, 3)
    assert machine.choose_jobs(1, "cuda:0") == (1, 3)


@dataclass
class Training(Job):
    """Shows bars of its own."""

    def execute(self, progress: Progress) -> Outcome:
        progress(0.0, "fitting")
        with tqdm(total=4, desc="training", mininterval=0) as bar:
            bar.update(3)
        for _ in tqdm([1], leave=False, mininterval=0):
            pass
        return Outcome("finished")


def test_bars_of_a_process_tell_the_runs_own_how_far_they_are(tmp_path):
    said = list[str]()
    ((_, outcome),) = processes([Training(tmp_path, False)], lambda job, part, stage: said.append(stage), jobs=1)
    assert outcome.status == "finished"
    assert said[:3] == ["fitting", "training 0%", "training 75%"]
    assert "%" not in (tmp_path / "run.log").read_text()


@dataclass
class Forking(Job):
    """Dies as a process that ran out of memory does, and leaves a process that holds the end of its pipe."""

    def execute(self, progress: Progress) -> Outcome:
        if child := os.fork():
            (self.run / "pid").write_text(str(child))
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
        raise AssertionError


@dataclass
class Threaded(Job):
    """Leaves a thread that its process waits for."""

    def execute(self, progress: Progress) -> Outcome:
        threading.Thread(target=time.sleep, args=(600,)).start()
        return Outcome("finished")


def test_killed_process_that_leaves_another_does_not_hold_the_run(tmp_path):
    try:
        ((_, outcome),) = processes([Forking(tmp_path, False)], lambda *_: None, jobs=1)
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert outcome.status == "failed" and "exit code -9" in outcome.reason


def test_process_that_is_done_and_does_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "PATIENCE", 0.1)
    assert [outcome for _, outcome in processes([Threaded(tmp_path, False)], lambda *_: None, jobs=1)] == [
        Outcome("finished")
    ]
