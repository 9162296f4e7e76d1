"""Templates and the prompts they become, kept in segments."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from data.dataset import Domain
from data.errors import InputError

Family = Literal["seen", "unseen"]
Role = Literal["recommend", "sequential", "choose", "attribute", "augment", "demonstrate", "rank"]

TITLES = frozenset({"history", "candidates", "neighbours"})
TEXTS = frozenset({"target", "attribute", "description", "demonstrations", "title", "year", "genres"})
LABELS = frozenset({"positive", "negative"})
DOMAIN = frozenset(word.name for word in fields(Domain))
SLOTS = TITLES | TEXTS | LABELS | DOMAIN


class TemplateError(InputError):
    """A template text, or a value for it, is not usable."""


@dataclass(frozen=True)
class Wording:
    """A stretch of a template's own words: what wording perturbations may change."""

    text: str


@dataclass(frozen=True)
class Slot:
    """A place for a value: wording perturbations never touch it."""

    name: str


Part = Wording | Slot


@dataclass(frozen=True)
class ListStyle:
    """How several titles are written in a row: ``separator`` between, ``before`` and ``after`` each.

    ``{n}`` in ``before`` is the position, counted from 1.

    >>> ListStyle(separator="; ", before="{n}. ").join(["Alien", "Brazil"])
    '1. Alien; 2. Brazil'
    """

    separator: str = ", "
    before: str = ""
    after: str = ""

    def join(self, titles: Sequence[str]) -> str:
        """The titles in one string; their own text is not changed."""
        return self.separator.join(
            self.before.replace("{n}", str(n)) + title + self.after for n, title in enumerate(titles, start=1)
        )


@dataclass(frozen=True)
class Segment:
    """A piece of a prompt.

    Args:
        text: the piece; empty for a slot that is still open.
        slot: the slot it fills; None for the template's own words.
        open: True while the slot has no value.
    """

    text: str
    slot: str | None = None
    open: bool = False


@dataclass(frozen=True)
class Prompt:
    """A template with values, still in segments."""

    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The whole prompt.

        Raises:
            TemplateError: if a slot is still open.
        """
        for segment in self.segments:
            if segment.open:
                raise TemplateError(f"slot {{{segment.slot}}} has no value")
        return "".join(segment.text for segment in self.segments)

    def with_value(self, slot: str, value: str) -> "Prompt":
        """The prompt with every occurrence of an open slot filled."""
        return Prompt(tuple(Segment(value, slot) if s.open and s.slot == slot else s for s in self.segments))

    @property
    def prefix(self) -> str:
        """The text before the first open slot: what all values of that slot share."""
        first = next((n for n, segment in enumerate(self.segments) if segment.open), len(self.segments))
        return "".join(segment.text for segment in self.segments[:first])


@dataclass(frozen=True)
class Template:
    """One way to word a request.

    Args:
        id: name, unique in its role.
        role: what the answer is used for.
        family: ``seen`` in training, or ``unseen``: only ever shown when judging.
        parts: wording and slots in order.
        labels: words for the positive and the negative answer.
        style: how lists of titles are written.
        replaces: for an unseen template, the seen template whose place it takes, where that is fixed.
        strategy: group within a role, where the role has groups.
    """

    id: str
    role: Role
    family: Family
    parts: tuple[Part, ...]
    labels: tuple[str, str] = ("Yes", "No")
    style: ListStyle = field(default_factory=ListStyle)
    replaces: str | None = None
    strategy: str | None = None

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the slots in order of appearance."""
        return tuple(part.name for part in self.parts if isinstance(part, Slot))

    @property
    def source(self) -> str:
        """The template's text with its slots in braces."""
        return "".join(part.text if isinstance(part, Wording) else f"{{{part.name}}}" for part in self.parts)

    def map_wording(self, change: Callable[[str], str]) -> "Template":
        """The template with ``change`` applied to every stretch of wording and to nothing else."""
        parts = (Wording(change(part.text)) if isinstance(part, Wording) else part for part in self.parts)
        return replace(self, parts=tuple(parts))

    def fill(self, domain: Domain, values: Mapping[str, str | Sequence[str]]) -> Prompt:
        """A prompt; slots without a value stay open.

        Args:
            domain: words for the domain slots.
            values: text, or titles for a slot that takes a list.

        Raises:
            TemplateError: if a value has the wrong type for its slot.
        """
        return Prompt(tuple(self._segment(part, domain, values) for part in self.parts))

    def _segment(self, part: Part, domain: Domain, values: Mapping[str, str | Sequence[str]]) -> Segment:
        if isinstance(part, Wording):
            return Segment(part.text)
        if part.name in DOMAIN:
            return Segment(getattr(domain, part.name), part.name)
        if part.name in LABELS:
            return Segment(self.labels[part.name == "negative"], part.name)
        if part.name not in values:
            return Segment("", part.name, open=True)
        value = values[part.name]
        if isinstance(value, str) == (part.name in TITLES):
            expected = "a list of titles" if part.name in TITLES else "one text"
            raise TemplateError(f"template {self.id!r}: slot {{{part.name}}} takes {expected}, not {value!r}")
        return Segment(value if isinstance(value, str) else self.style.join(value), part.name)


def parse(text: str) -> tuple[Part, ...]:
    """Wording and slots of a template text.

    Raises:
        TemplateError: for an unknown slot or an unmatched brace.

    >>> parse("Seen: {history}.")
    (Wording(text='Seen: '), Slot(name='history'), Wording(text='.'))
    """
    parts: list[Part] = []
    for n, piece in enumerate(re.split(r"\{(\w+)\}", text)):
        if n % 2 and piece not in SLOTS:
            raise TemplateError(f"unknown slot {{{piece}}} in {text!r}; slots are {', '.join(sorted(SLOTS))}")
        if n % 2:
            parts.append(Slot(piece))
        elif "{" in piece or "}" in piece:
            raise TemplateError(f"unmatched brace in {text!r}")
        elif piece:
            parts.append(Wording(piece))
    return tuple(parts)
