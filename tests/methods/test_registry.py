"""Methods of one's own: what is wrong with them is said before anything starts."""

import pytest

from methods.registry import MethodError, create

INFO = """
from methods.base import FitReport, MethodInfo
class Good:
    info = MethodInfo("good", "none")
    def fit(self, task, seed): ...
    def score(self, requests): ...
"""


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("class Mine(Good): info = None", "Mine has no info of type MethodInfo"),
        ("class Mine: info = Good.info", "Mine has no fit and no score"),
        ("def Mine(): return 3", "int has no info of type MethodInfo and no fit and no score"),
        ("Mine = 3", "3 is not a callable object"),
        ("Mine = dict", "no signature found"),
        ("Other = 3", "module '{module}' has no attribute 'Mine'"),
        ("class Mine(Good):\n    def __init__(self): {}['x']", "KeyError: 'x'"),
        ("class Mine(Good): info = MethodInfo('m', '', roles='recommend')", "roles is a set of some of recommend"),
        ("class Mine(Good): info = MethodInfo('m', '', needs={'gpus'})", "needs is a set of some of text"),
        ("class Mine(Good): space = {'rate': 0.1}", "space holds a tuple of values for 'rate', not 0.1"),
        ("class Mine(Good): space = {'rate': (0.5, 1.0, 1)}", "space holds 1.0 for 'rate' twice"),
        ("class Mine(Good): space = ('rate',)", "space holds a tuple of values for each setting"),
        ("class Mine(Good):\n    def __init__(self): exit(3)", "SystemExit: 3"),
        ("import sys\nclass Mine(Good): ...\nsys.exit()", "SystemExit: "),
        ("class Mine(:", "SyntaxError: invalid syntax ({module}.py, line 8)"),
        ("wrong", "NameError: name 'wrong' is not defined"),
        ("import no_such", "No module named 'no_such'"),
    ],
)
def test_method_that_is_none_is_an_error_that_says_why(tmp_path, monkeypatch, request, code, sentence):
    module = f"own_{request.node.callspec.indices['code']}"
    (tmp_path / f"{module}.py").write_text(f"{INFO}\n{code}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MethodError) as error:
        create(f"{module}:Mine")
    assert str(error.value).startswith(f"method '{module}:Mine': {sentence.replace('{module}', module)}")


@pytest.mark.parametrize("name", [":Few", "few:"])
def test_method_without_module_or_class_is_refused(name):
    with pytest.raises(MethodError, match=r"give your own as package\.module:Class"):
        create(name)


def test_pattern_is_no_name():
    with pytest.raises(MethodError, match=r"no method 'lrgd/\*'"):
        create("lrgd/*")


TYPED = """
from __future__ import annotations
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, Optional
if TYPE_CHECKING:
    from nowhere import Unknown
@dataclass
class Mine(Good):
    size: int = 1
    rate: float | None = None
    kind: Literal["a", "b"] = "a"
    when: Optional[Unknown] = None
    why: "any reason" = ""
    def __post_init__(self): assert isinstance(self.size, int)
small = partial(Mine, size=0)
"""


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("sasrec", {"epochs": "abc"}, "epochs is a whole number, not 'abc'"),
        ("sasrec", {"epochs": 1.5}, "epochs is a whole number, not 1.5"),
        ("bpr", {"epochs": True}, "epochs is a whole number, not True"),
        ("bpr", {"options": 3}, "options is a table, not 3"),
        ("bpr", {"learning_rate": "abc"}, "learning_rate is a number, not 'abc'"),
        ("tallrec", {"rate": "abc"}, "rate is a number, not 'abc'"),
        ("p5", {"normalised": 1}, "normalised is true or false, not 1"),
        ("din", {"mlp_hidden_size": 8}, "mlp_hidden_size is a list, not 8"),
        ("ganprompt/mmd", {"scoring": "best"}, "scoring is 'plain' or 'mean', not 'best'"),
        ("own_typed:small", {"size": "1"}, "size is a whole number, not '1'"),
        ("own_typed:Mine", {"kind": "c"}, "kind is 'a' or 'b', not 'c'"),
    ],
)
def test_value_of_another_type_than_its_setting_is_refused(tmp_path, monkeypatch, name, settings, sentence):
    (tmp_path / "own_typed.py").write_text(TYPED.replace("@dataclass\n", f"{INFO}@dataclass\n"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MethodError) as error:
        create(name, settings)
    assert str(error.value) == f"method {name!r}: {sentence}"


def test_values_of_the_annotated_types_are_accepted(tmp_path, monkeypatch):
    (tmp_path / "own_typed.py").write_text(TYPED.replace("@dataclass\n", f"{INFO}@dataclass\n"))
    monkeypatch.syspath_prepend(tmp_path)
    settings = {"size": 2, "rate": 1, "kind": "b", "when": "noon", "why": 3}
    assert vars(create("own_typed:small", settings)) == settings
    assert create("din", {"mlp_hidden_size": [8], "options": {"a": 1}}) and create("tallrec", {"rate": None})
