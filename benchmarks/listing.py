"""What ``python -m benchmarks.run list`` prints."""

from argparse import Namespace
from collections.abc import Callable, Iterator

from benchmarks import suite
from benchmarks.errors import UsageError
from benchmarks.families import FAMILIES, SHARED, expand
from data.prompts.library import roles, sets, templates
from data.sources import HELD, NAMED
from methods.registry import REGISTRY, create


def list_(options: Namespace) -> int:
    """Print what there is to choose from, one thing a line."""
    listings: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
        "methods": _methods,
        "datasets": _datasets,
        "suites": _suites,
        "conditions": _conditions,
        "templates": _templates,
    }
    for name in options.what:
        if name not in listings:
            raise UsageError(f"no list of {name!r}; there are {', '.join(listings)}")
    for name in options.what or listings:
        if len(options.what) != 1:
            print(f"{name}:")
        entries = list(listings[name]())
        width = max(len(entry) for entry, _ in entries)
        for entry, text in entries:
            print(f"  {entry:<{width}} {text}")
    return 0


def _methods() -> Iterator[tuple[str, str]]:
    for name in REGISTRY:
        info = create(name).info
        yield name, f"{info.paper}; needs {', '.join(sorted(info.needs)) or 'nothing'}"


def _datasets() -> Iterator[tuple[str, str]]:
    yield from NAMED.items()
    yield "FOLDER", f"a folder with {HELD}"


def _suites() -> Iterator[tuple[str, str]]:
    yield from ((name, suite.load(name).description) for name in suite.available())


def _conditions() -> Iterator[tuple[str, str]]:
    changes = {"none": "nothing", "values": "histories or titles"}
    for condition in expand(dict.fromkeys(FAMILIES), {SHARED: templates(SHARED)}):
        reach = condition.perturbation.reach
        yield condition.name, f"changes {changes.get(reach, reach)}"


def _templates() -> Iterator[tuple[str, str]]:
    for role in roles():
        yield from ((template.id, template.source.replace("\n", "\\n")) for template in templates(role, sets()))
