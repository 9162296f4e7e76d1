"""Methods by name. One line each; a user's own method is named ``package.module:Class``."""

import fnmatch
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from data.errors import InputError, told
from data.spelling import near
from methods import hooks
from methods.base import Method, MethodInfo
from methods.settings import annotation, fits, words

PAPREC = "methods.paprec.method:PapRec"
GANPROMPT = "methods.ganprompt.method:GanPrompt"
LRGD = "methods.lrgd.method:Lrgd"
LLMREC = "methods.llmrec.method:LlmRec"
REGISTRY: dict[str, tuple[str, Mapping[str, Any]]] = {
    "random": ("methods.random_order:RandomOrder", {}),
    "popularity": ("methods.popularity:Popularity", {}),
    "tallrec": ("methods.tallrec:TallRec", {}),
    "collm": ("methods.collm.method:CoLlm", {}),
    "ctrl": ("methods.ctrl.method:Ctrl", {}),
    "p5": ("methods.p5.method:P5", {}),
    "paprec/manual": (PAPREC, {"global_tokens": 0, "user_tokens": 0}),  # the template as it is: P5
    "paprec/random": (PAPREC, {"budget": 0}),  # the random start, without a search
    "paprec/shared": (PAPREC, {"personal": False}),  # user triggers stay as they start
    "paprec/global": (PAPREC, {"user_tokens": 0}),
    "paprec": (PAPREC, {}),
    "ganprompt": (GANPROMPT, {}),
    "ganprompt/no-gan": (GANPROMPT, {"gan": False}),
    "ganprompt/no-stage1": (GANPROMPT, {"stage1_steps": 0}),
    "ganprompt/language-only": (GANPROMPT, {"gamma": 0.0, "adversarial": "none"}),
    "ganprompt/no-diversity": (GANPROMPT, {"gamma": 0.0}),
    "ganprompt/cosine": (GANPROMPT, {"beta": 0.0}),
    "ganprompt/js": (GANPROMPT, {"alpha": 0.0}),
    "ganprompt/js-100": (GANPROMPT, {"alpha": 0.0, "beta": 100.0}),
    "ganprompt/balanced": (GANPROMPT, {"beta": 100.0}),
    "ganprompt/euclidean": (GANPROMPT, {"distance": "euclidean"}),
    "ganprompt/mmd": (GANPROMPT, {"distance": "mmd"}),
    "ganprompt/gamma-0.1": (GANPROMPT, {"gamma": 0.1}),
    "ganprompt/gamma-0.3": (GANPROMPT, {"gamma": 0.3}),
    "ganprompt/gamma-3": (GANPROMPT, {"gamma": 3.0}),
    "ganprompt/gamma-10": (GANPROMPT, {"gamma": 10.0}),
    "ganprompt/literal-sign": (GANPROMPT, {"literal_sign": True}),
    "ganprompt/zero-sum": (GANPROMPT, {"adversarial": "zero-sum"}),
    "ganprompt/no-adversary": (GANPROMPT, {"adversarial": "none"}),
    "ganprompt/joint": (GANPROMPT, {"joint": True}),
    "lrgd/no-model": ("methods.lrgd.no_model:NoModel", {}),
    "lrgd/zero-shot": (LRGD, {"shots": 0, "stage_two": False}),
    "lrgd/random": (LRGD, {"strategy": "random", "stage_two": False}),
    "lrgd/recent": (LRGD, {"strategy": "recent", "stage_two": False}),
    "lrgd/similar": (LRGD, {"strategy": "similar", "stage_two": False}),
    "lrgd/stage1": (LRGD, {"stage_two": False}),
    "lrgd": (LRGD, {}),
    "bpr": ("methods.recbole.models:BPR", {}),
    "lightgcn": ("methods.recbole.models:LightGCN", {}),
    "caser": ("methods.recbole.models:Caser", {}),
    "hgn": ("methods.recbole.models:HGN", {}),
    "gru4rec": ("methods.recbole.models:GRU4Rec", {}),
    "sasrec": ("methods.recbole.models:SASRec", {}),
    "bert4rec": ("methods.recbole.models:BERT4Rec", {}),
    "s3rec": ("methods.recbole.models:S3Rec", {}),
    "din": ("methods.recbole.models:DIN", {}),
    "llmrec": ("methods.llmrec.method:BestLlmRec", {}),
    "llmrec/title": (LLMREC, {"strategy": "title"}),
    "llmrec/original": (LLMREC, {"strategy": "original"}),
    "llmrec/basic-paraphrase": (LLMREC, {"strategy": "basic-paraphrase"}),
    "llmrec/basic-summarise": (LLMREC, {"strategy": "basic-summarise"}),
    "llmrec/basic-characterise": (LLMREC, {"strategy": "basic-characterise"}),
    "llmrec/rec-paraphrase": (LLMREC, {"strategy": "rec-paraphrase"}),
    "llmrec/rec-summarise": (LLMREC, {"strategy": "rec-summarise"}),
    "llmrec/rec-characterise": (LLMREC, {"strategy": "rec-characterise"}),
    "llmrec/eng": (LLMREC, {"strategy": "eng"}),
    "llmrec/rec-eng": (LLMREC, {"strategy": "rec-eng"}),
    "llmrec/all": (LLMREC, {"strategy": "all"}),
    "llm-rank": ("methods.llmrank:LlmRank", {}),
    "llm-rank/reversed": ("methods.llmrank:LlmRank", {"reverse": True}),
}
"""Name on the command line -> ``module:Class``, whose fields are the settings, and those that make a row what it is."""


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
            module, dot, name = pattern.rpartition(".")
            hint = near(pattern, REGISTRY, n=3) or (f"did you mean {module}:{name}? " if dot else "")
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
    """Settings that make a registered row what it is, its name among them. Those of a user's own partial are defaults.

    Raises:
        MethodError: for an unknown name or a module that does not hold it.
    """
    factory = _factory(name)
    return frozenset(factory.keywords) if name in REGISTRY and isinstance(factory, partial) else frozenset()


