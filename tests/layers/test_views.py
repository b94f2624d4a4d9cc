"""Propagation on subgraphs against dense powers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.functional import normalize

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.views import View, pair_contrast


def graph() -> tuple[Adjacency, Tensor, tuple[Tensor, Tensor]]:
    cells = torch.randperm(42, generator=torch.Generator().manual_seed(0))[:20]
    edges = torch.stack([cells // 7, cells % 7])
    stream = torch.Generator().manual_seed(1)
    users, items = (torch.randn(n, 3, generator=stream, dtype=torch.float64).requires_grad_() for n in (6, 7))
    return Adjacency.from_edges(edges, (6, 7)), edges, (users, items)


def masks(count: int) -> list[Tensor]:
    stream = torch.Generator().manual_seed(2)
    return [torch.rand(20, generator=stream) < 0.6 for _ in range(count)]


def dense(edges: Tensor, weights: list[Tensor], tables: tuple[Tensor, Tensor], scales: tuple[float, ...]) -> Tensor:
    layer = torch.cat(tables)
    total = scales[0] * layer
    for scale, weight in zip(scales[1:], weights, strict=True):
        matrix = torch.zeros(13, 13, dtype=torch.float64)
        matrix[edges[0], 6 + edges[1]] = weight
        matrix = matrix + matrix.T
        degree = matrix.sum(1)
        root = torch.where(degree > 0, degree, 1.0).rsqrt() * (degree > 0)
        layer = (root[:, None] * matrix * root) @ layer
        total = total + scale * layer
    return total


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_propagation_equals_dense_powers(count: int, weighted: bool) -> None:
    adj, edges, tables = graph()
    kept = masks(count)
    weight = torch.rand(20, generator=torch.Generator().manual_seed(3), dtype=torch.float64) if weighted else None
    scales = (0.4, 0.3, 0.2, 0.1)
    view = View(adj, kept)
    given = None if weight is None else (edges, weight)
    plain = torch.ones(20, dtype=torch.float64) if weight is None else weight
    expected = dense(edges, [plain * mask for mask in (kept * 3)[:3]], tables, scales)
    found = torch.cat(view.propagate(*tables, scales, given))
    torch.testing.assert_close(found, expected)
    users, items = torch.tensor([2, 0, 2]), torch.tensor([6, 1])
    rows = torch.cat(view.propagate_rows(*tables, scales, users, items, given))
    torch.testing.assert_close(rows, expected[torch.cat([users, 6 + items])])
    upstream = torch.randn(5, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    ours = torch.autograd.grad(rows, tables, upstream)
    slow = torch.autograd.grad(expected[torch.cat([users, 6 + items])], tables, upstream)
    torch.testing.assert_close(ours, slow)


def test_weights_have_gradients() -> None:
    adj, edges, tables = graph()
    view = View(adj, masks(2))
    weight = torch.linspace(0.5, 1.5, 20, dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda w: torch.cat(view.propagate(*tables, (0.5, 0.3, 0.2), (edges, w))), (weight,))


def test_the_number_of_masks_is_checked() -> None:
    adj, _, tables = graph()
    with pytest.raises(InputError, match="3 layers"):
        View(adj, masks(2)).propagate(*tables, (0.25,) * 4)
    with pytest.raises(InputError, match="mask"):
        View(adj, [])


def test_the_contrast_of_pairs_is_that_of_their_nodes_across_two_views() -> None:
    adj, edges, tables = graph()
    scales, users, items = (0.4, 0.3, 0.3), torch.tensor([2, 0, 2]), torch.tensor([6, 1, 1])
    first, second = View(adj, masks(2)[:1]), View(adj, masks(2)[1:])
    weight = torch.rand(20, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for given in (None, (edges, weight)):
        found = pair_contrast((first, second), (tables, tables), scales, users, items, temperature=0.3, weight=given)
        one, other = (view.propagate(*tables, scales, given) for view in (first, second))
        expected = torch.zeros(3, dtype=torch.float64)
        for a, b, nodes in zip(one, other, (users, items), strict=True):
            cosines = normalize(a)[nodes] @ normalize(b).T / 0.3
            expected = expected + cosines.logsumexp(1) - cosines[torch.arange(3), nodes]
        torch.testing.assert_close(found, expected)
