"""What a run was made with: code, packages, machine."""

import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from data.fingerprint import fingerprint

DISTRIBUTION = "promptrec-bench"
CODE = (":/benchmarks", ":/methods", ":/data", ":/pyproject.toml", ":(top,exclude)*.md")  # as git names paths
PACKAGES = ("torch", "transformers", "peft", "recbole", "numpy", "scipy", "pandas", "tokenizers")


def version() -> str:
    """Version of the installed distribution; ``0+unknown`` in a checkout that is not installed."""
    return _version(DISTRIBUTION) or "0+unknown"


def describe() -> dict[str, Any]:
    """Version, commit, package versions, Python and machine, as JSON values."""
    return {
        **code(),
        "packages": packages(),
        "python": platform.python_version(),
        "machine": {"system": platform.system(), "processor": _processor(), "cores": os.cpu_count(), **_gpus()},
    }


def _gpus() -> dict[str, list[str]]:
    """Names of the GPUs that torch sees, if it is in use and sees any."""
    torch = sys.modules.get("torch")
    names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if torch else []
    return {"gpus": names} if names else {}


def _processor() -> str:
    """Architecture and, where Linux says it, model: rounding differs between them."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join([platform.machine(), *models[:1]])


def packages() -> dict[str, str | None]:
    """Versions of the packages that results depend on; None for one that is not there."""
    return {name: _version(name) for name in PACKAGES}


@cache
def code() -> dict[str, Any]:
    """Version, commit that last changed what this process runs, and whether its code differs from the commit."""
    return {
        "version": version(),
        "commit": _git("log", "-1", "--format=%H", "--", *CODE),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", *CODE)),
    }


@cache
def source(*modules: str) -> str:
    """Fingerprint of the files of modules that somebody else has written, as they were at first."""
    files = [getattr(sys.modules.get(module), "__file__", None) for module in modules]
    return fingerprint([Path(file).read_bytes().hex() for file in files if file and Path(file).is_file()])


def reset_peak_memory() -> None:
    """Start over with the largest memory on a GPU; that of a process cannot be reset."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, float]:
    """Largest memory in MiB: resident of this process (``host``); if it used a GPU, on it since the reset (``gpu``)."""
    found = {}
    if sys.platform != "win32":
        import resource

        unit = 2**20 if sys.platform == "darwin" else 2**10
        found["host"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        found["gpu"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """What git says of the checkout this file is in; None outside a checkout or without git."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    try:
        answer = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
