"""The kernel of bags of embeddings as a sparse product: it is the dense product, whatever the pieces and factors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.graphs.adjacency import Adjacency
from graphrec.layers import bags
from graphrec.layers.spmm import multiply

pytestmark = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines, reason="torch was built without this kernel"
)


def matrix(rows: int, cols: int, edges: int, seed: int, valued: bool = True) -> Adjacency:
    stream = torch.Generator().manual_seed(seed)
    index = torch.stack([torch.randint(size, (edges,), generator=stream) for size in (rows, cols)])
    return Adjacency.from_edges(index, (rows, cols), values=torch.randn(edges, generator=stream) if valued else None)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    cols=st.integers(1, 20),
    edges=st.integers(1, 120),
    width=st.integers(4, 33),
    piece=st.integers(1, 4096),
    valued=st.booleans(),
    factors=st.sampled_from([(0.0, 1.0), (1.0, 1.0), (1.0, -0.5), (0.25, 1.0), (-2.0, 3.0)]),
    given_out=st.sampled_from(["none", "own", "add"]),
    seed=st.integers(0, 99),
)
def test_it_is_the_dense_product(rows, cols, edges, width, piece, valued, factors, given_out, seed) -> None:
    adj = matrix(rows, cols, edges, seed, valued)
    stream = torch.Generator().manual_seed(seed + 1)
    x, add = torch.randn(cols, width, generator=stream), torch.randn(rows, width, generator=stream)
    assert bags.serves(x, adj.rowptr, adj.col)
    want = factors[0] * add.double() + factors[1] * (adj.to_dense().double() @ x.double())
    out = {"none": None, "own": torch.full((rows, width), torch.nan), "add": add}[given_out]
    before = bags.PIECE_BYTES
    bags.PIECE_BYTES = piece
    try:
        found = multiply(adj, x, out=out, add=add if factors[0] else None, add_scale=factors[0], scale=factors[1])
    finally:
        bags.PIECE_BYTES = before
    assert out is None or found.data_ptr() == out.data_ptr()
    torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=1e-4)


def test_rows_do_not_depend_on_what_else_is_asked_for() -> None:
    adj, x = matrix(500, 300, 6000, 0), torch.randn(300, 64, generator=torch.Generator().manual_seed(1))
    whole, rows = multiply(adj, x), torch.tensor([3, 499, 3, 250])
    assert torch.equal(multiply(adj.row_subset(rows, edges=False), x), whole[rows])


def test_columns_of_a_wider_table_are_taken_as_they_are() -> None:
    adj, wide = matrix(30, 20, 100, 2), torch.randn(20, 24, generator=torch.Generator().manual_seed(3))
    assert torch.equal(multiply(adj, wide[:, 5:15]), multiply(adj, wide[:, 5:15].contiguous()))


def test_other_types_and_narrow_tables_go_to_other_kernels() -> None:
    adj = matrix(6, 5, 9, 4)
    for x in (torch.zeros(5, 8, dtype=torch.float64), torch.zeros(5, 1), torch.zeros(5, 8, dtype=torch.float16)):
        assert not bags.serves(x, adj.rowptr, adj.col)


def test_the_product_does_not_reach_into_the_callers_graph() -> None:
    adj, x = matrix(6, 5, 9, 5), torch.randn(5, 8, requires_grad=True)
    assert not multiply(adj, x).requires_grad
