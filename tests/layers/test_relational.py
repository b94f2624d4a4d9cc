"""Propagation over typed edges against loops over them, with both derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.relational import RelationalGraph, relational_graph
from graphrec.layers.relational import (
    edge_softmax,
    pair_dots,
    pair_projection,
    relation_logits,
    relation_messages,
    row_sums,
)
from tests.graphs.test_relational import TARGET, drawn


@pytest.fixture(scope="module")
def graph() -> RelationalGraph:
    return relational_graph(drawn(8), TARGET, "kgat")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def test_softmax_is_that_of_each_row(graph: RelationalGraph) -> None:
    logits = normal(len(graph)).detach() * 40
    shares = edge_softmax(graph.adjacency, logits)
    for head in graph.heads().unique().tolist():
        mine = graph.heads() == head
        torch.testing.assert_close(shares[mine], logits[mine].softmax(0))
    shifted = edge_softmax(graph.adjacency, logits + torch.arange(graph.num_nodes)[graph.heads()])
    torch.testing.assert_close(shifted, shares)
    uniform = edge_softmax(graph.adjacency, torch.zeros(len(graph)))
    degree = graph.adjacency.degrees(0)[graph.heads()]
    torch.testing.assert_close(uniform, 1.0 / degree)


def test_softmax_differentiates_twice(graph: RelationalGraph) -> None:
    logits = normal(len(graph))
    assert gradcheck(lambda a: edge_softmax(graph.adjacency, a), (logits,))
    assert gradgradcheck(lambda a: edge_softmax(graph.adjacency, a), (logits,))


def test_a_weight_of_zero_is_deletion(graph: RelationalGraph) -> None:
    logits = normal(len(graph))
    weight = torch.rand(len(graph), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    weight[::3] = 0
    first = graph.heads() == graph.heads()[0]
    weight[first] = 0  # a head that loses all
    logits.data[::3] += 500
    shares = edge_softmax(graph.adjacency, logits, weight)
    assert bool((shares[weight == 0] == 0).all())
    for head in graph.heads()[~first].unique().tolist():
        mine = (graph.heads() == head) & (weight > 0)
        torch.testing.assert_close(shares[mine], (logits[mine] + weight[mine].log()).softmax(0))
    ones = torch.ones(len(graph), dtype=torch.float64, requires_grad=True)
    small = normal(len(graph), seed=4)
    torch.testing.assert_close(edge_softmax(graph.adjacency, small, ones), edge_softmax(graph.adjacency, small))
    assert gradcheck(lambda a, w: edge_softmax(graph.adjacency, a, w), (small, ones))
    assert gradgradcheck(lambda a, w: edge_softmax(graph.adjacency, a, w), (small, ones))


def test_softmax_refuses_another_order() -> None:
    turned = Adjacency.from_edges(torch.tensor([[1, 0], [0, 1]]), (2, 2))
    with pytest.raises(InputError, match="order of its edge list"):
        edge_softmax(turned, torch.zeros(2))


def test_row_sums(graph: RelationalGraph) -> None:
    values = normal(len(graph))
    expected = torch.zeros(graph.num_nodes, dtype=torch.float64).index_add(0, graph.heads(), values)
    torch.testing.assert_close(row_sums(graph.adjacency, values), expected)
    assert gradcheck(lambda v: row_sums(graph.adjacency, v), (values,))


def test_messages_equal_a_loop(graph: RelationalGraph) -> None:
    x, rho, values = normal(graph.num_nodes, 3), normal(graph.num_relations, 3, seed=1), normal(len(graph), seed=2)
    expected = torch.zeros(graph.num_nodes, 3, dtype=torch.float64)
    for number in range(len(graph)):
        head, relation, tail = graph.heads()[number], graph.relation[number], graph.tails()[number]
        expected[head] = expected[head] + values[number] * rho[relation] * x[tail]
    torch.testing.assert_close(relation_messages(graph, x, rho, values), expected)
    ones = relation_messages(graph, x, rho, torch.ones(len(graph), dtype=torch.float64))
    torch.testing.assert_close(relation_messages(graph, x, rho), ones)
    assert gradcheck(lambda a, b, c: relation_messages(graph, a, b, c), (x, rho, values))
    assert gradgradcheck(lambda a, b, c: relation_messages(graph, a, b, c), (x, rho, values))


def test_projections_and_dots_equal_those_of_each_edge(graph: RelationalGraph) -> None:
    x, weight = normal(graph.num_nodes, 3), normal(graph.num_relations, 3, 2, seed=1)
    heads = pair_projection(graph.head_pairs, x, weight)
    tails = pair_projection(graph.tail_pairs, x, weight)
    found = pair_dots(graph, heads.tanh(), tails)
    for number in range(len(graph)):
        matrix = weight[graph.relation[number]]
        expected = (x[graph.heads()[number]] @ matrix).tanh() @ (x[graph.tails()[number]] @ matrix)
        torch.testing.assert_close(found[number], expected)

    def logits(x: Tensor, weight: Tensor) -> Tensor:
        return pair_dots(
            graph, pair_projection(graph.head_pairs, x, weight).tanh(), pair_projection(graph.tail_pairs, x, weight)
        )

    assert gradcheck(logits, (x, weight))
    assert gradgradcheck(logits, (x, weight))


def test_logits_of_two_tables(graph: RelationalGraph) -> None:
    first, second = normal(graph.num_nodes, graph.num_relations), normal(graph.num_nodes, graph.num_relations, seed=1)
    expected = first[graph.heads(), graph.relation] + second[graph.tails(), graph.relation]
    assert torch.equal(relation_logits(graph, first, second), expected)
    assert gradcheck(lambda a, b: relation_logits(graph, a, b), (first, second))
    with pytest.raises(InputError, match="one for each node and relation"):
        relation_logits(graph, first[:, :1], second)


def test_no_relation_has_no_matrix(graph: RelationalGraph) -> None:
    with pytest.raises(InputError, match="a matrix for each relation"):
        pair_projection(graph.tail_pairs, torch.zeros(graph.num_nodes, 3), torch.zeros(2, 3, 3))
    with pytest.raises(InputError, match="relation_vectors"):
        relation_messages(graph, torch.zeros(graph.num_nodes, 3), torch.zeros(2, 3))
