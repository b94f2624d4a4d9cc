"""The approximation of low rank against numpy's decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.normalise import normalise
from graphrec.layers.low_rank import low_rank


def graph(rows: int, cols: int, edges: int, seed: int = 0) -> Adjacency:
    cells = torch.randperm(rows * cols, generator=torch.Generator().manual_seed(seed))[:edges]
    return normalise(Adjacency.from_edges(torch.stack([cells // cols, cells % cols]), (rows, cols)))


@pytest.mark.parametrize(("rows", "cols"), [(30, 20), (12, 25), (60, 1100)])
def test_it_is_the_best_approximation_of_its_rank(rows: int, cols: int) -> None:
    adj, rank = graph(rows, cols, rows * cols // 6), 4
    dense = adj.to_dense(torch.float64).numpy()
    left, values, right = np.linalg.svd(dense, full_matrices=False)
    best = torch.tensor(left[:, :rank] * values[:rank] @ right[:rank])
    found = low_rank(adj, rank)
    torch.testing.assert_close(found.basis.T @ found.basis, torch.eye(rank), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.values, torch.tensor(values[:rank]).float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.image.norm(dim=0), found.values, rtol=1e-4, atol=1e-5)
    gap = float((found.times(torch.eye(cols).double()) - torch.tensor(dense)).norm())
    assert gap == pytest.approx(float((best - torch.tensor(dense)).norm()), rel=1e-4)


def test_products_are_those_of_the_matrix_and_of_its_transpose() -> None:
    found = low_rank(graph(15, 10, 60), 3)
    matrix = found.times(torch.eye(10))
    x, y, rows = torch.randn(10, 4), torch.randn(15, 4), torch.tensor([3, 0, 3])
    torch.testing.assert_close(found.times(x), matrix @ x)
    torch.testing.assert_close(found.transposed_times(y), matrix.T @ y)
    torch.testing.assert_close(found.times(x, rows), (matrix @ x)[rows])
    torch.testing.assert_close(found.transposed_times(y, rows), (matrix.T @ y)[rows])


def test_of_full_rank_it_is_the_matrix_and_of_less_edges_too() -> None:
    for edges in (60, 5, 0):  # with five edges most singular values are 0
        adj = graph(15, 10, edges)
        found = low_rank(adj, 99)
        torch.testing.assert_close(found.times(torch.eye(10)), adj.to_dense(torch.float32), rtol=1e-4, atol=1e-5)


def test_rank_must_be_positive() -> None:
    with pytest.raises(InputError, match="rank"):
        low_rank(graph(5, 5, 8), 0)
