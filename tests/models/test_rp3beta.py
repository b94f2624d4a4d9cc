from __future__ import annotations

import numpy as np
import torch

from graphrec.models import RP3beta
from tests.models.closed_forms import ClosedFormCases, all_scores, dataset, largest_of_column, random_matrix
from tests.models.conformance import ModelConformance


class TestRP3beta(ClosedFormCases, ModelConformance):
    model_class = RP3beta
    hparams = {"k": 80}


def walks(matrix: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """S (I, I), diagonal kept."""
    users, items = matrix.sum(1), matrix.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        to_item = np.nan_to_num(matrix / users[:, None]) ** alpha * (matrix > 0)
        to_user = np.nan_to_num(matrix / items) ** alpha * (matrix > 0)
    return to_user.T @ to_item * np.maximum(items, 1.0) ** -beta


def test_columns_are_cut_before_rows_are_scaled() -> None:
    matrix = random_matrix()
    full = walks(matrix, 0.6, 0.3)
    np.fill_diagonal(full, 0.0)
    kept = largest_of_column(full, 4)
    total = kept.sum(1, keepdims=True)
    expected = matrix @ (kept / np.where(total > 0, total, 1.0))
    found = all_scores(RP3beta(dataset(matrix), k=4, alpha=0.6, beta=0.3))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_walks_are_probabilities() -> None:
    """With alpha 1, beta 0 and everything kept, what leaves an item sums to 1 minus what comes back to it."""
    matrix = random_matrix()
    model = RP3beta(dataset(matrix), k=matrix.shape[1], alpha=1.0, beta=0.0, normalise_rows=False)
    model.solve()
    found = model.weights().to_dense().double().numpy()
    full = walks(matrix, 1.0, 0.0)
    present = matrix.sum(0) > 0
    np.testing.assert_allclose(full.sum(1)[present], 1.0)
    np.testing.assert_allclose(found.sum(1) + np.diag(full), present.astype(float), atol=1e-6)


def test_rows_sum_to_one() -> None:
    model = RP3beta(dataset(random_matrix(seed=5)), k=5)
    model.solve()
    total = model.weights().to_dense().sum(1)
    assert bool(((total - 1).abs() < 1e-5).logical_or(total == 0).all())
    assert torch.count_nonzero(model.weights().to_dense().diagonal()) == 0