def create(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """A method with the given settings.

    Raises:
        MethodError: for an unknown name, a module that does not hold it, or an unknown or unfit setting.
    """
    factory = _factory(name)
    for setting, value in (settings or {}).items():
        check_setting(name, setting)
        if not fits(value, kind := annotation(factory, setting)):
            raise MethodError(f"method {name!r}: {setting} is {words(kind)}, not {value!r}")
    try:
        method: Method = factory(**(settings or {}))
    except (Exception, SystemExit) as error:
        raise MethodError(f"method {name!r}: {told(error)}") from error
    _check_contract(name, method)
    return method


def _check_contract(name: str, method: Method) -> None:
    """See that an object is a method, and that its search space, if it has one, has lists to choose from."""
    lacking = [what for what in ("fit", "score") if not callable(getattr(method, what, None))]
    if not isinstance(getattr(method, "info", None), MethodInfo):
        lacking.insert(0, "info of type MethodInfo")
    if lacking:
        raise MethodError(f"method {name!r}: {type(method).__name__} has no {' and no '.join(lacking)}")
    space = hooks.space(method)
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
    target, given = REGISTRY.get(name, (name, {}))
    module, _, attribute = target.partition(":")
    if not (module and attribute):
        raise MethodError(f"no method {name!r}: give your own as package.module:Class")
    try:
        factory: Callable[..., Method] = getattr(importlib.import_module(module), attribute)
        takes = inspect.signature(factory).parameters
    except (Exception, SystemExit) as error:  # a script without a guard may end by itself
        raise MethodError(f"method {name!r}: {told(error)}") from error
    if name in REGISTRY and "row" in takes:
        given = {**given, "row": name.partition("/")[2]}
    return partial(factory, **given) if given else factory
