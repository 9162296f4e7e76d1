"""Ways to change the words of a template that several families share."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.perturbations.base import draw_touched
from data.prompts.template import Template, Wording, parse

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")  # noqa: RUF001 - both apostrophes are meant
CUE_GAP = re.compile(r"(?:(?<=[.?!])\s+|\s*\n\s*)(?=[^.?!\n]+$)")


def replace_words(
    template: Template, replacement: Callable[[str], str | None], severity: float, rng: np.random.Generator
) -> Template:
    """The template with a share of its words replaced; blanks, punctuation and slots stay.

    Args:
        template: the template.
        replacement: of a word; None where it has none.
        severity: share of all words to replace, in [0, 1]; where fewer have a replacement, all of those are replaced.
        rng: generator.

    >>> template = Template("t", "recommend", "seen", parse("Next after {history}: {target}? Answer:"))
    >>> replace_words(template, lambda word: word.upper(), 1.0, np.random.default_rng(0)).source
    'NEXT AFTER {history}: {target}? ANSWER:'
    """
    words = [word for part in template.parts if isinstance(part, Wording) for word in WORD.findall(part.text)]
    new = {n: other for n, word in enumerate(words) if (other := replacement(word)) is not None}
    places = list(new)
    touched = {places[n] for n in draw_touched(len(places), severity, rng, total=len(words)).tolist()}
    changed = iter([new[n] if n in touched else word for n, word in enumerate(words)])
    return template.map_wording(lambda text: WORD.sub(lambda _: next(changed), text))


def put_before(template: Template, sentence: str) -> Template:
    """The template with a sentence in front, on a line of its own where the template has lines.

    >>> template = Template("t", "recommend", "seen", parse("After {history}, is {target} next?"))
    >>> put_before(template, "Hello!").source
    'Hello! After {history}, is {target} next?'
    """
    source = template.source
    return replace(template, parts=parse(sentence + _gap(source) + source))


def put_before_cue(template: Template, sentence: str) -> Template:
    """The template with a sentence at its end, but before a trailing answer cue.

    The cue is what follows the last full stop, question mark, exclamation mark or line break, such as
    ``Answer:``. A template that ends in such a mark has no cue; of a template without any, or with a quote behind its
    last one, all is cue, and the sentence comes first.

    >>> asked = Template("t", "recommend", "seen", parse("After {history}, is {target} next? Answer:"))
    >>> put_before_cue(asked, "Thank you.").source
    'After {history}, is {target} next? Thank you. Answer:'
    >>> bare = Template("t", "recommend", "seen", parse("After {history}, is {target} next?"))
    >>> put_before_cue(bare, "Thank you.").source
    'After {history}, is {target} next? Thank you.'
    """
    source = template.source
    if source.rstrip()[-1:] in {".", "?", "!"}:
        return replace(template, parts=parse(source.rstrip() + _gap(source) + sentence))
    found = CUE_GAP.search(source)
    if found is None:
        return put_before(template, sentence)
    return replace(template, parts=parse(source[: found.end()] + sentence + found[0] + source[found.end() :]))


def _gap(source: str) -> str:
    return "\n" if "\n" in source else " "
