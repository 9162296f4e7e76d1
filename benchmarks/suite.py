"""Suite files: what is run is data, not code."""

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, StrictBool, StrictInt, ValidationError

from benchmarks.conditions import ConditionError
from benchmarks.families import Grades, expand
from benchmarks.perturbations.base import PerturbationError
from benchmarks.protocol import Protocol
from data.errors import InputError
from data.spelling import near
from methods.registry import MethodError, check_setting, fixed, names, settings_of


class SuiteError(InputError):
    """A suite file cannot be used; the message names file and key."""


class Statistics(BaseModel, frozen=True, extra="forbid"):
    """How differences are judged.

    Args:
        draws: sign flips per permutation test.
        resamples: bootstrap resamples.
        level: level of intervals; 1 - level is the threshold of significance marks.
        against: the method that all others are compared with; without it, every pair is compared.
    """

    draws: int = Field(default=10_000, ge=99, strict=True)
    resamples: int = Field(default=2_000, ge=99, strict=True)
    level: float = Field(default=0.95, gt=0, lt=1, strict=True)
    against: str = ""


TYPES = {
    "tuple_type": "a list",
    "dict_type": "a table",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
}
"""Kind of error -> what may stand there, in the words of a suite file."""
SHOULD = "Input should be "


def _named(name: str) -> str:
    if not name.strip(". ") or Path(name).name != name:
        raise ValueError("a name is needed that can be a folder's")
    return name


