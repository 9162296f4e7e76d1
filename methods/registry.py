"""Methods by name. One line each; a user's own method is named ``package.module:Class``."""

import fnmatch
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from data.errors import InputError
from data.spelling import near
from methods.base import Method, MethodInfo
from methods.settings import annotation, fits, words

REGISTRY: dict[str, str] = {
    "random": "methods.random_order:RandomOrder",
    "popularity": "methods.popularity:Popularity",
    "tallrec": "methods.tallrec:TallRec",
    "collm": "methods.collm.method:CoLlm",
    "ctrl": "methods.ctrl.method:Ctrl",
    "p5": "methods.p5.method:P5",
    "paprec/manual": "methods.paprec.method:ManualPrompt",
    "paprec/random": "methods.paprec.method:RandomTriggers",
    "paprec/shared": "methods.paprec.method:SharedTriggers",
    "paprec/global": "methods.paprec.method:GlobalTriggers",
    "paprec": "methods.paprec.method:PapRec",
    "ganprompt": "methods.ganprompt.method:GanPrompt",
    "ganprompt/no-gan": "methods.ganprompt.rows:no_gan",
    "ganprompt/no-stage1": "methods.ganprompt.rows:no_stage1",
    "ganprompt/language-only": "methods.ganprompt.rows:language_only",
    "ganprompt/no-diversity": "methods.ganprompt.rows:no_diversity",
    "ganprompt/cosine": "methods.ganprompt.rows:cosine",
    "ganprompt/js": "methods.ganprompt.rows:js",
    "ganprompt/js-100": "methods.ganprompt.rows:js_100",
    "ganprompt/balanced": "methods.ganprompt.rows:balanced",
    "ganprompt/euclidean": "methods.ganprompt.rows:euclidean",
    "ganprompt/mmd": "methods.ganprompt.rows:mmd",
    "ganprompt/gamma-0.1": "methods.ganprompt.rows:gamma_tenth",
    "ganprompt/gamma-0.3": "methods.ganprompt.rows:gamma_third",
    "ganprompt/gamma-3": "methods.ganprompt.rows:gamma_triple",
    "ganprompt/gamma-10": "methods.ganprompt.rows:gamma_tenfold",
    "ganprompt/literal-sign": "methods.ganprompt.rows:literal_sign",
    "ganprompt/zero-sum": "methods.ganprompt.rows:zero_sum",
    "ganprompt/no-adversary": "methods.ganprompt.rows:no_adversary",
    "ganprompt/joint": "methods.ganprompt.rows:joint",
    "lrgd/no-model": "methods.lrgd.no_model:NoModel",
    "lrgd/zero-shot": "methods.lrgd.method:zero_shot",
    "lrgd/random": "methods.lrgd.method:random",
    "lrgd/recent": "methods.lrgd.method:recent",
    "lrgd/similar": "methods.lrgd.method:similar",
    "lrgd/stage1": "methods.lrgd.method:stage1",
    "lrgd": "methods.lrgd.method:Lrgd",
    "bpr": "methods.recbole:BPR",
    "lightgcn": "methods.recbole:LightGCN",
    "caser": "methods.recbole:Caser",
    "hgn": "methods.recbole:HGN",
    "gru4rec": "methods.recbole:GRU4Rec",
    "sasrec": "methods.recbole:SASRec",
    "bert4rec": "methods.recbole:BERT4Rec",
    "s3rec": "methods.recbole:S3Rec",
    "din": "methods.recbole:DIN",
    "llmrec": "methods.llmrec.method:BestLlmRec",
    "llmrec/title": "methods.llmrec.method:title",
    "llmrec/original": "methods.llmrec.method:original",
    "llmrec/basic-paraphrase": "methods.llmrec.method:basic_paraphrase",
    "llmrec/basic-summarise": "methods.llmrec.method:basic_summarise",
    "llmrec/basic-characterise": "methods.llmrec.method:basic_characterise",
    "llmrec/rec-paraphrase": "methods.llmrec.method:rec_paraphrase",
    "llmrec/rec-summarise": "methods.llmrec.method:rec_summarise",
    "llmrec/rec-characterise": "methods.llmrec.method:rec_characterise",
    "llmrec/eng": "methods.llmrec.method:eng",
    "llmrec/rec-eng": "methods.llmrec.method:rec_eng",
    "llmrec/all": "methods.llmrec.method:all_strategies",
    "llm-rank": "methods.llmrank:LlmRank",
    "llm-rank/reversed": "methods.llmrank:candidates_reversed",
}
"""Name on the command line -> ``module:factory``; the factory's keyword arguments are the settings."""


class MethodError(InputError):
    """No method of that name, or a setting it does not take."""


