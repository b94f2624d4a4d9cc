from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers import neighbourhood
from graphrec.layers.neighbourhood import (
    largest_of_product,
    product_in_columns,
    row_sums,
    sparse_times_sparse,
    transposed,
)


def sparse(matrix: np.ndarray) -> Adjacency:
    rows, cols = matrix.nonzero()
    values = torch.from_numpy(matrix[rows, cols]).float()
    return Adjacency.from_edges(torch.from_numpy(np.stack([rows, cols])), matrix.shape, values=values)


def small(rows: int, cols: int, seed: int, density: float = 0.3) -> np.ndarray:
    """Few levels, so that sums are exact and often equal."""
    random = np.random.default_rng(seed)
    return random.integers(1, 4, (rows, cols)) * (random.random((rows, cols)) < density) / 2


def largest(product: np.ndarray, k: int) -> np.ndarray:
    kept = np.zeros_like(product)
    for row in range(len(product)):
        order = np.argsort(-product[row], kind="stable")[:k]
        order = order[product[row, order] > 0]
        kept[row, order] = product[row, order]
    return kept


sizes = st.integers(1, 9)


@settings(deadline=None, max_examples=60)
@given(sizes, sizes, sizes, st.integers(0, 1000), st.sampled_from([0.0, 0.2, 0.9]))
def test_products_are_those_of_dense_matrices(rows: int, inner: int, cols: int, seed: int, density: float) -> None:
    left, right = small(rows, inner, seed, density), small(inner, cols, seed + 1, density)
    expected = torch.from_numpy(left @ right).float()
    assert torch.equal(sparse_times_sparse(sparse(left), sparse(right)), expected)
    assert torch.equal(product_in_columns(sparse(left), sparse(right)), expected.T)


def test_parallel_edges_are_added_up() -> None:
    twice = Adjacency.from_edges(torch.tensor([[0, 0, 1], [1, 1, 0]]), (2, 2))
    other = sparse(np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]]))
    expected = torch.tensor([[0.0, 6.0, 0.0], [1.0, 0.0, 2.0]])
    assert torch.equal(sparse_times_sparse(twice, other), expected)
    assert torch.equal(product_in_columns(twice, other), expected.T)


@settings(deadline=None, max_examples=60)
@given(sizes, sizes, sizes, st.integers(0, 1000), st.integers(1, 10), st.sampled_from([1, 1000, 1 << 20]))
def test_the_largest_of_each_row_stay(rows: int, inner: int, cols: int, seed: int, k: int, memory: int) -> None:
    left, right = small(rows, inner, seed, 0.5), small(inner, cols, seed + 1, 0.5)
    found = largest_of_product(sparse(left), sparse(right), k, memory=memory)
    np.testing.assert_array_equal(found.to_dense().numpy(), largest(left @ right, k).astype(np.float32))


def test_entries_are_rescaled_before_they_are_compared() -> None:
    left, right = small(20, 15, 3), small(15, 20, 4)
    damping = torch.linspace(1.0, 0.1, 20)

    def rescale(row: Tensor, col: Tensor, value: Tensor) -> Tensor:
        return value * damping[col]

    found = largest_of_product(sparse(left), sparse(right), 4, rescale=rescale, drop_diagonal=True, memory=2000)
    product = (left @ right).astype(np.float32) * damping.numpy()
    np.fill_diagonal(product, 0)
    np.testing.assert_array_equal(found.to_dense().numpy(), largest(product, 4))


def test_scipy_takes_over_where_torch_has_no_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = sparse(small(12, 8, 5)), sparse(small(8, 14, 6))
    expected = sparse_times_sparse(left, right), largest_of_product(left, right, 3).to_dense()
    monkeypatch.setattr(neighbourhood.torch.backends.mkl, "is_available", lambda: False)
    assert torch.equal(sparse_times_sparse(left, right), expected[0])
    assert torch.equal(product_in_columns(left, right), expected[0].T)
    assert torch.equal(largest_of_product(left, right, 3).to_dense(), expected[1])


def test_transposed_and_sums() -> None:
    matrix = small(7, 5, 8)
    other = transposed(sparse(matrix))
    np.testing.assert_array_equal(other.to_dense().numpy(), matrix.T.astype(np.float32))
    np.testing.assert_array_equal(row_sums(sparse(matrix)).numpy(), matrix.sum(1))


def test_shapes_that_do_not_fit_are_named() -> None:
    left, right = sparse(small(3, 4, 0)), sparse(small(5, 3, 0))
    for product in (sparse_times_sparse, product_in_columns):
        with pytest.raises(InputError, match=r"\(3, 4\) and \(5, 3\)"):
            product(left, right)
    with pytest.raises(InputError, match="k must be 1 or more, found 0"):
        largest_of_product(left, sparse(small(4, 3, 0)), 0)
