"""Distances are those of SciPy, scikit-learn and their definitions; the loss has the signs it says."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial import distance as scipy_distance
from scipy.special import softmax
from sklearn.metrics.pairwise import rbf_kernel

from methods.ganprompt.diversity import (
    Diversity,
    cosine_distance,
    euclidean,
    jensen_shannon,
    mean_pairwise,
    mmd,
)

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 7, 5))
DISTANCES = (cosine_distance, jensen_shannon, euclidean, mmd)


def value(distance, a, b) -> float:
    return float(distance(torch.from_numpy(a), torch.from_numpy(b)))


def test_cosine_distance_is_scipys() -> None:
    expected = np.mean([scipy_distance.cosine(a, b) for a, b in zip(A, B, strict=True)])
    assert value(cosine_distance, A, B) == pytest.approx(expected, abs=1e-12)


def test_jensen_shannon_is_the_square_of_scipys_distance_of_the_softmaxed_embeddings() -> None:
    pairs = zip(softmax(A, axis=1), softmax(B, axis=1), strict=True)
    expected = np.mean([scipy_distance.jensenshannon(p, q) ** 2 for p, q in pairs])
    assert value(jensen_shannon, A, B) == pytest.approx(expected, abs=1e-12)


def test_jensen_shannon_of_distributions_without_overlap_is_ln_2() -> None:
    apart = torch.tensor([[200.0, 0.0]]), torch.tensor([[0.0, 200.0]])
    assert float(jensen_shannon(*apart)) == pytest.approx(math.log(2), abs=1e-6)


def test_euclidean_is_scipys_over_the_root_of_the_size() -> None:
    expected = np.mean([scipy_distance.euclidean(a, b) for a, b in zip(A, B, strict=True)]) / math.sqrt(5)
    assert value(euclidean, A, B) == pytest.approx(expected, abs=1e-9)


def test_mmd_is_the_biased_estimate_with_the_median_width() -> None:
    both = np.concatenate([A, B])
    apart = scipy_distance.squareform(scipy_distance.pdist(both, "sqeuclidean"))[~np.eye(14, dtype=bool)]
    kernel = rbf_kernel(both, gamma=1 / (2 * np.sort(apart)[(len(apart) - 1) // 2]))
    expected = kernel[:7, :7].mean() + kernel[7:, 7:].mean() - 2 * kernel[:7, 7:].mean()
    assert value(mmd, A, B) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_distance_is_0_for_equal_embeddings_symmetric_and_has_finite_gradients(distance) -> None:
    assert value(distance, A, A) == pytest.approx(0, abs=1e-6)
    assert value(distance, A, B) == pytest.approx(value(distance, B, A), abs=1e-12)
    assert value(distance, A, B) > 0
    for other in (A, B):
        a = torch.from_numpy(A.copy()).requires_grad_()
        distance(a, torch.from_numpy(other)).backward()
        assert torch.isfinite(a.grad).all()


def test_the_mean_goes_over_all_pairs_of_classes() -> None:
    embeddings = torch.from_numpy(RNG.normal(size=(4, 3, 5)))
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = np.mean([float(cosine_distance(embeddings[:, i], embeddings[:, j])) for i, j in pairs])
    assert float(mean_pairwise(cosine_distance, embeddings)) == pytest.approx(expected)


def numbers() -> tuple[torch.Tensor, float, float]:
    embeddings = torch.from_numpy(RNG.normal(size=(4, 3, 5)))
    return (
        embeddings,
        float(mean_pairwise(cosine_distance, embeddings)),
        float(mean_pairwise(jensen_shannon, embeddings)),
    )


def test_our_term_rewards_both_parts_of_the_diversity() -> None:
    embeddings, apart, js = numbers()
    term = Diversity(alpha=2.0, beta=3.0, gamma=0.5).term(embeddings)
    assert float(term) == pytest.approx(-0.5 * (2 * apart + 3 * js))


def test_the_printed_formula_rewards_one_part_and_punishes_the_other() -> None:
    embeddings, apart, js = numbers()
    term = Diversity(alpha=2.0, beta=3.0, gamma=0.5, literal_sign=True).term(embeddings)
    assert float(term) == pytest.approx(0.5 * (2 * (1 - apart) + 3 * js))


@pytest.mark.parametrize(("name", "distance"), [("euclidean", euclidean), ("mmd", mmd)])
def test_another_distance_takes_the_place_of_both(name, distance) -> None:
    embeddings, _, _ = numbers()
    expected = -0.5 * float(mean_pairwise(distance, embeddings))
    assert float(Diversity(2.0, 3.0, 0.5, distance=name).term(embeddings)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "settings", [{}, {"distance": "euclidean"}, {"distance": "mmd"}, {"beta": 0.0}, {"alpha": 0.0}]
)
def test_minimising_the_term_drives_embeddings_apart(settings) -> None:
    embeddings = torch.from_numpy(RNG.normal(size=(6, 3, 5))).requires_grad_()
    before = float(mean_pairwise(euclidean, embeddings))
    optimiser = torch.optim.Adam([embeddings], lr=0.05)
    for _ in range(40):
        optimiser.zero_grad()
        Diversity(**settings).term(embeddings).backward()
        optimiser.step()
    assert float(mean_pairwise(euclidean, embeddings)) > 1.1 * before
