from __future__ import annotations

import numpy as np
import pytest
import torch

from graphrec.models import UserKNN
from tests.models.closed_forms import ClosedFormCases, all_scores, dataset, largest_of_column, random_matrix
from tests.models.conformance import ModelConformance


class TestUserKNN(ClosedFormCases, ModelConformance):
    model_class = UserKNN
    hparams = {"k": 40}


def cosine(matrix: np.ndarray) -> np.ndarray:
    length = np.sqrt(matrix.sum(1))
    with np.errstate(invalid="ignore"):
        found = np.nan_to_num(matrix @ matrix.T / (length[:, None] * length))
    equal = (matrix[:, None] == matrix[None]).all(2)
    return np.where(equal, 0.0, found)


def test_source_lends_to_its_nearest() -> None:
    matrix = random_matrix(seed=1)
    similar = cosine(matrix)
    ordered = -np.sort(-similar, axis=1)
    weights = np.where(similar >= ordered[:, 4:5] - 1e-9, similar, 0.0)
    np.testing.assert_allclose(all_scores(UserKNN(dataset(matrix), k=5)), weights.T @ matrix, rtol=1e-5)


def test_target_borrows_from_its_nearest() -> None:
    matrix = random_matrix(seed=2)
    weights = largest_of_column(cosine(matrix).round(12), 5)
    found = all_scores(UserKNN(dataset(matrix), k=5, neighbours_of="target"))
    np.testing.assert_allclose(found, weights.T @ matrix, rtol=1e-5)


@pytest.mark.parametrize("neighbours_of", ["source", "target"])
def test_twins_get_the_same_scores_and_do_not_help_each_other(neighbours_of: str) -> None:
    matrix = random_matrix(seed=4)
    matrix[5] = matrix[2]
    model = UserKNN(dataset(matrix), k=6, neighbours_of=neighbours_of)
    scores = all_scores(model)
    np.testing.assert_array_equal(scores[5], scores[2])
    alone = UserKNN(dataset(np.delete(matrix, 5, axis=0)), k=6, neighbours_of=neighbours_of)
    if neighbours_of == "target":
        np.testing.assert_allclose(all_scores(alone)[2], scores[2], rtol=1e-5)
    history = torch.from_numpy(matrix[2].nonzero()[0])
    np.testing.assert_allclose(model.score_history(history).numpy(), scores[2], rtol=1e-6)
