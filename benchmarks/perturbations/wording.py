"""Ways to change the words of a template that several families share."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.perturbations.base import draw_touched
from data.prompts.template import Template, Wording, parse

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")  # noqa: RUF001 - both apostrophes are meant
CUE_GAP = re.compile(r"(?:(?<=[.?!])\s+|\s*\n\s*)(?=[^.?!\n]+$)")


def map_words(template: Template, change: Callable[[Sequence[str]], Sequence[str]]) -> Template:
    """The template with all its words changed at once; blanks, punctuation and slots stay.

    Args:
        template: the template.
        change: takes the words of the whole wording in order, gives as many.

    >>> template = Template("t", "recommend", "seen", parse("Next after {history}: {target}? Answer:"))
    >>> map_words(template, lambda words: [word.upper() for word in words]).source
    'NEXT AFTER {history}: {target}? ANSWER:'
    """
    stretches = [part.text for part in template.parts if isinstance(part, Wording)]
    changed = iter(change([word for text in stretches for word in WORD.findall(text)]))
    return template.map_wording(lambda text: WORD.sub(lambda _: next(changed), text))


def replace_share(
    words: Sequence[str], replacements: Mapping[int, str], severity: float, rng: np.random.Generator
) -> list[str]:
    """The words with a share of them replaced.

    Args:
        words: all words; the severity is a share of these.
        replacements: position -> new word, for the words that can be replaced; where they are fewer than the
            share asks for, all of them are replaced.
        severity: share of words to replace, in [0, 1].
        rng: generator.

    >>> replace_share(["a", "b"], {1: "c"}, 1.0, np.random.default_rng(0))
    ['a', 'c']
    """
    positions = list(replacements)
    touched = {positions[n] for n in draw_touched(len(positions), severity, rng, total=len(words)).tolist()}
    return [replacements[n] if n in touched else word for n, word in enumerate(words)]


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