def _some(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("at least one is needed")
    return values


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for value in _some(values):
        if values.count(value) > 1:
            raise ValueError(f"each is needed once, and {value!r} is there twice")
    return values


class Suite(BaseModel, frozen=True, extra="forbid"):
    """Data sets, methods, seeds and conditions of a run.

    Args:
        name: name of the suite.
        description: one sentence for ``list``.
        datasets: names or folders.
        methods: names or patterns of methods, or ``package.module:Class``.
        seeds: one fit of every method per seed.
        protocol: split, candidates, history length, users.
        conditions: condition family -> list of grades or variants, or true for all the family has by default.
        settings: method -> setting -> value.
        templates: further templates: a set that comes with the project, or a file.
        statistics: how differences are judged.
        limit: judge this many users only; such results are marked as not reportable.
    """

    name: Annotated[str, AfterValidator(_named)]
    description: str = ""
    datasets: Annotated[tuple[str, ...], AfterValidator(_once)] = ("ml-100k",)
    methods: Annotated[tuple[str, ...], AfterValidator(_some)]
    seeds: Annotated[tuple[StrictInt, ...], AfterValidator(_once)] = (0,)
    protocol: Protocol = Protocol()
    conditions: dict[str, tuple[StrictBool | float | str, ...] | StrictBool] = {}
    settings: dict[str, dict[str, Any]] = {}
    templates: tuple[Path, ...] = ()
    statistics: Statistics = Statistics()
    limit: int | None = Field(default=None, ge=2, strict=True)

    @property
    def families(self) -> dict[str, Grades]:
        """Condition family -> its grades or variants, None for the default ones."""
        chosen = {name: grades for name, grades in self.conditions.items() if grades is not False}
        return {name: None if grades is True else grades for name, grades in chosen.items()}


def typed(text: str) -> Any:
    """A value from the command line: a TOML value where it is one, else the text.

    >>> typed("0.5"), typed("validation")
    (0.5, 'validation')
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def available() -> dict[str, Path]:
    """Suites that come with the project, by name."""
    folder = Path(str(resources.files("benchmarks"))) / "suites"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load(name: str, overrides: Mapping[str, Any] | None = None) -> Suite:
    """A suite by name or path of a TOML file; ``overrides`` from the command line win.

    Settings in either may stand at patterns such as ``ganprompt/*``, for all methods that match, but for what a row is
    about itself; those at a name win over them.

    Args:
        name: a name of :func:`available`, or a path ending in ``.toml``.
        overrides: keys of :class:`Suite`; mappings are merged key by key.

    Raises:
        SuiteError: for an unknown suite, a file that is not TOML, an unknown or unfit key, or an infinite setting.
        MethodError: for settings of a method or pattern of which there is none, or that none of these has.
    """
    path = Path(name) if name.endswith(".toml") else available().get(name)
    if path is None or not path.exists():
        what, suites = "file" if name.endswith(".toml") else "suite", available()
        raise SuiteError(
            f"no {what} {name!r}: {near(name, suites)}suites are {', '.join(suites)}, or the path of a .toml file"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: not a TOML file: {error}") from error
    merged = _merge(content, overrides or {})
    try:
        found = Suite.model_validate(merged)
        expand(found.families, {})
    except ValidationError as error:
        raise SuiteError("\n".join(_sentences(path, error, merged, overrides or {}))) from error
    except (ConditionError, PerturbationError) as error:
        raise SuiteError(f"{path}: conditions: {error}") from error
    _check_against(path, found.statistics.against)
    file, line = (_by_method(layer.get("settings", {})) for layer in (content, overrides or {}))
    return found.model_copy(update={"settings": _merge(file, line)})


def _check_against(path: Path, against: str) -> None:
    """See that the method others are compared with is one method."""
    try:
        several = against and names([against]) != (against,)
    except MethodError as error:
        raise SuiteError(f"{path}: statistics.against: {error}") from error
    if several:
        raise SuiteError(f"{path}: statistics.against names one method, not the pattern {against!r}")


def _by_method(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Settings by the names of methods, for those of names and patterns.

    >>> _by_method({"ganprompt/mmd": {"rate": 0.1}, "ganprompt/m*": {"rate": 0.2}})
    {'ganprompt/mmd': {'rate': 0.1}}
    """
    found: dict[str, dict[str, Any]] = {}
    for key in sorted(settings, key=lambda key: key in names([key])):  # patterns first
        rows = names([key])
        for setting, value in settings[key].items():
            if not any(setting in settings_of(name) for name in rows):  # or it would do nothing
                check_setting(next((row for row in rows if setting in fixed(row)), rows[0]), setting)
            if isinstance(value, float) and not math.isfinite(value):  # TOML has inf and nan, records have not
                raise SuiteError(f"settings.{key}.{setting}: a finite number is needed, not {value!r}")
        for name in rows:
            own = {setting: value for setting, value in settings[key].items() if setting in settings_of(name)}
            found.setdefault(name, {}).update(own)
    return found


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        if not isinstance(value, Mapping) or key not in merged:
            merged[key] = value
        elif isinstance(merged[key], Mapping):  # or it is wrong, and checks are to say so
            merged[key] = _merge(merged[key], value)
    return merged


def _sentences(
    path: Path, error: ValidationError, content: Mapping[str, Any], overrides: Mapping[str, Any]
) -> Iterator[str]:
    """One sentence for every place in the file or on the command line, however many types are possible there."""
    places: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for problem in error.errors():
        keys = tuple(map(str, problem["loc"]))
        place = keys if problem["type"] == "missing" else keys[: _depth(content, keys)]
        places.setdefault(place, []).append(problem)
    for place, problems in places.items():
        if _is_value(overrides, place):
            yield _sentence(f"--{place[-1].replace('_', '-')}", problems)
        else:
            yield f"{path}: {_sentence('.'.join(place), problems)}"


def _is_value(content: Any, keys: Sequence[str]) -> bool:
    """Whether the keys lead into a nested mapping as far as a value that is none itself."""
    for key in keys:
        if not isinstance(content, Mapping) or key not in content:
            return False
        content = content[key]
    return not isinstance(content, Mapping)


def _depth(content: Any, keys: Sequence[str]) -> int:
    """How many of the keys lead into a nested mapping.

    >>> _depth({"conditions": {"typos": 0.1}}, ["conditions", "typos", "bool"])
    2
    """
    inside = keys and isinstance(content, Mapping) and keys[0] in content
    return 1 + _depth(content[keys[0]], keys[1:]) if inside else 0


def _sentence(where: str, problems: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong at a place, and what may stand there."""
    first = problems[0]
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        keys = {"protocol": [field.name for field in fields(Protocol)], "statistics": list(Statistics.model_fields)}
        section, _, last = where.rpartition(".")
        known = keys.get(section, list(Suite.model_fields))
        return f"unknown key {where}: {near(last, known)}keys are {', '.join(known)}"
    found = (TYPES.get(problem["type"]) or problem["msg"].removeprefix(SHOULD) for problem in problems)
    choices = list(dict.fromkeys(found))
    if first["msg"].startswith(SHOULD):
        choices[0] = SHOULD + choices[0]
    but = "" if first["type"] == "missing" else f", not {first['input']!r}"
    return f"{where}: {' or '.join(choices).removeprefix('Value error, ')}{but}"
