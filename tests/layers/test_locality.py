"""The order of rows and columns: it finds planted groups, and no result depends on it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.normalise import normalise
from graphrec.layers import locality
from graphrec.layers.locality import layout, locality_order
from graphrec.layers.propagation import linear_propagation, propagation_and_ego_rows
from graphrec.layers.spmm import multiply
from tests.graphs.strategies import bipartite


def random_matrix(seed: int = 0) -> Adjacency:
    stream = torch.Generator().manual_seed(seed)
    edges = torch.stack([torch.randint(size, (2500,), generator=stream) for size in (300, 200)])
    return normalise(Adjacency.from_edges(edges, (310, 205)))


def steps(matrix: Adjacency, num_layers: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Rows of the polynomial, of the tables, and the gradients of both tables."""
    stream = torch.Generator().manual_seed(1)
    users, items = (torch.randn(size, 5, generator=stream, dtype=dtype).requires_grad_() for size in matrix.shape)
    rows = [torch.randint(size, (40,), generator=stream) for size in matrix.shape]
    weights = torch.rand(num_layers + 1, generator=stream).tolist()
    final, ego = propagation_and_ego_rows(matrix, users, items, weights, rows[0], rows[1])
    out = [torch.randn(x.shape, generator=stream, dtype=dtype) for x in (*final, *ego)]
    return [*final, *ego, *torch.autograd.grad((*final, *ego), (users, items), out)]


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
def test_moved_tables_give_the_same_rows_and_gradients_to_the_last_bit(
    num_layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = steps(random_matrix(), num_layers)
    monkeypatch.setattr(locality, "CACHE_BYTES", 0)
    matrix = random_matrix()
    moved = steps(matrix, num_layers)
    assert ("layout" in matrix.cache) == (num_layers > 1)
    assert all(torch.equal(x, y) for x, y in zip(still, moved, strict=True))


@settings(deadline=None, max_examples=30)
@given(bipartite(), st.integers(2, 5))
def test_moved_rows_are_rows_of_the_whole(case: tuple[Tensor, tuple[int, int]], num_layers: int) -> None:
    matrix = normalise(Adjacency.from_edges(*case)).to(dtype=torch.float64)
    users, items = (torch.randn(size, 3, dtype=torch.float64, requires_grad=True) for size in matrix.shape)
    weights = torch.rand(num_layers + 1).double()
    everyone = torch.arange(matrix.shape[0]), torch.arange(matrix.shape[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locality, "CACHE_BYTES", 0)
        ours, _ = propagation_and_ego_rows(matrix, users, items, weights, *everyone)
        grads = torch.autograd.grad(ours, (users, items), [x.detach() for x in ours])
    theirs = linear_propagation(matrix, users, items, weights)
    expected = torch.autograd.grad(theirs, (users, items), [x.detach() for x in theirs])
    assert all(torch.allclose(x, y, atol=1e-12) for x, y in zip((*ours, *grads), (*theirs, *expected), strict=True))


def test_layout_is_the_matrix_with_rows_and_columns_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locality, "CACHE_BYTES", 0)
    matrix = random_matrix()
    made = layout(matrix, row_bytes=4)
    assert made.order is not None and made.labels is not None
    for mine, other, here, there in zip(made.matrices, (matrix, matrix.transposed), (0, 1), (1, 0), strict=True):
        assert torch.equal(mine.to_dense(), other.to_dense()[made.order[here]][:, made.order[there]])
        assert torch.equal(made.order[here][made.labels[here]], torch.arange(other.shape[0]))
        x = torch.randn(other.shape[1], 3)
        assert torch.equal(multiply(mine, x[made.order[there]]), multiply(other, x)[made.order[here]])
    rows = torch.tensor([4, 0, 4]), torch.tensor([7])
    assert torch.equal(made.order[0][made.places(rows)[0]], rows[0])
    assert layout(matrix, row_bytes=4).matrices is made.matrices


def test_small_tables_and_passing_values_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = random_matrix()
    made = layout(matrix, row_bytes=256)
    assert made.order is None and made.matrices[0] is matrix and "layout" not in matrix.cache
    monkeypatch.setattr(locality, "CACHE_BYTES", 0)
    users, items = (torch.randn(size, 3) for size in matrix.shape)
    rows, values = torch.tensor([1, 2]), torch.rand(matrix.num_edges)
    monkeypatch.setattr(locality, "locality_order", lambda adj: pytest.fail("an order for one step alone"))
    propagation_and_ego_rows(matrix, users, items, [0.25] * 4, rows, rows, values)


def test_groups_that_share_their_items_come_together() -> None:
    stream = torch.Generator().manual_seed(0)
    group = torch.randint(2, (2000,), generator=stream)
    users, items = (2 * torch.randint(half, (2000,), generator=stream) + group for half in (50, 40))
    bridges = torch.tensor([[0, 1, 2], [1, 0, 3]])
    adj = Adjacency.from_edges(torch.cat([torch.stack([users, items]), bridges], 1), (100, 80))
    for order in locality_order(adj):
        side = order % 2
        assert int((side[1:] != side[:-1]).sum()) == 1
    assert all(torch.equal(x, y) for x, y in zip(locality_order(adj), locality_order(adj), strict=True))


def test_matrices_without_edges() -> None:
    adj = Adjacency.from_edges(torch.empty(2, 0, dtype=torch.int64), (3, 2))
    assert [sorted(order.tolist()) for order in locality_order(adj)] == [[0, 1, 2], [0, 1]]
    assert layout(adj, row_bytes=2**30).order is None