def names(patterns: Sequence[str]) -> tuple[str, ...]:
    """Registered names matching shell patterns such as ``llmrec/*``; ``module:Class`` passes through.

    Raises:
        MethodError: for a pattern that matches nothing, with the nearest names.
    """
    found: list[str] = []
    for pattern in patterns:
        matches = [pattern] if ":" in pattern else fnmatch.filter(REGISTRY, pattern)
        if not matches:
            hint = near(pattern, REGISTRY, n=3)
            raise MethodError(
                f"no method {pattern!r}: {hint}methods are {', '.join(REGISTRY)}, or your own as package.module:Class"
            )
        found += [match for match in matches if match not in found]
    return tuple(found)


def settings_of(name: str) -> tuple[str, ...]:
    """Names of the settings of a method, without those that make a row what it is.

    Raises:
        MethodError: for an unknown name or a module that does not hold it.
    """
    given = fixed(name)
    return tuple(setting for setting in inspect.signature(_factory(name)).parameters if setting not in given)


def check_setting(name: str, setting: str) -> None:
    """See that a method has a setting.

    Raises:
        MethodError: if it has not, with the nearest one; also for an unknown method.
    """
    known = settings_of(name)
    if setting not in known:
        hint = near(setting, known)
        if setting in fixed(name):
            raise MethodError(f"method {name!r}: {setting} makes the row what it is and cannot be set")
        raise MethodError(
            f"method {name!r} has no setting {setting!r}: {hint}settings are {', '.join(known) or 'none'}"
        )


def fixed(name: str) -> frozenset[str]:
    """Settings that make a row what it is: those a partial gives, or those of its family that a subclass does not take.

    The name of a row is one of them. Of a user's own partial, they are defaults like others.

    Raises:
        MethodError: for an unknown name or a module that does not hold it.
    """
    factory = _factory(name)
    if name not in REGISTRY:
        return frozenset()
    named = {"row"}.intersection(inspect.signature(factory).parameters)
    if isinstance(factory, partial):
        return frozenset(factory.keywords).union(named)
    classes = [each for each in getattr(factory, "__mro__", ()) if hasattr(each, "__dataclass_fields__")]
    family = {setting for each in classes for setting in inspect.signature(each).parameters}
    return frozenset(family.difference(inspect.signature(factory).parameters)).union(named)


def create(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """A method with the given settings.

    Raises:
        MethodError: for an unknown name, a module that does not hold it, or an unknown or unfit setting.
    """
    for setting, value in (settings or {}).items():
        check_setting(name, setting)
        if not fits(value, kind := annotation(_factory(name), setting)):
            raise MethodError(f"method {name!r}: {setting} is {words(kind)}, not {value!r}")
    factory = _factory(name)
    try:
        method: Method = factory(**(settings or {}))
    except (Exception, SystemExit) as error:
        raise MethodError(f"method {name!r}: {_told(error)}") from error
    _check_contract(name, method)
    return method


def _check_contract(name: str, method: object) -> None:
    """See that an object is a method, and that its search space, if it has one, has lists to choose from."""
    lacking = [what for what in ("fit", "score") if not callable(getattr(method, what, None))]
    if not isinstance(getattr(method, "info", None), MethodInfo):
        lacking.insert(0, "info of type MethodInfo")
    if lacking:
        raise MethodError(f"method {name!r}: {type(method).__name__} has no {' and no '.join(lacking)}")
    space = getattr(method, "space", {})
    if not isinstance(space, Mapping):
        raise MethodError(f"method {name!r}: space holds a tuple of values for each setting, not {space!r}")
    for setting, values in space.items():
        if not isinstance(values, tuple | list) or not values:
            raise MethodError(f"method {name!r}: space holds a tuple of values for {setting!r}, not {values!r}")
        for value in values:
            if values.count(value) > 1:
                raise MethodError(f"method {name!r}: space holds {value!r} for {setting!r} twice")


def _factory(name: str) -> Callable[..., Method]:
    names([name])
    module, _, attribute = REGISTRY.get(name, name).partition(":")
    if not (module and attribute):
        raise MethodError(f"no method {name!r}: give your own as package.module:Class")
    try:
        factory: Callable[..., Method] = getattr(importlib.import_module(module), attribute)
        inspect.signature(factory)
    except (Exception, SystemExit) as error:  # a script without a guard may end by itself
        raise MethodError(f"method {name!r}: {_told(error)}") from error
    return factory


def _told(error: BaseException) -> str:
    """An error of a method's own code; those that say by themselves what is wrong, as they say it."""
    plain = isinstance(error, TypeError | ValueError | ImportError | AttributeError)
    return str(error) if plain else f"{type(error).__name__}: {error}"
