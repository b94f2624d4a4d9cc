"""Sparse products and their gradients against dense ones."""

from __future__ import annotations

import importlib
from types import FunctionType, ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import graphrec
from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.spmm import multiply, sddmm, spmm
from tests.graphs.strategies import bipartite

module = importlib.import_module("graphrec.layers.spmm")


def dense_product(edges: Tensor, shape: tuple[int, int], values: Tensor, x: Tensor) -> Tensor:
    return torch.zeros(shape, dtype=x.dtype).index_put((edges[0], edges[1]), values, accumulate=True) @ x


def wide(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, requires_grad=True)


@settings(deadline=None, max_examples=25)
@given(bipartite(), st.integers(1, 3))
def test_products_and_gradients_twice(case: tuple[Tensor, tuple[int, int]], width: int) -> None:
    edges, shape = case
    own = torch.rand(edges.shape[1]).double()
    adj = Adjacency.from_edges(edges, shape, values=own)
    x, y, values = wide(shape[1], width), wide(shape[0], width), wide(edges.shape[1])
    assert torch.allclose(spmm(adj, x), dense_product(edges, shape, own, x))
    assert torch.allclose(spmm(adj, x, values), dense_product(edges, shape, values, x))
    assert torch.allclose(spmm(adj.transposed, y, values), dense_product(edges.flip(0), shape[::-1], values, y))
    assert torch.allclose(sddmm(adj, y, x), (y[edges[0]] * x[edges[1]]).sum(1))
    if edges.shape[1] == 0:
        return
    for function, inputs in (
        (lambda x: spmm(adj, x), (x,)),
        (lambda x, v: spmm(adj, x, v), (x, values)),
        (lambda y, v: spmm(adj.transposed, y, v), (y, values)),
        (lambda y, x: sddmm(adj, y, x), (y, x)),
        (lambda x, v: spmm(adj.with_values(v), x), (x, values)),
    ):
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)


def test_gradients_agree_with_autograd_on_a_dense_matrix() -> None:
    torch.manual_seed(0)
    edges = torch.stack([torch.randint(50, (400,)), torch.randint(40, (400,))])
    adj = Adjacency.from_edges(edges, (50, 40))
    x, values, out = torch.randn(40, 8, requires_grad=True), torch.randn(400, requires_grad=True), torch.randn(50, 8)
    ours = torch.autograd.grad(spmm(adj, x, values), (x, values), out)
    theirs = torch.autograd.grad(dense_product(edges, (50, 40), values, x), (x, values), out)
    for left, right in zip(ours, theirs, strict=True):
        assert torch.allclose(left, right, atol=1e-5)


def test_symmetric_pattern_with_values_that_are_not() -> None:
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    adj = Adjacency.from_edges(edges, (3, 3), values=torch.ones(4).double(), symmetric=True)
    x, values = wide(3, 2), wide(4)
    assert gradcheck(lambda x, v: spmm(adj, x, v), (x, values))
    assert gradgradcheck(lambda x, v: spmm(adj, x, v), (x, values))
    assert gradcheck(lambda x: spmm(adj, x), (x,))


def test_picked_rows_take_values_of_the_whole_list() -> None:
    edges = torch.tensor([[2, 0, 1, 0, 2], [0, 1, 2, 0, 2]])
    adj = Adjacency.from_edges(edges, (3, 3)).row_subset(torch.tensor([2, 0, 2]))
    x, y, values = wide(3, 2), wide(3, 2), wide(5)
    whole = torch.zeros(3, 3).double().index_put((edges[0], edges[1]), values)
    assert torch.allclose(spmm(adj, x, values), whole[[2, 0, 2]] @ x)
    assert gradcheck(lambda x, v: spmm(adj, x, v), (x, values))
    assert gradgradcheck(lambda x, v: spmm(adj, x, v), (x, values))
    assert gradcheck(lambda y, x: sddmm(adj, y, x), (y, x))


def test_linear_products_keep_nothing() -> None:
    adj = Adjacency.from_edges(torch.tensor([[0, 1], [1, 0]]), (2, 2))
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        spmm(adj, torch.rand(2, 3, requires_grad=True))
    assert not kept
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        spmm(adj, torch.rand(2, 3, requires_grad=True), torch.rand(2))
    assert [tuple(x.shape) for x in kept] == [(2,)]


