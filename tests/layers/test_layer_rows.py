"""Rows of a propagation's sum and of one layer against a loop over dense layers, with noise and without."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.normalise import normalise, symmetric_entries
from graphrec.layers.layer_rows import sum_and_layer_rows
from graphrec.layers.noise import Noise

USERS, ITEMS = torch.tensor([2, 0, 2, 5]), torch.tensor([6, 1, 1])
WEIGHTS = (0.1, 0.4, 0.0, 0.3)


def graph() -> tuple[Adjacency, Tensor, tuple[Tensor, Tensor]]:
    cells = torch.randperm(42, generator=torch.Generator().manual_seed(0))[:20]
    edges = torch.stack([cells // 7, cells % 7])
    stream = torch.Generator().manual_seed(1)
    users, items = (torch.randn(n, 3, generator=stream, dtype=torch.float64).requires_grad_() for n in (6, 7))
    adj = Adjacency.from_edges(edges, (6, 7)).with_values(torch.ones(20, dtype=torch.float64))
    return normalise(adj), edges, (users, items)


def noise(length: float) -> Noise | None:
    return Noise.drawn(torch.Generator().manual_seed(3), length) if length else None


def slow(
    edges: Tensor, weight: Tensor, tables: tuple[Tensor, Tensor], layer: int, added: Noise | None
) -> tuple[Tensor, ...]:
    dense = torch.zeros(6, 7, dtype=torch.float64).index_put((edges[0], edges[1]), weight)
    roots = [torch.where(d > 0, d, 1.0).rsqrt() * (d > 0) for d in (dense.sum(1), dense.sum(0))]
    matrix = roots[0][:, None] * dense * roots[1]
    users, items = tables
    total, picked = [WEIGHTS[0] * users, WEIGHTS[0] * items], (users, items)
    for number, scale in enumerate(WEIGHTS[1:], start=1):
        users, items = matrix @ items, matrix.T @ users
        if added is not None:
            users, items = added.added(users, number, 0), added.added(items, number, 1)
        total = [total[0] + scale * users, total[1] + scale * items]
        picked = (users, items) if number == layer else picked
    return total[0][USERS], total[1][ITEMS], picked[0][USERS], picked[1][ITEMS]


@pytest.mark.parametrize("weighted", ["no", "constant", "learned"])
@pytest.mark.parametrize("length", [0.0, 0.2])
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_rows_and_gradients_equal_dense_layers(layer: int, length: float, weighted: str) -> None:
    adj, edges, tables = graph()
    weight = torch.ones(20, dtype=torch.float64)
    if weighted != "no":
        weight = torch.rand(20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weight.requires_grad_(weighted == "learned")
    values = None if weighted == "no" else symmetric_entries(edges, (6, 7), weight)
    pairs = sum_and_layer_rows(adj, *tables, WEIGHTS, USERS, ITEMS, layer=layer, noise=noise(length), values=values)
    found, expected = (*pairs[0], *pairs[1]), slow(edges, weight, tables, layer, noise(length))
    torch.testing.assert_close(found, expected)
    stream = torch.Generator().manual_seed(4)
    upstream = [torch.randn(x.shape, generator=stream, dtype=torch.float64) for x in expected]
    wanted = (*tables, weight) if weighted == "learned" else tables
    torch.testing.assert_close(
        torch.autograd.grad(found, wanted, upstream), torch.autograd.grad(expected, wanted, upstream)
    )


def test_without_a_layer_the_last_one_stands_beside_the_sum() -> None:
    adj, _, tables = graph()
    named = sum_and_layer_rows(adj, *tables, WEIGHTS, USERS, ITEMS, layer=3)
    for one, other in zip(sum_and_layer_rows(adj, *tables, WEIGHTS, USERS, ITEMS), named, strict=True):
        torch.testing.assert_close(one, other)


def test_one_of_the_outputs_may_go_unused() -> None:
    adj, edges, tables = graph()
    expected = slow(edges, torch.ones(20, dtype=torch.float64), tables, 2, None)
    for used in range(4):
        pairs = sum_and_layer_rows(adj, *tables, WEIGHTS, USERS, ITEMS, layer=2)
        found = (*pairs[0], *pairs[1])[used]
        ours = torch.autograd.grad(found.square().sum(), tables)
        slowly = torch.autograd.grad(expected[used].square().sum(), tables, retain_graph=True, materialize_grads=True)
        torch.testing.assert_close(ours, slowly)


def test_derivatives_exist_twice() -> None:
    adj, _, tables = graph()

    def made(users: Tensor, items: Tensor) -> tuple[Tensor, ...]:
        pairs = sum_and_layer_rows(adj, users, items, WEIGHTS, USERS, ITEMS, layer=1)
        return tuple(x.square() for pair in pairs for x in pair)

    assert gradcheck(made, tables)
    assert gradgradcheck(made, tables)


def test_nothing_to_pick_gives_nothing() -> None:
    adj, _, tables = graph()
    nothing = torch.empty(0, dtype=torch.int64)
    pairs = sum_and_layer_rows(adj, *tables, WEIGHTS, nothing, nothing, noise=noise(0.1))
    assert [x.shape for pair in pairs for x in pair] == [(0, 3)] * 4
    assert all((x == 0).all() for x in torch.autograd.grad(sum(x.sum() for pair in pairs for x in pair), tables))


@pytest.mark.parametrize(("weights", "layer"), [((1.0,), None), (WEIGHTS, 0), (WEIGHTS, 4)])
def test_wrong_layers_are_named(weights: tuple[float, ...], layer: int | None) -> None:
    adj, _, tables = graph()
    with pytest.raises(InputError, match="layer"):
        sum_and_layer_rows(adj, *tables, weights, USERS, ITEMS, layer=layer)


def test_wrong_shapes_are_named() -> None:
    adj, _, tables = graph()
    with pytest.raises(InputError, match=r"\(6, D\)"):
        sum_and_layer_rows(adj, tables[1], tables[0], WEIGHTS, USERS, ITEMS)
