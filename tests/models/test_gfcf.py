from __future__ import annotations

import numpy as np
import torch

from graphrec.layers import spectral
from graphrec.models import GFCF
from tests.models.closed_forms import ClosedFormCases, all_scores, dataset, filters, low_pass, random_matrix
from tests.models.conformance import ModelConformance


class TestGFCF(ClosedFormCases, ModelConformance):
    model_class = GFCF
    hparams = {"factor_dim": 4}


def test_formula() -> None:
    matrix = random_matrix()
    expected = matrix @ filters(matrix)[1] + 0.7 * matrix @ low_pass(matrix, 5)
    found = all_scores(GFCF(dataset(matrix), factor_dim=5, alpha=0.7))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_linear_filter_alone() -> None:
    matrix = random_matrix(seed=1)
    expected = matrix @ filters(matrix)[1]
    for hparams in ({"alpha": 0.0}, {"factor_dim": 0}):
        np.testing.assert_allclose(all_scores(GFCF(dataset(matrix), **hparams)), expected, rtol=1e-5, atol=1e-6)


def test_all_vectors_give_the_history_back() -> None:
    matrix = random_matrix()
    model = GFCF(dataset(matrix), factor_dim=1000, alpha=1.0)
    np.testing.assert_allclose(all_scores(model) - matrix @ filters(matrix)[1], matrix, atol=1e-4)


def test_spectrum_of_the_item_matrix() -> None:
    matrix = random_matrix()
    _, item_matrix, items = filters(matrix)
    values = np.linalg.eigvalsh(item_matrix)
    assert values.min() > -1e-9 and values.max() < 1 + 1e-9
    np.testing.assert_allclose(item_matrix @ np.sqrt(items), np.sqrt(items), atol=1e-12)


def test_power_iteration_agrees_with_the_exact_decomposition(monkeypatch) -> None:
    matrix = random_matrix(120, 90, 0.1)
    model = GFCF(dataset(matrix), factor_dim=6)
    exact_values, exact = spectral.right_singular_vectors(model.normalised(), 6)
    monkeypatch.setattr(spectral, "EXACT_SIZE", 0)
    values, vectors = spectral.right_singular_vectors(model.normalised(), 6, rounds=12)
    torch.testing.assert_close(values, exact_values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(vectors @ vectors.T, exact @ exact.T, rtol=0, atol=2e-3)


def test_power_iteration_of_a_matrix_of_low_rank(monkeypatch) -> None:
    """Fewer independent rows than vectors: the columns of the block become dependent."""
    monkeypatch.setattr(spectral, "EXACT_SIZE", 0)
    matrix = np.repeat(random_matrix(4, 60, 0.3), 5, axis=0)
    model = GFCF(dataset(matrix), factor_dim=10)
    values, vectors = spectral.right_singular_vectors(model.normalised(), 10)
    expected = np.linalg.svd(filters(matrix)[0], compute_uv=False)[:10]
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-3)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(10), rtol=0, atol=1e-4)