def test_vectors_columns_and_strides() -> None:
    torch.manual_seed(0)
    adj = Adjacency.from_edges(torch.randint(5, (2, 12)), (5, 5), values=torch.rand(12))
    x = torch.rand(5, 6)
    expected = adj.to_dense() @ x
    assert torch.allclose(spmm(adj, x[:, 0]), expected[:, 0], atol=1e-6)
    assert torch.allclose(spmm(adj, x[:, 1:4]), expected[:, 1:4], atol=1e-6)
    assert torch.allclose(spmm(adj, x[:, ::2]), expected[:, ::2], atol=1e-6)
    assert torch.allclose(spmm(adj, x.t().contiguous().t()), expected, atol=1e-6)
    assert torch.allclose(spmm(adj, x[:, :1].expand(5, 3)), expected[:, :1].expand(5, 3), atol=1e-6)
    assert spmm(adj, torch.rand(5, 0)).shape == (5, 0)
    out = torch.rand(5, 6)
    assert torch.allclose(multiply(adj, x, add=out, add_scale=0.5, scale=2.0), 0.5 * out + 2 * expected, atol=1e-5)
    assert torch.allclose(multiply(adj, x, add=out, out=out, scale=2.0), out, atol=1e-5)


def test_no_edges_give_zeros() -> None:
    adj = Adjacency.from_edges(torch.empty(2, 0, dtype=torch.int64), (3, 4))
    x = torch.rand(4, 2, requires_grad=True)
    spmm(adj, x).sum().backward()
    assert torch.equal(spmm(adj, x), torch.zeros(3, 2)) and not x.grad.any()
    assert sddmm(adj, torch.rand(3, 2), torch.rand(4, 2)).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_BUDGET", 100)  # blocks of a few columns
    torch.manual_seed(0)
    adj = Adjacency.from_edges(torch.randint(6, (2, 30)), (6, 6), values=torch.rand(30))
    x = torch.rand(6, 9).to(dtype)
    assert torch.equal(spmm(adj, x), (adj.to_dense() @ x.float()).to(dtype)) or torch.allclose(
        spmm(adj, x).float(), adj.to_dense() @ x.float(), rtol=1e-2
    )
    assert sddmm(adj, x, x).dtype == dtype


def test_blocks_of_edges_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    adj = Adjacency.from_edges(torch.randint(4, (2, 60)), (4, 4))  # more edges than cells
    a, b = torch.rand(4, 3), torch.rand(4, 3)
    whole = sddmm(adj, a, b)
    monkeypatch.setattr(module, "MEMORY_BUDGET", 200)
    assert torch.equal(sddmm(adj, a, b), whole)


def test_the_same_bits_every_time() -> None:
    torch.manual_seed(0)
    adj = Adjacency.from_edges(torch.randint(300, (2, 20000)), (300, 300), values=torch.rand(20000))
    x, y = torch.randn(300, 16), torch.randn(300, 16)
    product, inner = spmm(adj, x), sddmm(adj, y, x)
    assert all(torch.equal(spmm(adj, x), product) and torch.equal(sddmm(adj, y, x), inner) for _ in range(5))


def test_what_does_not_fit_is_named() -> None:
    adj = Adjacency.from_edges(torch.tensor([[0], [1]]), (2, 3))
    with pytest.raises(InputError, match=r"x must be \(3, D\)"):
        spmm(adj, torch.rand(2, 2))
    with pytest.raises(InputError, match="one type"):
        spmm(adj, torch.rand(3, 2), torch.rand(1).double())
    with pytest.raises(InputError, match=r"values must have shape \(1,\)"):
        spmm(adj, torch.rand(3, 2), torch.rand(2))
    with pytest.raises(InputError, match="floating"):
        spmm(adj, torch.ones(3, 2, dtype=torch.int64))
    with pytest.raises(InputError, match="a and b"):
        sddmm(adj, torch.rand(3, 2), torch.rand(3, 2))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_cuda_gives_the_same() -> None:
    torch.manual_seed(0)
    adj = Adjacency.from_edges(torch.randint(300, (2, 20000)), (300, 300), values=torch.rand(20000))
    x, values = torch.randn(300, 16, requires_grad=True), torch.rand(20000, requires_grad=True)
    there = [given.detach().cuda().requires_grad_() for given in (x, values)]
    here = torch.autograd.grad(spmm(adj, x, values).square().sum(), (x, values))
    away = torch.autograd.grad(spmm(adj.to("cuda"), *there).square().sum(), there)
    for left, right in zip(here, away, strict=True):
        assert torch.allclose(left, right.cpu(), rtol=1e-3, atol=1e-2)


def test_the_function_is_exported_and_the_module_stays_within_reach() -> None:
    from graphrec.layers import sddmm as second
    from graphrec.layers import spmm as first

    assert isinstance(first, FunctionType)
    assert isinstance(second, FunctionType)
    assert first is spmm
    assert second is sddmm
    assert isinstance(module, ModuleType)
    assert module.spmm is spmm
    assert graphrec.layers.spmm is spmm
    assert "spmm" in graphrec.layers.__all__
