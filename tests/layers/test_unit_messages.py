from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from graphrec.graphs.adjacency import Adjacency
from graphrec.layers import unit_messages as module
from graphrec.layers.unit_messages import unit_messages


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 3)


def case(dropped: bool) -> tuple[Adjacency, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """7 nodes above (the last without messages), 8 pairs, 5 nodes below, 3 relations."""
    draws = torch.Generator().manual_seed(0)
    cells = torch.randperm(6 * 8, generator=draws)[:20]
    matrix = Adjacency.from_edges(torch.stack([cells // 8, cells % 8]), (7, 8))
    x = torch.randn(5, 4, dtype=torch.float64, generator=draws).requires_grad_()
    vectors = torch.randn(3, 4, dtype=torch.float64, generator=draws).requires_grad_()
    node, relation = torch.randint(5, (8,), generator=draws), torch.randint(3, (8,), generator=draws).sort().values
    kept = torch.rand(7, 4, generator=draws) < 0.7 if dropped else None
    return matrix, x, node, relation, vectors, kept


@pytest.mark.parametrize("dropped", [False, True])
def test_rows_and_gradients_equal_the_plain_form(dropped: bool) -> None:
    matrix, x, node, relation, vectors, kept = case(dropped)
    sums = matrix.to_dense(torch.float64) @ (x[node] * vectors[relation])
    expected = normalize(sums if kept is None else sums * kept)
    found = unit_messages(matrix, x, node, relation, vectors, kept)
    torch.testing.assert_close(found, expected)
    assert not found[6].any()
    weight = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for gradient, right in zip(
        torch.autograd.grad((found * weight).sum(), (x, vectors)),
        torch.autograd.grad((expected * weight)[:6].sum(), (x, vectors)),
        strict=True,
    ):
        torch.testing.assert_close(gradient, right)


@pytest.mark.parametrize("dropped", [False, True])
def test_gradients_and_second_gradients(dropped: bool) -> None:
    matrix, x, node, relation, vectors, kept = case(dropped)

    def rows(x: Tensor, vectors: Tensor) -> Tensor:
        return unit_messages(matrix, x, node, relation, vectors, kept)[:6]

    assert torch.autograd.gradcheck(rows, (x, vectors))
    assert torch.autograd.gradgradcheck(rows, (x, vectors))


def test_a_row_that_dropout_empties_passes_nothing_back() -> None:
    matrix, x, node, relation, vectors, _ = case(False)
    kept = torch.ones(7, 4, dtype=torch.bool)
    kept[0] = False
    found = unit_messages(matrix, x, node, relation, vectors, kept)
    assert not found[0].any()
    gradient, _ = torch.autograd.grad(found[0].sum(), (x, vectors))
    assert not gradient.any()
