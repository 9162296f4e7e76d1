"""The texts of the items: their descriptions, and what a language model makes of these."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from data.dataset import Catalogue
from data.prompts.template import Template
from data.types import IntArray
from methods.base import count
from methods.lm.client import Estimate, LlmClient

Neighbours = Callable[[], Sequence[IntArray]]
EXPECTED_DESCRIPTION = "x" * 400
"""Stands for a description that is not written yet when the cost is estimated."""


@dataclass
class Once:
    """Neighbours that are computed when they are first asked for, and kept: on large catalogues that takes minutes.

    Args:
        compute: the important neighbours of every item.
    """

    compute: Neighbours

    def __call__(self) -> Sequence[IntArray]:
        """What was computed."""
        return self._found

    @cached_property
    def _found(self) -> Sequence[IntArray]:
        return self.compute()


def title_and_year(catalogue: Catalogue, item: int) -> str:
    """How an item is named to the model: ``Title (Year)``, or the title where no year is known or it has it already."""
    title, years = catalogue.titles[item], catalogue.fields.get("year")
    year = f" ({years[item]})" if years and years[item] else ""
    return title.removesuffix(year) + year


def describe(catalogue: Catalogue, templates: Mapping[str, Template]) -> list[str]:
    """The prompts that ask for a description of every item."""
    prompts = []
    for item in range(catalogue.n_items):
        values = facts(catalogue, item)
        template = templates["describe" if values["year"] and values["genres"] else "describe-title"]
        prompts.append(template.fill(catalogue.domain, values).text)
    return prompts


def augment(
    template: Template, catalogue: Catalogue, descriptions: Sequence[str], neighbours: Sequence[IntArray]
) -> list[str]:
    """The prompts that ask for one augmentation of every item.

    Where there is no description the title stands for it; an item without neighbours is its own.
    """
    prompts = []
    for item, description in enumerate(descriptions):
        others = neighbours[item].tolist() if len(neighbours) and len(neighbours[item]) else [item]
        named = [title_and_year(catalogue, other) for other in others]
        values = {**facts(catalogue, item), "description": description or catalogue.titles[item], "neighbours": named}
        prompts.append(template.fill(catalogue.domain, values).text)
    return prompts


def facts(catalogue: Catalogue, item: int) -> dict[str, str]:
    """Title, year and genres; empty where unknown."""
    known = {name: catalogue.fields.get(name) for name in ("year", "genres")}
    return {"title": catalogue.titles[item]} | {name: column[item] if column else "" for name, column in known.items()}


@dataclass
class Ledger:
    """Items that have their original text where an answer should stand.

    Args:
        fallbacks: how many, by prompt asked.
    """

    fallbacks: dict[str, int] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """How many, where there are any.

        >>> Ledger({"eng": 2, "describe": 0}).note
        '2 items without a usable answer to eng'
        """
        some = ((prompt, number) for prompt, number in self.fallbacks.items() if number)
        return "; ".join(f"{count(number, 'item')} without a usable answer to {prompt}" for prompt, number in some)


@dataclass
class ItemTexts:
    """Descriptions and augmentations of all items, asked for when they are first needed.

    Args:
        client: whom to ask.
        catalogue: the items as they are; conditions that change their texts do not change what is asked.
        templates: prompts by id.
        neighbours: gives the important neighbours of every item.
        ledger: what was asked and not usably answered.
    """

    client: LlmClient
    catalogue: Catalogue
    templates: Mapping[str, Template]
    neighbours: Neighbours
    ledger: Ledger = field(default_factory=Ledger)
    _known: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def described(self) -> bool:
        """Whether the data set describes items itself."""
        return any(self.catalogue.fields.get("description", ()))

    def descriptions(self) -> tuple[str, ...]:
        """The data set's own descriptions, or those of the language model; empty where there is none."""
        if self.described:
            return self.catalogue.fields["description"]
        if "describe" not in self._known:
            asked = describe(self.catalogue, self.templates)
            answers = self.client.ask(asked, self.catalogue.item_ids, "descriptions")
            self._keep("describe", answers, [""] * len(answers))
        return self._known["describe"]

    def augmented(self, template: Template) -> tuple[str, ...]:
        """The answers to a prompt; where there is none the description, and where there is none either the title."""
        if template.id not in self._known:
            descriptions = self.descriptions()
            answers = self.client.ask(self.asked(template, descriptions), self.catalogue.item_ids, template.id)
            originals = zip(descriptions, self.catalogue.titles, strict=True)
            self._keep(template.id, answers, [description or title for description, title in originals])
        return self._known[template.id]

    def asked(self, template: Template, descriptions: Sequence[str]) -> list[str]:
        """The prompts that ask for one augmentation of every item."""
        neighbours = self.neighbours() if "neighbours" in template.slots else ()
        return augment(template, self.catalogue, descriptions, neighbours)

    def _keep(self, prompt: str, answers: Sequence[str | None], instead: Sequence[str]) -> None:
        self._known[prompt] = tuple(answer or other for answer, other in zip(answers, instead, strict=True))
        self.ledger.fallbacks[prompt] = sum(not answer for answer in answers)


@dataclass(frozen=True)
class Job:
    """All prompts of a data set.

    Args:
        texts: the items' texts and whom to ask for them.
        templates: all prompts but those for descriptions.
    """

    texts: ItemTexts
    templates: tuple[Template, ...]

    def estimate(self) -> Estimate:
        """What all prompts take; descriptions that are not known yet are taken to have 400 characters."""
        texts, client = self.texts, self.texts.client
        asked = [] if texts.described else describe(texts.catalogue, texts.templates)
        total = client.estimate(asked)
        complete = not total.cost.requests
        descriptions = texts.descriptions() if complete else (EXPECTED_DESCRIPTION,) * texts.catalogue.n_items
        for template in self.templates:
            prompts = texts.asked(template, descriptions)
            if not complete:  # items would share prompts that differ once their descriptions are there
                prompts = [f"{prompt} {item}" for item, prompt in enumerate(prompts)]
            part = client.estimate(prompts)
            total = Estimate(total.known + part.known, total.cost + part.cost, total.usd + part.usd)
        return total

    def open_prompts(self) -> list[str]:
        """What can be asked now: the descriptions, or, once all are there, everything else."""
        texts, client = self.texts, self.texts.client
        asked = [] if texts.described else describe(texts.catalogue, texts.templates)
        if client.open_requests(asked):
            return asked
        return [prompt for template in self.templates for prompt in texts.asked(template, texts.descriptions())]

    def records(self) -> list[dict[str, str]]:
        """Ask everything; one record per item and prompt, empty where there is no usable answer."""
        texts, catalogue = self.texts, self.texts.catalogue
        asked = {} if texts.described else {"describe": describe(catalogue, texts.templates)}
        asked |= {template.id: texts.asked(template, texts.descriptions()) for template in self.templates}
        records = []
        for prompt, requests in asked.items():
            for item, request, answer in zip(
                catalogue.item_ids, requests, texts.client.ask(requests, what=prompt), strict=True
            ):
                digest = hashlib.sha256(request.encode()).hexdigest()
                record = {"item_id": item, "prompt": prompt, "request_sha256": digest, "response": answer or ""}
                records.append(record)
        return records
