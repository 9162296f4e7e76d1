"""The templates of the suite, read from the TOML files beside this module."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence, Set
from importlib import resources
from pathlib import Path
from typing import get_args

from data.prompts.template import DOMAIN, LABELS, ListStyle, Role, Template, TemplateError, parse
from data.spelling import near

VALUES: Mapping[Role, frozenset[str]] = {
    "recommend": frozenset({"history", "target"}),
    "sequential": frozenset({"history"}),
    "choose": frozenset({"history", "candidates"}),
    "attribute": frozenset({"history", "attribute"}),
    "augment": frozenset({"title", "year", "genres", "description", "neighbours"}),
    "demonstrate": frozenset({"demonstrations", "history", "target"}),
    "rank": frozenset({"history", "candidates"}),
}
"""What a role has values for, beside labels and words of the data set."""
OPTIONAL: Set[Role] = {"augment"}
"""Roles whose templates may leave out any of it."""
FILE_KEYS = {"role", "template"}
TEXT_KEYS = {"id", "text", "replaces", "strategy", "separator"}
KEYS = {"family", "labels"} | TEXT_KEYS


def read_templates(path: Path) -> tuple[Template, ...]:
    """Templates of one TOML file: a ``role`` and ``[[template]]`` tables with id, family and text.

    Raises:
        TemplateError: naming file and template, for a missing or unknown key, a value that is no text, an unknown role
            or slot, a slot the role has no value for, one it requires and the text lacks, or an id used twice.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        _check_keys(content, FILE_KEYS, FILE_KEYS)
    except OSError as error:
        raise TemplateError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TemplateError(f"{path.name}: not a TOML file: {error}") from error
    except TemplateError as error:
        raise TemplateError(f"{path.name}: {error}") from error
    role = content["role"]
    if role not in get_args(Role):
        raise TemplateError(f"{path.name}: unknown role {role!r}; roles are {', '.join(get_args(Role))}")
    templates: dict[str, Template] = {}
    tables = content["template"]
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise TemplateError(f"{path.name}: every template is a table of its own, [[template]]")
    for number, table in enumerate(tables, start=1):
        where = f"{path.name}, template {table.get('id', number)!r}"
        try:
            template = _template(role, table)
        except TemplateError as error:
            raise TemplateError(f"{where}: {error}") from error
        if template.id in templates:
            raise TemplateError(f"{where}: id used twice")
        templates[template.id] = template
    return tuple(templates.values())


def _check_keys(table: Mapping[str, object], required: Set[str], known: Set[str]) -> None:
    missing, unknown = required - table.keys(), table.keys() - known
    if missing or unknown:
        found = f"missing keys {sorted(missing)}, unknown keys {sorted(unknown)}"
        raise TemplateError(f"{found}; keys are {sorted(known)}")


def _check_texts(table: Mapping[str, object]) -> None:
    for key in sorted(TEXT_KEYS & table.keys()):
        value = table[key]
        if not isinstance(value, str) or not (value if key == "separator" else value.strip()):
            raise TemplateError(f"{key} is a text that is not empty, not {value!r}")


def _template(role: Role, table: dict[str, object]) -> Template:
    _check_keys(table, {"id", "family", "text"}, KEYS)
    _check_texts(table)
    if table["family"] not in ("seen", "unseen"):
        raise TemplateError(f"family is 'seen' or 'unseen', not {table['family']!r}")
    values = {key: value for key, value in table.items() if key not in ("text", "separator")}
    if "separator" in table:
        values["style"] = ListStyle(separator=str(table["separator"]))
    if "labels" in values:
        values["labels"] = _labels(table["labels"])
    template = Template(role=role, parts=parse(str(table["text"]).strip()), **values)  # type: ignore[arg-type]
    own = set(template.slots) - DOMAIN - LABELS
    if unknown := own - VALUES[role]:
        raise TemplateError(f"role {role!r} has no values for slots {sorted(unknown)}; it has {sorted(VALUES[role])}")
    if role not in OPTIONAL and (lacking := VALUES[role] - own):
        raise TemplateError(f"role {role!r} needs slots {sorted(lacking)}")
    return template


def _labels(words: object) -> tuple[str, str]:
    match words:
        case [str(positive), str(negative)] if len({"", positive.strip(), negative.strip()}) == 3:
            return positive, negative
    raise TemplateError(f"labels are two different words, positive and negative, not {words!r}")


def roles() -> tuple[Role, ...]:
    """Roles the suite has templates for."""
    return tuple(role for role in get_args(Role) if (_folder() / f"{role}.toml").exists())


def _folder() -> Path:
    return Path(str(resources.files("data.prompts")))


def sets() -> tuple[str, ...]:
    """Names of further sets of templates that come with the project: folders with one file per role."""
    return tuple(sorted({path.parent.name for path in _folder().glob("*/*.toml")}))


def templates(role: Role, further: Iterable[Path | str] = ()) -> tuple[Template, ...]:
    """All templates of a role: those that every suite has, and those of further sets.

    Args:
        role: what the answer is used for.
        further: names of :func:`sets`, or paths of TOML files.

    Raises:
        TemplateError: if the role has no file, or, naming the files, for an id used twice or families that are not
            disjoint.
    """
    own = _folder() / f"{role}.toml"
    if not own.exists():
        raise TemplateError(f"no templates for role {role!r}; roles with templates are {', '.join(roles())}")
    paths = [own]
    for one in further:
        paths += sorted((_folder() / one).glob("*.toml")) if str(one) in sets() else [_file(str(one))]
    found = [t for path in paths for t in read_templates(path) if t.role == role]
    try:
        check_disjoint(found)
    except TemplateError as error:
        raise TemplateError(f"{', '.join(path.name for path in paths)}: {error}") from error
    return tuple(found)


def _file(name: str) -> Path:
    """A file of templates.

    Raises:
        TemplateError: if there is none, and the name is more likely to be that of a set.
    """
    if not name.endswith(".toml") and not Path(name).exists():
        hint, known = near(name, sets()), ", ".join(sets())
        raise TemplateError(f"no templates {name!r}: {hint}give {known} or the path of a .toml file")
    return Path(name)


def check_disjoint(templates: Sequence[Template]) -> None:
    """Check that no unseen template is a seen one under another name.

    Two templates are the same if their words agree after case, spacing and punctuation are dropped.

    Raises:
        TemplateError: naming the two templates, also for an id used twice.
    """
    by_words: dict[str, Template] = {}
    for template in templates:
        words = "".join(c for c in template.source.lower() if c.isalnum() or c in "{}_")
        other = by_words.setdefault(words, template)
        if other is not template:
            raise TemplateError(f"templates {other.id!r} and {template.id!r} have the same words")
    ids = [template.id for template in templates]
    if len(set(ids)) < len(ids):
        raise TemplateError(f"template ids used twice: {sorted({i for i in ids if ids.count(i) > 1})}")
