"""Parts of one run, made in folders of their own as on the nodes of a cluster, become one run."""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.errors import UsageError
from benchmarks.store import CellId, RunFolder, to_json
from methods.base import count


def merge(parts: Sequence[RunFolder], into: RunFolder) -> list[str]:
    """Copy the finished cells of the parts into a folder, of several fits of one the latest, and write its manifest.

    Args:
        parts: folders that the same command filled, but for ``--part`` and ``--output-dir``; what is not finished in
            one of them may be so in another, or nowhere.
        into: the folder, new or of the same run, and held for writing.

    Returns:
        One sentence for every part that was made with other packages than the first, and one for what is in no part.

    Raises:
        UsageError: if a folder is of another run.
        StoreError: if a part holds no run, or a folder cannot be written.
    """
    manifests = {str(part.path): part.read_manifest() for part in parts}
    if (into.path / "manifest.json").exists():
        manifests[str(into.path)] = into.read_manifest()
    first, manifest = next(iter(manifests.items()))
    for path, other in manifests.items():
        if (other["cells"], other["suite"]["statistics"]) != (manifest["cells"], manifest["suite"]["statistics"]):
            raise UsageError(
                f"{path} is of another run than {first}: parts come from one command, but for --part and "
                "--output-dir, one version of the data, and one kind of device"
            )
    outcomes = {cell: outcome for each in manifests.values() for cell, outcome in each.get("outcomes", {}).items()}
    left = list[CellId]()
    for each in manifest["cells"]:
        cell, key = CellId(each["dataset"], each["method"], each["seed"]), each["key"]
        holders = [part for part in (into, *parts) if part.record(cell, key)]
        if holders and (latest := max(holders, key=partial(_finished, cell=cell))) is not into:
            with into.writing(cell) as folder:
                shutil.copytree(latest.cell(cell), folder, dirs_exist_ok=True)
        if holders:
            outcomes.pop(str(cell), None)  # of another attempt
        elif str(cell) not in outcomes:
            left.append(cell)
    into.write("manifest.json", to_json({**manifest, "outcomes": outcomes}))
    said = [f"{path}: {found}" for path, other in manifests.items() if (found := _unlike(manifest, other))]
    if left:
        of = f"{len(left)} of {count(len(manifest['cells']), 'cell')}"
        said.append(
            f"{of} finished in no part, the first {left[0]}: the command without --part runs them in {into.path}"
        )
    return said


def _finished(part: RunFolder, cell: CellId) -> int:
    """When a cell was finished; a copy has the time of what it was copied from."""
    return (part.cell(cell) / "record.json").stat().st_mtime_ns


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Which packages, Python among them, two runs had in different versions; empty if none."""
    first, second = (run["provenance"]["packages"] | {"python": run["provenance"]["python"]} for run in (one, other))
    unlike = (f"{name} {second.get(name)} (not {first[name]})" for name in first if first[name] != second.get(name))
    return ", ".join(unlike)
