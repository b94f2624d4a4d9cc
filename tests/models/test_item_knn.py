from __future__ import annotations

import numpy as np
import pytest

from graphrec.errors import InputError
from graphrec.models import ItemKNN
from tests.models.closed_forms import ClosedFormCases, all_scores, dataset, largest_of_column, random_matrix
from tests.models.conformance import ModelConformance


class TestItemKNN(ClosedFormCases, ModelConformance):
    model_class = ItemKNN
    # Counts tie often, and ties go to lower numbers: equivariance is exact where no neighbour is cut off.
    hparams = {"k": 80}


def similarity(matrix: np.ndarray, name: str, shrink: float) -> np.ndarray:
    """One pair at a time."""
    users, items = matrix.shape
    found = np.zeros((items, items))
    for i in range(items):
        for j in range(items):
            a, b = matrix[:, i], matrix[:, j]
            common, da, db = a @ b, a.sum(), b.sum()
            if i == j or common == 0:
                continue
            if name == "dot":
                found[i, j] = common
            elif name == "cosine":
                found[i, j] = common / (np.sqrt(da * db) + shrink)
            elif name == "jaccard":
                found[i, j] = common / (da + db - common + shrink)
            else:
                below = np.sqrt(da * (users - da) * db * (users - db)) + shrink
                found[i, j] = max((users * common - da * db) / below, 0.0)
    return found


def nearest(matrix: np.ndarray, name: str, shrink: float, k: int) -> np.ndarray:
    """The similarities of each column's k nearest; counts that are equal by fewer users first."""
    found = similarity(matrix, name, shrink)
    if name != "dot":
        return largest_of_column(found, k)
    rarer = 0.5 / np.sqrt(1.0 + matrix.sum(0))
    return np.floor(largest_of_column(np.where(found > 0, found + rarer[:, None], 0.0), k))


@pytest.mark.parametrize("name", ["dot", "cosine", "jaccard", "pearson"])
@pytest.mark.parametrize("shrink", [0.0, 2.5])
def test_columns_keep_their_largest(name: str, shrink: float) -> None:
    matrix = random_matrix()
    expected = matrix @ nearest(matrix, name, shrink, 4)
    found = all_scores(ItemKNN(dataset(matrix), k=4, similarity=name, shrink=shrink))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_rows_keep_their_largest_when_asked() -> None:
    matrix = random_matrix(seed=3)
    expected = matrix @ nearest(matrix, "dot", 0.0, 3).T
    found = all_scores(ItemKNN(dataset(matrix), k=3, neighbours_of="source"))
    np.testing.assert_allclose(found, expected)


def test_pearson_without_shrinkage_is_the_correlation() -> None:
    matrix = random_matrix(60, 8, 0.4)[:, :-1]
    expected = np.corrcoef(matrix.T)
    np.fill_diagonal(expected, 0.0)
    found = similarity(matrix, "pearson", 0.0)
    np.testing.assert_allclose(found, np.maximum(expected, 0.0), atol=1e-12)


def test_settings_are_checked() -> None:
    data = dataset(random_matrix())
    for wrong in ({"k": 0}, {"similarity": "euclid"}, {"shrink": -1.0}, {"neighbours_of": "both"}):
        with pytest.raises(InputError):
            ItemKNN(data, **wrong)
