"""Devices and processes that a run uses."""

import os

from benchmarks.errors import UsageError


def choose_device(device: str) -> str:
    """``auto`` becomes ``cuda`` where torch sees a GPU, else ``cpu``.

    Raises:
        UsageError: for a device that torch does not have here.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        asked = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"no device {device!r}: give auto, cpu, cuda, or cuda:1 for the second GPU") from error
    if asked.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {device!r}: torch {torch.__version__} sees no GPU here; use --device cpu")
    if asked.type == "cuda" and (asked.index or 0) >= (seen := torch.cuda.device_count()):
        raise UsageError(f"device {device!r}: the last GPU that torch sees here is cuda:{seen - 1}")
    return device


def choose_gpus(device: str) -> tuple[str, ...]:
    """The GPUs that processes are spread over, as CUDA_VISIBLE_DEVICES names them; none for ``cuda:1`` or a CPU."""
    if device != "cuda":
        return ()
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    return tuple(named.split(",")[: torch.cuda.device_count()])


def choose_jobs(jobs: int | None, device: str) -> tuple[int, int]:
    """Processes side by side and CPU threads of each; by default one process on every GPU.

    Cores are those that this process may use, no more than the quota of its container.
    """
    import joblib

    cores = joblib.cpu_count()
    chosen = jobs or (min(4, cores) if device == "cpu" else max(1, len(choose_gpus(device))))
    return chosen, max(1, cores // chosen)
