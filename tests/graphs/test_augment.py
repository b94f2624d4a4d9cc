"""Subgraphs: exact numbers, draws that do not hang on other edges, and what a subgraph keeps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.augment import keep_edges, keep_exactly, keep_nodes, subgraph
from graphrec.randomness import hash_bits, hash_pairs, hash_uniform
from tests.graphs.strategies import bipartite


@settings(deadline=None, max_examples=60)
@given(bipartite(), st.sampled_from([0.0, 0.1, 0.5, 0.9]), st.integers(0, 5))
def test_the_number_of_edges_is_exact(case: tuple[Tensor, tuple[int, int]], p: float, seed: int) -> None:
    adj = Adjacency.from_edges(*case)
    kept = keep_exactly(adj, p, seed=seed)
    tenths = round(10 * (1 - p))
    assert int(kept.sum()) == tenths * len(adj) // 10
    assert torch.equal(kept, keep_exactly(adj, p, seed=seed))


def test_an_edge_keeps_its_draw_when_another_goes() -> None:
    cells = torch.randperm(900, generator=torch.Generator().manual_seed(1))[:400]
    edges = torch.stack([cells // 30, cells % 30])
    whole = keep_exactly(Adjacency.from_edges(edges, (30, 30)), 0.4, seed=3)
    less = keep_exactly(Adjacency.from_edges(edges[:, 1:], (30, 30)), 0.4, seed=3)
    assert int((whole[1:] != less).sum()) <= 1
    assert not torch.equal(whole, keep_exactly(Adjacency.from_edges(edges, (30, 30)), 0.4, seed=4))


def test_every_edge_is_kept_as_often() -> None:
    cells = torch.arange(100)
    adj = Adjacency.from_edges(torch.stack([cells // 10, cells % 10]), (10, 10))
    kept = torch.stack([keep_exactly(adj, 0.3, seed=seed) for seed in range(400)]).double().mean(0)
    assert (kept - 0.7).abs().max() < 0.12  # five standard deviations of a mean of 400


@pytest.mark.parametrize(("size", "p", "left"), [(10, 0.9, 1), (10, 0.0, 10), (61, 0.5, 31), (0, 0.5, 0)])
def test_the_number_of_nodes_is_exact(size: int, p: float, left: int) -> None:
    kept = keep_nodes(size, p, seed=2)
    assert int(kept.sum()) == left
    if size > 1 and p == 0.5:
        assert not torch.equal(kept, keep_nodes(size, p, seed=5))


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.999])
def test_quick_draws_are_those_of_the_pairs(p: float) -> None:
    cells = torch.randperm(3000, generator=torch.Generator().manual_seed(1))[:900]
    rows, cols = cells // 50, cells % 50
    assert torch.equal(hash_pairs(7, rows, cols, (60, 50)), hash_bits(7, rows, cols))
    adj = Adjacency.from_edges(torch.stack([rows, cols]), (60, 50))
    assert torch.equal(keep_edges(adj, p, seed=7), hash_uniform(7, rows, cols) >= p)


@settings(deadline=None, max_examples=60)
@given(bipartite(), st.data())
def test_a_subgraph_has_the_kept_entries_and_their_places(
    case: tuple[Tensor, tuple[int, int]], data: st.DataObject
) -> None:
    edges, shape = case
    count = edges.shape[1]
    values, ids = torch.arange(count).double() + 1, torch.arange(count) * 7
    adj = Adjacency.from_edges(edges, shape, values=values, edge_id=ids)
    kept = torch.tensor(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=torch.bool)
    part = subgraph(adj, kept)
    expected = Adjacency.from_edges(edges[:, kept], shape, values=values[kept])
    assert torch.equal(part.to_dense(), expected.to_dense())
    assert torch.equal(part.transposed.to_dense(), expected.to_dense().T)
    assert part.edge_id is not None and part.num_edges == count
    assert torch.equal(part.edge_id, ids[part.edge_positions()])
    # Values for the whole edge list still fit.
    assert torch.equal(part.with_values(values * 2).to_dense(), expected.to_dense() * 2)


def test_wrong_shares_and_masks_are_refused() -> None:
    adj = Adjacency.from_edges(torch.tensor([[0, 1], [1, 0]]), (2, 2))
    with pytest.raises(InputError, match="share of dropped edges"):
        keep_exactly(adj, 1.0, seed=0)
    with pytest.raises(InputError, match="share of dropped nodes"):
        keep_nodes(3, -0.1, seed=0)
    with pytest.raises(InputError, match="kept must have shape"):
        subgraph(adj, torch.ones(3, dtype=torch.bool))
