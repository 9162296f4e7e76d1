"""One history under several attributes: prompts of the six classes, and recommendation prompts with an attribute.

A template of role ``attribute`` begins with the history and goes on with what is said of the attribute. The whole
is the paper's T_GAN (classes 1 to 5), its beginning alone shows the plain history (class 0), and its end alone is the
sentence that turns a recommendation template into T_rec with an attribute.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data.prompts.template import Part, Slot, Template, TemplateError, Wording
from methods.lm.questions import pick

HISTORY, ATTRIBUTE = Slot("history"), Slot("attribute")


@dataclass(frozen=True)
class Attributes:
    """What a history can be looked at for.

    Args:
        names: attributes; class 0 is the plain history, class ``n`` the one with attribute ``n - 1``.
        wordings: seen templates of role ``attribute``.
    """

    names: tuple[str, ...]
    wordings: tuple[Template, ...]

    def diversify(self, template: Template, rng: np.random.Generator) -> Template:
        """The recommendation template in a class drawn at random: as it is, or with one of the attributes."""
        drawn = int(rng.integers(len(self.names) + 1))
        wording = pick(self.wordings, rng)
        return joined(template, wording, self.names[drawn - 1]) if drawn else template


def classes(wording: Template, attributes: Sequence[str]) -> tuple[Template, ...]:
    """T_GAN: the plain history, then the history with each attribute."""
    plain, _ = _halves(wording)
    return (replace(wording, parts=plain), *(replace(wording, parts=_named(wording.parts, a)) for a in attributes))


def joined(template: Template, wording: Template, attribute: str) -> Template:
    """T_rec: the recommendation template behind what the wording says of the attribute.

    >>> from data.prompts.template import parse
    >>> wording = Template("w", "attribute", "seen", parse("Seen {history}. They look for {attribute}."))
    >>> joined(Template("t", "recommend", "seen", parse("After {history}, {target}?")), wording, "plot").source
    'They look for plot. After {history}, {target}?'
    """
    _, sentence = _halves(wording)
    return replace(template, parts=(*_named(sentence, attribute), Wording(" "), *template.parts))


def _halves(wording: Template) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Up to the history and the punctuation behind it, and the rest; defined for perturbed wordings, too.

    Raises:
        TemplateError: if the attribute comes first: it would be in what is to show the plain history.
    """
    cut = wording.parts.index(HISTORY) + 1
    before, after = wording.parts[:cut], wording.parts[cut:]
    if ATTRIBUTE in before:
        raise TemplateError(f"template {wording.id!r}: {{history}} comes before {{attribute}} in role 'attribute'")
    if not after or not isinstance(after[0], Wording):
        return before, after
    mark, rest = re.fullmatch(r"(\S*)\s*(.*)", after[0].text, re.DOTALL).groups()  # type: ignore[union-attr]
    return (*before, Wording(mark)), (Wording(rest), *after[1:])


def _named(parts: Sequence[Part], attribute: str) -> tuple[Part, ...]:
    return tuple(Wording(attribute) if part == ATTRIBUTE else part for part in parts)
