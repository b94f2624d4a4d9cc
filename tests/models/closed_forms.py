"""Small matrices and slow references for the closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from graphrec.datasets.builder import Builder
from graphrec.datasets.dataset import RecDataset
from graphrec.models import GraphRecommender
from graphrec.models.closed_form import ClosedForm


def random_matrix(num_users: int = 30, num_items: int = 22, density: float = 0.25, seed: int = 0) -> np.ndarray:
    """Zeros and ones (U, I) float64; the last user has no item, the last item no user."""
    matrix = (np.random.default_rng(seed).random((num_users, num_items)) < density).astype(np.float64)
    matrix[-1] = 0
    matrix[:, -1] = 0
    return matrix


def dataset(matrix: np.ndarray, weight: np.ndarray | None = None) -> RecDataset:
    """The matrix as a dataset; node numbers are row and column numbers."""
    users, items = matrix.nonzero()
    builder = Builder()
    builder.nodes("user", np.arange(matrix.shape[0]))
    builder.nodes("item", np.arange(matrix.shape[1]))
    frame = pd.DataFrame({"user": users, "item": items})
    if weight is not None:
        frame["weight"] = weight[users, items]
    builder.interactions(frame, user="user", item="item", weight=None if weight is None else "weight")
    return builder.build()


def all_scores(model: GraphRecommender) -> np.ndarray:
    """Scores (U, I) of a model, solved if it is not."""
    if isinstance(model, ClosedForm) and not model.solved:
        model.solve()
    return model.score(torch.arange(model.num_users)).double().numpy()


def largest_of_column(matrix: np.ndarray, k: int) -> np.ndarray:
    """The k largest positive entries of each column, equal ones by lower row; zeros elsewhere."""
    kept = np.zeros_like(matrix)
    for column in range(matrix.shape[1]):
        order = np.argsort(-matrix[:, column], kind="stable")[:k]
        order = order[matrix[order, column] > 0]
        kept[order, column] = matrix[order, column]
    return kept


def filters(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """N (U, I), P (I, I) and the degrees of items (I,)."""
    users, items = matrix.sum(1), matrix.sum(0)
    left = np.where(users > 0, users, np.inf) ** -0.5
    right = np.where(items > 0, items, np.inf) ** -0.5
    normalised = left[:, None] * matrix * right
    return normalised, normalised.T @ normalised, items


def low_pass(matrix: np.ndarray, k: int) -> np.ndarray:
    """``D_i^-1/2 V Vᵀ D_i^1/2`` (I, I)."""
    normalised, _, items = filters(matrix)
    vectors = np.linalg.svd(normalised)[2][:k].T
    right = np.where(items > 0, items, np.inf) ** -0.5
    return right[:, None] * (vectors @ vectors.T) * np.sqrt(items)


class ClosedFormCases:
    """What holds for every function of a history row; mixed into the conformance suite."""

    def test_dense_and_sparse_rows_agree(self, model: ClosedForm) -> None:
        users = torch.tensor([2, 9, 40])
        weight = torch.ones(model.graph_inputs.adjacency().num_edges)
        found = model.score(users, edge_weight=weight)
        torch.testing.assert_close(found, model.score(users), rtol=1e-4, atol=1e-6)

    def test_edge_weights_have_gradients(self, model: ClosedForm) -> None:
        weight = torch.ones(model.graph_inputs.adjacency().num_edges, requires_grad=True)
        scores = model.score(torch.tensor([3]), edge_weight=weight)
        assert scores.requires_grad
        scores.square().sum().backward()
        assert weight.grad is not None
        own = weight.grad.nonzero().flatten()
        edge_index = model.graph_inputs.graph[model.graph_inputs.target].edge_index
        assert len(own) > 0 and bool((edge_index[0, own] == 3).all())

    def test_blocks_change_nothing(self, model: ClosedForm, monkeypatch) -> None:
        users = torch.arange(50)
        whole = model.score(users)
        monkeypatch.setattr("graphrec.models.closed_form.WORKING_MEMORY", 7 * model.bytes_per_user())
        torch.testing.assert_close(model.score(users), whole, rtol=1e-5, atol=1e-7)
        own = torch.arange(50)[:, None] % model.num_items
        torch.testing.assert_close(model.score(users, own), whole.gather(1, own), rtol=1e-5, atol=1e-7)

    def test_without_history_all_scores_are_zero(self) -> None:
        model = self.make(dataset(random_matrix()))
        model.solve()
        assert not model.score(torch.tensor([model.num_users - 1])).any()
        assert not model.score_history(torch.zeros(0, dtype=torch.int64)).any()

    def test_an_unsolved_model_says_so(self) -> None:
        import pytest

        from graphrec.errors import InputError

        with pytest.raises(InputError, match="not solved"):
            self.make(dataset(random_matrix())).score(torch.tensor([0]))
