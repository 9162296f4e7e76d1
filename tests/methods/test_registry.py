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
        ("class Mine(Good): space = ('rate',)", "space holds a tuple of values for each setting"),
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
    assert f"method '{module}:Mine': {sentence.replace('{module}', module)}" in str(error.value)


@pytest.mark.parametrize("name", [":Few", "few:"])
def test_method_without_module_or_class_is_refused(name):
    with pytest.raises(MethodError, match="give your own as package.module:Class"):
        create(name)
