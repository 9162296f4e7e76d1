"""What both stages learn from."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from data.prompts.template import Template
from data.random import generator
from methods.base import Task
from methods.ganprompt.prompts import Attributes
from methods.lm.questions import Sampling, Window, pick, windows


@dataclass(frozen=True)
class Example:
    """A stretch of a training history with items to ask about, and how the question is worded."""

    template: Template
    shown: Window


@dataclass(frozen=True)
class Lessons:
    """Batches of examples, drawn anew for every epoch.

    Args:
        task: training histories and seen templates.
        sampling: how windows are drawn.
        attributes: what prompts are diversified with; None to leave them as they are. The windows and templates
            are the same with and without.
        windows: examples per epoch.
        batch: examples per step.
        seed: of all draws, with ``purpose``.
        purpose: keeps the draws of the two stages apart.
    """

    task: Task
    sampling: Sampling
    attributes: Attributes | None
    windows: int
    batch: int
    seed: int
    purpose: str

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-self.windows // self.batch)

    def epoch(self, number: int) -> Iterator[list[Example]]:
        """The batches of one epoch."""
        examples = islice(self._examples(number), self.windows)
        while batch := list(islice(examples, self.batch)):
            yield batch

    def _examples(self, number: int) -> Iterator[Example]:
        rng = generator(self.seed, self.purpose, number)
        own = generator(self.seed, self.purpose, "attributes", number)
        for shown in windows(self.task.train, self.sampling, rng):
            template = pick(self.task.templates["recommend"], rng)
            yield Example(self.attributes.diversify(template, own) if self.attributes else template, shown)
