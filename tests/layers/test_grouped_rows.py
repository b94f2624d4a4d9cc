"""Rows in groups: the same matrix, the same sums."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.normalise import normalise
from graphrec.layers import grouped_rows as module
from graphrec.layers import propagation
from graphrec.layers.grouped_rows import GroupedRows, grouped_rows
from graphrec.layers.propagation import propagation_and_ego_rows
from graphrec.layers.spmm import multiply

SHAPE = 300, 200


def communities(num_edges: int = 4000, blocks: int = 5, seed: int = 0) -> Adjacency:
    """Edges within blocks of users and items, whose ids are dealt out at random."""
    stream = torch.Generator().manual_seed(seed)
    block = torch.randint(blocks, (num_edges,), generator=stream)
    ends = []
    for size in SHAPE:
        within = torch.randint(size // blocks, (num_edges,), generator=stream)
        ends.append(torch.randperm(size, generator=stream)[block * (size // blocks) + within])
    return normalise(Adjacency.from_edges(torch.stack(ends), SHAPE))


def tables(seed: int = 1) -> list[Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return [torch.randn(size, 8, generator=stream, requires_grad=True) for size in SHAPE]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_BYTES", 0)


def made(adj: Adjacency) -> GroupedRows:
    groups = grouped_rows(adj, torch.ones(1, 8))
    assert groups.places is not None
    return groups


@pytest.mark.usefixtures("always")
def test_both_forms_are_the_matrix() -> None:
    matrix = communities()
    groups = made(matrix)
    assert groups.places is not None
    for side, plain in enumerate((matrix, matrix.transposed)):
        place, other = groups.places[side], groups.places[1 - side]
        assert torch.equal(place.sort().values, torch.arange(len(place)))
        assert torch.equal(groups.first[side].to_dense()[place], plain.to_dense())
        assert torch.equal(groups.between[side].to_dense()[place][:, other], plain.to_dense())
        x = torch.randn(plain.shape[1], 8)
        assert torch.equal(groups.by_id(side, multiply(groups.first[side], x)), multiply(plain, x))
        rows = torch.tensor([5, 0, 5])
        assert torch.equal(groups.first[side].to_dense()[groups.placed(side, rows)], plain.to_dense()[rows])


@pytest.mark.usefixtures("always")
def test_communities_come_together() -> None:
    """Neighbours in the new order share columns; in the order of the ids they share few."""
    matrix = communities()

    def shared(adj: Adjacency) -> float:
        dense = (adj.to_dense() > 0).float()
        return float((dense[1:] * dense[:-1]).sum() / dense.sum())

    for side, plain in enumerate((matrix, matrix.transposed)):
        assert shared(made(matrix).first[side]) > 2 * shared(plain)


@pytest.mark.usefixtures("always")
def test_made_once_and_the_order_shared_by_matrices_of_other_values() -> None:
    matrix = communities()
    groups = made(matrix)
    assert made(matrix) is groups
    doubled = made(matrix.with_stored_values(2 * matrix.values))
    assert doubled.places is not None and groups.places is not None
    assert torch.equal(doubled.places[0], groups.places[0])
    assert torch.equal(doubled.first[0].to_dense(), 2 * groups.first[0].to_dense())


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
def test_propagated_rows_and_gradients_are_the_same_to_the_bit(
    num_layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = [0.4, 0.3, 0.15, 0.1, 0.05][: num_layers + 1]
    rows = torch.tensor([7, 250, 7, 31]), torch.tensor([199, 3])
    results, asked = [], []
    monkeypatch.setattr(propagation, "grouped_rows", lambda *given: asked.append(grouped_rows(*given)) or asked[-1])
    for least in (10**9, 0):
        monkeypatch.setattr(module, "LEAST_BYTES", least)
        users, items = tables()
        final, ego = propagation_and_ego_rows(communities(), users, items, weights, *rows)
        loss = sum((x * x).sum() for x in (*final, *ego))
        results.append((*final, *torch.autograd.grad(loss, (users, items))))
    assert [groups.places is not None for groups in asked] == ([] if num_layers == 1 else [False, True])
    for plain, grouped in zip(*results, strict=True):
        assert torch.equal(plain, grouped)


@pytest.mark.usefixtures("always")
def test_matrices_without_groups() -> None:
    """Types that other kernels serve, and matrices without entries."""
    matrix = communities()
    assert grouped_rows(matrix, torch.ones(1, 8).double()).places is None
    assert grouped_rows(matrix, torch.ones(1, 1)).places is None
    empty = Adjacency.from_edges(torch.empty(2, 0, dtype=torch.long), SHAPE)
    plain = grouped_rows(empty, torch.ones(1, 8))
    assert plain.places is None and plain.first == plain.between == (empty, empty.transposed)


def test_small_tables_are_left_alone() -> None:
    matrix = communities()
    width = module.LEAST_BYTES // (4 * sum(SHAPE))
    assert grouped_rows(matrix, torch.ones(1, width)).places is None
    assert grouped_rows(matrix, torch.ones(1, width + 1)).places is not None


@pytest.mark.usefixtures("always")
def test_one_row() -> None:
    single = normalise(Adjacency.from_edges(torch.tensor([[0, 0, 0], [4, 0, 2]]), (1, 5)))
    groups = made(single)
    x = torch.randn(5, 8)
    assert torch.equal(multiply(groups.first[0], x), multiply(single, x))
