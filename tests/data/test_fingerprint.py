"""Fingerprints and generators: the same content, the same value, everywhere."""

import tracemalloc

import numpy as np
import pytest

from data.dataset import Domain
from data.fingerprint import fingerprint
from data.random import generator


def test_fingerprint_is_the_same_on_every_machine():
    parts = ("a", 1, 0.5, None, True, [1, 2], {"k": np.array([1, 2, 3])}, Domain())
    assert fingerprint(*parts) == "40cb059285d50543a6819f14f1f520aa4731cbcef47263cb86bc2aad54d6f3bb"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["ab"], ["a", "b"]),
        ([["a"], ["b"]], [["a", "b"], []]),
        (np.array([1, 2]), np.array([1.0, 2.0])),
        (np.array([[1, 2]]), np.array([[1], [2]])),
        (1, "1"),
        (Domain(), Domain(item="book")),
    ],
)
def test_different_content_has_different_fingerprints(one, other):
    assert fingerprint(one) != fingerprint(other)


def test_fingerprint_of_a_broadcast_array_takes_no_memory_for_its_rows():
    wide = np.broadcast_to(np.arange(1000), (2000, 1000))
    tracemalloc.start()
    found = fingerprint(wide)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == fingerprint(wide.copy())
    assert peak < wide.nbytes / 100


def test_content_without_canonical_form_is_refused():
    with pytest.raises(TypeError, match="no canonical form"):
        fingerprint({1, 2})


def test_generators_of_different_keys_are_different_and_of_one_key_equal():
    draws = {key: generator(*key).random() for key in [(0, "a", "u1"), (0, "a", "u2"), (1, "a", "u1"), (0, "b", "u1")]}
    assert len(set(draws.values())) == 4
    assert generator(0, "a", "u1").random() == draws[0, "a", "u1"]
