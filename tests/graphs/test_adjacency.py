"""The sparse matrix against dense ones and edge lists."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency, adjacency
from tests.graphs.strategies import bipartite

BUYS = ("user", "buys", "item")


def dense(edges: Tensor, shape: tuple[int, int], values: Tensor) -> Tensor:
    made = torch.zeros(shape, dtype=values.dtype)
    for (row, col), value in zip(edges.t().tolist(), values, strict=True):
        made[row, col] += value
    return made


@settings(deadline=None, max_examples=60)
@given(bipartite())
def test_matrix_transpose_ids_and_values(case: tuple[Tensor, tuple[int, int]]) -> None:
    edges, shape = case
    count = edges.shape[1]
    values, ids = torch.rand(count).double(), torch.randperm(count) + 100
    adj = Adjacency.from_edges(edges, shape, values=values, edge_id=ids)
    assert adj.rowptr.dtype == adj.col.dtype == torch.int32
    for matrix, list_rows, list_cols, expected in (
        (adj, edges[0], edges[1], dense(edges, shape, values)),
        (adj.transposed, edges[1], edges[0], dense(edges, shape, values).T),
        (adj.transposed.transposed, edges[0], edges[1], dense(edges, shape, values)),
    ):
        assert torch.allclose(matrix.to_dense(), expected)
        place = matrix.edge_positions()
        assert torch.equal(matrix.rows().long(), list_rows[place])
        assert torch.equal(matrix.col.long(), list_cols[place])
        assert torch.equal(matrix.edge_id, ids[place])
        assert torch.equal(matrix.degrees(0), torch.bincount(list_rows, minlength=matrix.shape[0]))
        assert torch.equal(matrix.degrees(1), torch.bincount(list_cols, minlength=matrix.shape[1]))
        others = torch.rand(count).double()
        again = dense(edges, shape, others)
        again = again if matrix.shape == shape and torch.equal(list_rows, edges[0]) else again.T
        assert torch.allclose(matrix.with_values(others).to_dense(), again)


@settings(deadline=None, max_examples=60)
@given(bipartite(), st.data())
def test_contains_and_row_subset(case: tuple[Tensor, tuple[int, int]], data: st.DataObject) -> None:
    edges, shape = case
    adj = Adjacency.from_edges(edges, shape)
    there = adj.to_dense() > 0
    rows, cols = torch.arange(shape[0])[:, None], torch.arange(shape[1])[None, :]
    assert torch.equal(adj.contains(rows, cols), there)
    assert torch.equal(adj.contains(rows.expand(shape), cols.expand(shape)), there)
    picked = torch.tensor(data.draw(st.lists(st.integers(0, shape[0] - 1), max_size=6)), dtype=torch.int64)
    part = adj.row_subset(picked)
    assert torch.equal(part.to_dense(), adj.to_dense()[picked])
    values = torch.rand(edges.shape[1])
    assert torch.allclose(part.with_values(values).to_dense(), dense(edges, shape, values)[picked])
    if len(picked):
        assert torch.equal(part.edge_positions(), edge_positions(adj, picked))


@settings(deadline=None, max_examples=60)
@given(bipartite(), st.booleans(), st.data())
def test_rows_without_edges_and_their_transpose(
    case: tuple[Tensor, tuple[int, int]], weighted: bool, data: st.DataObject
) -> None:
    edges, shape = case
    adj = Adjacency.from_edges(edges, shape, values=torch.rand(edges.shape[1]) if weighted else None)
    picked = torch.tensor(data.draw(st.lists(st.integers(0, shape[0] - 1), max_size=6)), dtype=torch.int64)
    part, whole = adj.row_subset(picked, edges=False), adj.row_subset(picked)
    assert part.edge is None and part.num_edges == len(part) == len(whole)
    assert torch.equal(part.rowptr, whole.rowptr) and torch.equal(part.col, whole.col)
    assert torch.equal(part.to_dense(), adj.to_dense()[picked])
    turned, transposed = part.turned(), part.transposed
    assert turned.shape == transposed.shape
    assert torch.equal(turned.rowptr, transposed.rowptr) and torch.equal(turned.col, transposed.col)
    assert (turned.values is None) == (not weighted)
    assert turned.values is None or torch.equal(turned.values, transposed.values)


def edge_positions(adj: Adjacency, rows: Tensor) -> Tensor:
    place = adj.edge_positions()
    return torch.cat([place[int(adj.rowptr[row]) : int(adj.rowptr[row + 1])] for row in rows])


def test_sorted_edges_keep_their_order() -> None:
    edges = torch.tensor([[0, 0, 2], [1, 3, 0]])
    assert Adjacency.from_edges(edges, (3, 4)).edge is None
    assert Adjacency.from_edges(edges.flip(1), (3, 4)).edge.tolist() == [2, 1, 0]


def test_symmetric_matrices_are_their_own_transpose() -> None:
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    adj = Adjacency.from_edges(edges, (3, 3), values=torch.tensor([1.0, 1.0, 2.0, 2.0]), symmetric=True)
    assert adj.transposed is adj
    lopsided = adj.with_values(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert not lopsided.symmetric and torch.equal(lopsided.transposed.to_dense(), lopsided.to_dense().T)
    assert adj.with_values(torch.tensor([3.0, 3.0, 4.0, 4.0])).symmetric
    with pytest.raises(InputError, match="symmetric"):
        Adjacency.from_edges(edges[:, 1:], (3, 3), symmetric=True)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (torch.tensor([[0, 5], [0, 0]]), "edge 1 has row 5, expected 0 to 2"),
        (torch.tensor([[0, 1], [0, -1]]), "edge 1 has column -1"),
        (torch.tensor([[0.0], [1.0]]), "integers"),
        (torch.tensor([0, 1]), r"\(2, E\)"),
    ],
)
def test_bad_edges_are_named(edges: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Adjacency.from_edges(edges, (3, 3))


def graph() -> HeteroData:
    made = HeteroData()
    made["user"].num_nodes, made["item"].num_nodes = 3, 4
    made[BUYS].edge_index = torch.tensor([[2, 0, 0], [1, 3, 2]])
    made[BUYS].edge_id = torch.tensor([5, 6, 7])
    return made


def test_cached_until_the_edges_change() -> None:
    made = graph()
    first = adjacency(made, BUYS)
    assert adjacency(made, BUYS) is first and first.edge_id.tolist() == [7, 6, 5]
    made[BUYS].edge_index[0, 0] = 1
    second = adjacency(made, BUYS)
    assert second is not first and second.to_dense()[1, 1] == 1
    made[BUYS].edge_index = made[BUYS].edge_index[:, :2]
    made[BUYS].edge_id = made[BUYS].edge_id[:2]
    assert len(adjacency(made, BUYS)) == 2
    made["item"].num_nodes = 9
    assert adjacency(made, BUYS).shape == (3, 9)


def test_copies_have_matrices_of_their_own() -> None:
    made = graph()
    first = adjacency(made, BUYS)
    for other in (made.clone(), copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert adjacency(other, BUYS) is not first
    assert adjacency(made, BUYS) is first


def test_unknown_edge_type_is_named() -> None:
    with pytest.raises(InputError, match="user__buys__item"):
        adjacency(graph(), ("user", "buy", "item"))


def test_apply_leaves_indices_alone() -> None:
    adj = Adjacency.from_edges(torch.tensor([[1, 0], [0, 1]]), (2, 2), values=torch.rand(2))
    wide = adj.apply(lambda x: x.double() if x.is_floating_point() else x)
    assert wide.values.dtype == torch.float64 and wide.col.dtype == torch.int32
    assert adj.to(dtype=torch.float64).transposed.values.dtype == torch.float64


def test_matrices_die_without_the_cycle_collector() -> None:
    gc.disable()
    try:
        adj = Adjacency.from_edges(torch.tensor([[1, 0], [0, 1]]), (2, 2), values=torch.rand(2))
        assert torch.equal(adj.transposed.transposed.to_dense(), adj.to_dense())
        gone = weakref.ref(adj)
        del adj
        assert gone() is None
    finally:
        gc.enable()


def test_made_in_inference_mode_serves_training() -> None:
    from graphrec.layers.spmm import spmm

    adj = Adjacency.from_edges(torch.tensor([[1, 0, 0], [0, 1, 0]]), (2, 2))
    values = torch.rand(3, requires_grad=True)
    with torch.inference_mode():
        spmm(adj.transposed, torch.rand(2, 3), values.detach())
    x = torch.rand(2, 3, requires_grad=True)
    spmm(adj, x, values).sum().backward()
    spmm(adj, x).sum().backward()
    assert x.grad is not None and values.grad is not None


def test_a_copy_of_a_used_matrix_is_the_same_matrix() -> None:
    from graphrec.layers.spmm import spmm

    adj = Adjacency.from_edges(torch.tensor([[1, 0, 1], [2, 1, 0]]), (2, 3), values=torch.tensor([1.0, 2.0, 3.0]))
    spmm(adj, torch.ones(3, 2))
    copied = copy.deepcopy(adj)
    assert torch.equal(copied.to_dense(), adj.to_dense())
    assert copied.col.data_ptr() != adj.col.data_ptr()
    assert torch.equal(spmm(copied, torch.ones(3, 2)), spmm(adj, torch.ones(3, 2)))
