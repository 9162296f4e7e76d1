"""One wording shown to everybody: one that no method saw in training, or, as its control, one that methods know."""

from dataclasses import dataclass, replace
from typing import ClassVar

from benchmarks.perturbations.base import PerturbationError, Reach, Ungraded
from data.prompts.template import Template
from methods.base import Requests


@dataclass(frozen=True)
class SameTemplate(Ungraded):
    """Words the requests of every user with the same template; roles without one stay as they are.

    Args:
        templates: one template per role, all of the family that the perturbation is named after.

    Raises:
        PerturbationError: for a template of another family, or two templates of one role.
    """

    templates: tuple[Template, ...]
    family: ClassVar[str]
    reach: ClassVar[Reach] = "wording"

    def __post_init__(self) -> None:
        for template in self.templates:
            if template.family != self.family:
                raise PerturbationError(f"template {template.id!r} is a {template.family} one, not of {self.family}")
        roles = [template.role for template in self.templates]
        if len(set(roles)) < len(roles):
            raise PerturbationError(f"one {self.family} template per role, not several of one role: {', '.join(roles)}")

    def apply(self, requests: Requests, seed: int) -> Requests:
        """The requests with the template of each role in every row."""
        rows = {t.role: (t,) * len(requests) for t in self.templates if t.role in requests.templates}
        return replace(requests, templates={**requests.templates, **rows})


class Unseen(SameTemplate):
    """A wording that no method saw in training.

    >>> import numpy as np
    >>> from data.histories import Histories
    >>> from data.prompts.template import parse
    >>> seen = Template("s", "recommend", "seen", parse("After {history}, is {target} next?"))
    >>> unseen = Template("u", "recommend", "unseen", parse("Judging by {history}, why not {target}?"))
    >>> none = np.empty((2, 0), np.int64)
    >>> requests = Requests(np.arange(2), Histories.of(none), none, None, {"recommend": (seen, seen)})
    >>> [template.source for template in Unseen((unseen,)).apply(requests, seed=1).templates["recommend"]]
    ['Judging by {history}, why not {target}?', 'Judging by {history}, why not {target}?']
    """

    family = "unseen"


class Seen(SameTemplate):
    """A wording that methods train on: how much lists change, and quality varies, between wordings that are known."""

    family = "seen"
