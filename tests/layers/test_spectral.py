from __future__ import annotations

import numpy as np
import pytest
import torch

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers import spectral
from graphrec.layers.spectral import normalised, right_singular_vectors, singular_vectors


def edges(rows: int, cols: int, density: float, seed: int) -> tuple[np.ndarray, Adjacency]:
    """A matrix of ones whose last row and column are empty."""
    matrix = (np.random.default_rng(seed).random((rows, cols)) < density).astype(np.float64)
    matrix[-1] = 0
    matrix[:, -1] = 0
    return matrix, Adjacency.from_edges(torch.from_numpy(np.stack(matrix.nonzero())), matrix.shape)


def dense_normalised(matrix: np.ndarray) -> np.ndarray:
    rows, cols = matrix.sum(1, keepdims=True), matrix.sum(0, keepdims=True)
    return matrix / np.sqrt(np.where(rows > 0, rows, 1)) / np.sqrt(np.where(cols > 0, cols, 1))


def test_normalised_divides_by_the_roots_of_degrees() -> None:
    matrix, adj = edges(12, 9, 0.4, 0)
    np.testing.assert_allclose(normalised(adj).to_dense().numpy(), dense_normalised(matrix), rtol=1e-6)


@pytest.mark.parametrize("exact", [True, False])
def test_leading_vectors_are_those_of_a_dense_decomposition(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exact:
        monkeypatch.setattr(spectral, "EXACT_SIZE", 0)
    matrix, adj = edges(90, 70, 0.1, 1)
    _, values, vectors = np.linalg.svd(dense_normalised(matrix))
    found, right = right_singular_vectors(normalised(adj), 6, rounds=12)
    np.testing.assert_allclose(found.numpy(), values[:6], atol=1e-5)
    # Vectors have their sign fixed here; what they span has none.
    expected = vectors[:6].T @ vectors[:6]
    np.testing.assert_allclose((right @ right.T).numpy(), expected, atol=2e-4)
    torch.testing.assert_close(right.T @ right, torch.eye(6), atol=1e-5, rtol=0)
    assert bool((right.gather(0, right.abs().argmax(0, keepdim=True)) > 0).all())


def test_power_iteration_depends_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral, "EXACT_SIZE", 0)
    matrix = normalised(edges(60, 50, 0.2, 2)[1])
    state = torch.get_rng_state()
    first, again, other = (right_singular_vectors(matrix, 4, rounds=1, extra=2, seed=seed)[1] for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_more_vectors_than_there_are_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    adj = normalised(edges(6, 30, 0.5, 3)[1])
    for size in (1024, 0):
        monkeypatch.setattr(spectral, "EXACT_SIZE", size)
        values, right = right_singular_vectors(adj, 20)
        assert values.shape == (6,) and right.shape == (30, 6)
        assert bool(right.isfinite().all())


def test_triples_put_the_matrix_together_again() -> None:
    matrix, adj = edges(25, 18, 0.3, 4)
    left, values, right = singular_vectors(adj, 18)
    np.testing.assert_allclose((left * values @ right.T).numpy(), dense_normalised(matrix), atol=1e-5)


def test_no_vectors_cannot_be_asked_for() -> None:
    with pytest.raises(InputError, match="must be 1 or more, found 0"):
        right_singular_vectors(edges(5, 5, 0.5, 5)[1], 0)
