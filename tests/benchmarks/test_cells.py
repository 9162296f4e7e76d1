"""What a method says of its fit."""

import numpy as np
import pytest

from benchmarks.cells import checked
from methods.base import FitReport


def test_numbers_of_numpy_in_a_report_become_pythons():
    report = checked(FitReport(epochs=np.int64(3), converged=np.bool_(False), reused=np.float32(0.5)))
    assert report == FitReport(epochs=3, converged=False, reused=0.5)
    assert [type(value) for value in (report.epochs, report.converged, report.reused)] == [int, bool, float]


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("interactions", None, "a whole number"),
        ("epochs", 2.5, "a whole number"),
        ("epochs", True, "a whole number"),
        ("converged", "no", "true or false"),
        ("note", None, "a text"),
        ("reused", float("nan"), "a number"),
    ],
)
def test_field_of_another_type_in_a_report_is_refused(field, value, kind):
    with pytest.raises(TypeError, match=f"{field} in a FitReport is {kind}, not {value!r}"):
        checked(FitReport(**{field: value}))
