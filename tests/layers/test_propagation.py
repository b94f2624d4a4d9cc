"""Linear propagation: the invariants of LightGCN's encoder, and the rows-only path against the whole one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.normalise import normalise
from graphrec.layers.propagation import linear_propagation, linear_propagation_rows, propagation_and_ego_rows
from tests.graphs.strategies import bipartite


def hat(edges: Tensor, shape: tuple[int, int]) -> Adjacency:
    return normalise(Adjacency.from_edges(edges, shape)).to(dtype=torch.float64)


def whole(matrix: Adjacency) -> Tensor:
    users, items = matrix.shape
    made = torch.zeros(users + items, users + items, dtype=torch.float64)
    made[:users, users:] = matrix.to_dense()
    made[users:, :users] = matrix.to_dense().T
    return made


def reference(matrix: Adjacency, users: Tensor, items: Tensor, weights: Tensor) -> Tensor:
    powers = [torch.linalg.matrix_power(whole(matrix), k) @ torch.cat([users, items]) for k in range(len(weights))]
    return sum(weight * power for weight, power in zip(weights, powers, strict=True))


def tables(matrix: Adjacency, dim: int = 3) -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(size, dim, dtype=torch.float64, requires_grad=True) for size in matrix.shape)


@settings(deadline=None, max_examples=40)
@given(bipartite(), st.integers(0, 6), st.booleans())
def test_polynomial_and_its_gradient_against_matrix_powers(
    case: tuple[Tensor, tuple[int, int]], num_layers: int, uniform: bool
) -> None:
    matrix = hat(*case)
    users, items = tables(matrix)
    weights = torch.full((num_layers + 1,), 1 / (num_layers + 1)).double()
    weights = weights if uniform else torch.rand(num_layers + 1).double()
    expected = reference(matrix, users, items, weights)
    result = torch.cat(linear_propagation(matrix, users, items, weights))
    assert torch.allclose(result, expected, atol=1e-12)
    # dL/dE = sum w_k A^k G: the same polynomial, because A is symmetric.
    out = torch.randn_like(result)
    ours = torch.autograd.grad(result, (users, items), out)
    assert torch.allclose(torch.cat(ours), reference(matrix, *out.split(matrix.shape), weights), atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(bipartite(), st.integers(0, 5), st.sampled_from([0, 40]), st.data())
def test_rows_are_rows_of_the_whole(
    case: tuple[Tensor, tuple[int, int]], num_layers: int, more: int, data: st.DataObject
) -> None:
    edges, shape = case
    matrix = hat(edges, (shape[0] + more, shape[1]))  # with more nodes, few rows of many are asked for
    users, items = tables(matrix)
    weights = torch.rand(num_layers + 1).double()
    rows = [torch.tensor(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=9))) for size in shape]
    final, ego = propagation_and_ego_rows(matrix, users, items, weights, *rows)
    slow = linear_propagation(matrix, users, items, weights)
    expected = slow[0][rows[0]], slow[1][rows[1]], users[rows[0]], items[rows[1]]
    for ours, theirs in zip((*final, *ego), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)
    out = [torch.randn_like(x) for x in expected]
    for ours, theirs in zip(
        torch.autograd.grad((*final, *ego), (users, items), out),
        torch.autograd.grad(expected, (users, items), out),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-12)


EDGES = torch.tensor([[0, 0, 1, 3, 3, 2], [1, 0, 1, 2, 2, 1]])  # user 4 and item 3 have no edge, (3, 2) is there twice


@pytest.mark.parametrize("num_layers", [0, 1, 2, 3])
def test_differentiable_twice_in_everything(num_layers: int) -> None:
    matrix = hat(EDGES, (5, 4))
    users, items = tables(matrix, 2)
    fixed = torch.rand(num_layers + 1).double()
    learned = fixed.clone().requires_grad_()
    values = torch.rand(6, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([3, 3, 0]), torch.tensor([2, 1, 1, 2])

    def check(function, *inputs: Tensor) -> None:
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)

    check(lambda u, i: linear_propagation(matrix, u, i, fixed), users, items)
    check(lambda u, i, w: linear_propagation(matrix, u, i, w), users, items, learned)
    check(lambda u, i, v: linear_propagation(matrix, u, i, fixed, v), users, items, values)
    check(lambda u, i, w, v: linear_propagation(matrix, u, i, w, v), users, items, learned, values)
    check(lambda u, i: sum(propagation_and_ego_rows(matrix, u, i, fixed, *rows), ()), users, items)
    check(lambda u, i, w, v: linear_propagation_rows(matrix, u, i, w, *rows, v), users, items, learned, values)
    few = torch.tensor([3, 3]), torch.tensor([2])
    check(lambda u, i: sum(propagation_and_ego_rows(matrix, u, i, fixed, *few), ()), users, items)


def test_given_values_take_the_place_of_the_matrix_s_own() -> None:
    matrix = hat(EDGES, (5, 4))
    users, items = tables(matrix)
    values = torch.rand(6).double()
    weights = [0.2, 0.5, 0.3]
    expected = torch.cat(linear_propagation(matrix.with_values(values), users, items, weights))
    assert torch.allclose(torch.cat(linear_propagation(matrix, users, items, weights, values)), expected)
    assert torch.allclose(
        torch.cat(linear_propagation(matrix, users, items, weights, values.requires_grad_())), expected
    )


def test_linear() -> None:
    matrix = hat(EDGES, (5, 4))
    first, second = tables(matrix), tables(matrix)
    weights = [0.25] * 4

    def run(users: Tensor, items: Tensor) -> Tensor:
        return torch.cat(linear_propagation(matrix, users, items, weights))

    mixed = run(2 * first[0] - 3 * second[0], 2 * first[1] - 3 * second[1])
    assert torch.allclose(mixed, 2 * run(*first) - 3 * run(*second))
    assert not run(torch.zeros(5, 3).double(), torch.zeros(4, 3).double()).any()


def test_roots_of_degrees_are_a_fixed_point() -> None:
    matrix = hat(EDGES, (5, 4))
    counts = Adjacency.from_edges(EDGES, (5, 4))
    roots = [counts.degrees(dim).double().sqrt()[:, None] for dim in (0, 1)]
    result = linear_propagation(matrix, *roots, [0.25] * 4)
    for ours, root in zip(result, roots, strict=True):
        assert torch.allclose(ours, root)


def test_parity_of_a_bipartite_graph() -> None:
    matrix = hat(EDGES, (5, 4))
    users = torch.randn(5, 3).double()
    for layer in range(4):
        weights = [float(k == layer) for k in range(4)]
        result = linear_propagation(matrix, users, torch.zeros(4, 3).double(), weights)
        assert not result[(layer + 1) % 2].any()


def test_relabelling_permutes_and_edge_order_changes_nothing() -> None:
    users, items = torch.randn(5, 3).double(), torch.randn(4, 3).double()
    weights = [0.25] * 4
    result = linear_propagation(hat(EDGES, (5, 4)), users, items, weights)
    shuffled = linear_propagation(hat(EDGES[:, torch.randperm(6)], (5, 4)), users, items, weights)
    assert torch.allclose(torch.cat(result), torch.cat(shuffled))
    to_user, to_item = torch.randperm(5), torch.randperm(4)
    renamed = torch.stack([to_user[EDGES[0]], to_item[EDGES[1]]])
    moved = torch.empty_like(users), torch.empty_like(items)
    moved[0][to_user], moved[1][to_item] = users, items
    other = linear_propagation(hat(renamed, (5, 4)), *moved, weights)
    assert torch.allclose(other[0][to_user], result[0]) and torch.allclose(other[1][to_item], result[1])


def test_isolated_nodes_keep_a_share_of_themselves() -> None:
    users, items = torch.randn(5, 3).double(), torch.randn(4, 3).double()
    result = linear_propagation(hat(EDGES, (5, 4)), users, items, [0.25] * 4)
    assert torch.allclose(result[0][4], users[4] / 4) and torch.allclose(result[1][3], items[3] / 4)


def test_one_edge_swaps() -> None:
    matrix = hat(torch.tensor([[0], [0]]), (1, 1))
    user, item = torch.randn(1, 3).double(), torch.randn(1, 3).double()
    for ours in linear_propagation(matrix, user, item, [0.5, 0.5]):
        assert torch.allclose(ours, (user + item) / 2)


def test_nothing_of_the_tables_is_kept_for_the_backward_pass() -> None:
    matrix = hat(EDGES, (5, 4))
    users, items = tables(matrix)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        linear_propagation(matrix, users, items, [0.25] * 4)
        linear_propagation_rows(matrix, users, items, [0.25] * 4, torch.tensor([0]), torch.tensor([1]))
    assert all(x.dim() == 1 for x in kept)


def test_rows_do_not_depend_on_what_else_is_asked_for() -> None:
    stream = torch.Generator().manual_seed(0)
    edges = torch.stack([torch.randint(size, (2500,), generator=stream) for size in (300, 200)])
    matrix = normalise(Adjacency.from_edges(edges, (300, 200)))
    users, items = (torch.randn(size, 5, generator=stream) for size in matrix.shape)
    some, other = torch.tensor([7, 250, 7]), torch.tensor([199])
    ours = linear_propagation_rows(matrix, users, items, [0.25] * 4, some, other)
    beside = torch.randint(200, (2, 30), generator=stream)
    theirs = linear_propagation_rows(
        matrix, users, items, [0.25] * 4, torch.cat([beside[0], some]), torch.cat([beside[1], other])
    )
    assert torch.equal(ours[0], theirs[0][30:]) and torch.equal(ours[1], theirs[1][30:])


def test_shapes_are_checked() -> None:
    matrix = hat(EDGES, (5, 4))
    with pytest.raises(InputError, match=r"users and items must be \(5, D\) and \(4, D\)"):
        linear_propagation(matrix, torch.rand(4, 2), torch.rand(5, 2), [1.0])
    with pytest.raises(InputError, match="layer 0"):
        linear_propagation(matrix, torch.rand(5, 2), torch.rand(4, 2), [])
