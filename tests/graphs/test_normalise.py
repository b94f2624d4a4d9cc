"""Normalised matrices against dense formulas."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.normalise import normalise
from tests.graphs.strategies import bipartite


def expected(dense: Tensor, kind: str) -> Tensor:
    rows, cols = dense.sum(1), dense.sum(0)
    inverse = lambda degree, power: torch.where(degree > 0, degree**-power, 0.0)  # noqa: E731
    if kind == "sym":
        return inverse(rows, 0.5)[:, None] * dense * inverse(cols, 0.5)[None]
    return {"left": inverse(rows, 1.0)[:, None] * dense, "right": dense * inverse(cols, 1.0)[None], "none": dense}[kind]


@settings(deadline=None, max_examples=40)
@given(bipartite(), st.sampled_from(["sym", "left", "right", "none"]), st.booleans())
def test_against_dense(case: tuple[Tensor, tuple[int, int]], kind: str, weighted: bool) -> None:
    edges, shape = case
    values = torch.rand(edges.shape[1]).double() if weighted else torch.ones(edges.shape[1]).double()
    adj = Adjacency.from_edges(edges, shape, values=values)
    assert torch.allclose(normalise(adj, kind).to_dense(), expected(adj.to_dense(), kind), atol=1e-12)
    assert torch.isfinite(normalise(adj, kind).to_dense()).all()


def test_symmetric_fixed_point_and_spectrum() -> None:
    # A D^1/2 1 = D^1/2 1 on nodes with edges; the spectral radius is 1 and, the graph being bipartite, the spectrum
    # even.
    torch.manual_seed(0)
    half = (torch.rand(6, 5) < 0.5).double()
    whole = torch.zeros(11, 11, dtype=torch.float64)
    whole[:6, 6:], whole[6:, :6] = half, half.T
    edges = whole.nonzero().t()
    adj = Adjacency.from_edges(edges, (11, 11), values=torch.ones(edges.shape[1]).double(), symmetric=True)
    hat = normalise(adj)
    assert hat.symmetric and hat.transposed is hat
    root = adj.degrees(0).double().sqrt()
    assert torch.allclose(hat.to_dense() @ root, root)
    spectrum = torch.linalg.eigvalsh(hat.to_dense())
    assert abs(float(spectrum.max()) - 1) < 1e-12
    assert torch.allclose(spectrum, -spectrum.flip(0), atol=1e-12)


def test_self_loops_come_after_the_edges() -> None:
    edges = torch.tensor([[1, 0, 2, 1], [0, 1, 1, 2]])
    adj = Adjacency.from_edges(edges, (4, 4), edge_id=torch.tensor([4, 5, 6, 7]), symmetric=True)
    looped = normalise(adj, "none", self_loops=True)
    assert torch.equal(looped.to_dense(), adj.to_dense() + torch.eye(4))
    listed = torch.empty(8, dtype=torch.int64)
    listed[looped.edge_positions()] = looped.edge_id
    assert listed.tolist() == [4, 5, 6, 7, -1, -1, -1, -1]
    assert torch.allclose(
        normalise(adj, "sym", self_loops=True).to_dense(), expected(adj.to_dense() + torch.eye(4), "sym")
    )
    with pytest.raises(InputError, match="square"):
        normalise(Adjacency.from_edges(edges, (3, 4)), self_loops=True)
    with pytest.raises(InputError, match="Did you mean 'sym'"):
        normalise(adj, "symm")


def test_values_can_be_learned_through_the_normalisation() -> None:
    edges = torch.tensor([[0, 0, 1], [0, 1, 1]])
    adj = Adjacency.from_edges(edges, (3, 2))
    values = torch.rand(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: normalise(adj.with_values(v)).values, (values,))
