from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.graphs.relational import RelationalGraph, relational_graph
from graphrec.graphs.weighted_lists import weighted_neighbour_lists
from tests.models.planted_kg import planted_kg


def graph_of(data: RecDataset) -> RelationalGraph:
    return relational_graph(data.graph(part="train"), data.target, "kcan")


@pytest.fixture(scope="module")
def graph() -> RelationalGraph:
    return graph_of(planted_kg())


@pytest.fixture(scope="module")
def weight(graph: RelationalGraph) -> Tensor:
    return torch.rand(len(graph), generator=torch.Generator().manual_seed(3)) + 0.05


def test_lists_hold_a_nodes_own_edges_distinct_where_there_are_enough(graph: RelationalGraph, weight: Tensor) -> None:
    count = 6
    lists = weighted_neighbour_lists(graph, weight, count, seed=1)
    degree = graph.adjacency.degrees(0)
    assert bool((degree > count).any())
    assert bool((degree < count).any())
    for node, listed in enumerate(lists.tolist()):
        if degree[node] == 0:
            assert listed == [-1] * count
            continue
        assert all(int(graph.heads()[edge]) == node for edge in listed)
        if degree[node] > count:
            assert len(set(listed)) == count


def test_the_same_seed_gives_the_same_lists_and_another_gives_others(graph: RelationalGraph, weight: Tensor) -> None:
    first, again, other = (weighted_neighbour_lists(graph, weight, 4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def copies(shares: list[float], count: int) -> tuple[RelationalGraph, Tensor]:
    """Many items alike, each with an edge to every entity, the entities weighing ``shares``; and the weights."""
    made = HeteroData()
    made["user"].num_nodes, made["item"].num_nodes, made["entity"].num_nodes = 1, count, len(shares)
    made["user", "interacts", "item"].edge_index = torch.zeros(2, 1, dtype=torch.int64)
    ends = torch.cartesian_prod(torch.arange(count), torch.arange(len(shares))).T
    made["item", "related", "entity"].edge_index = ends
    made["item", "related", "entity"].relation = torch.zeros_like(ends[0])
    graph = relational_graph(made, ("user", "interacts", "item"), "directed")
    return graph, torch.tensor(shares).repeat(count)


@pytest.mark.parametrize("places", [1, 5])
def test_draws_are_in_proportion_to_the_weights(places: int) -> None:
    """One place of a list, the first without repetition or any with it, is a draw from the weights of its node."""
    shares = torch.tensor([0.4, 0.1, 0.3, 0.05, 0.15])
    graph, weight = copies(shares.tolist(), 4000)
    lists = weighted_neighbour_lists(graph, weight * 7, places, seed=2)[:4000]
    drawn = graph.tails()[lists.reshape(-1)] - 4000
    found = torch.bincount(drawn, minlength=5) / len(drawn)
    deviation = (shares * (1 - shares) / len(drawn)).sqrt()
    assert ((found - shares).abs() < 4 * deviation).all()


def test_two_draws_without_repetition_follow_one_after_the_other() -> None:
    """P({a, b}) = p_a p_b / (1 - p_a) + p_b p_a / (1 - p_b)."""
    p = [5 / 8, 2 / 8, 1 / 8]
    graph, weight = copies(p, 4000)
    lists = graph.tails()[weighted_neighbour_lists(graph, weight, 2, seed=3)[:4000]] - 4000
    missing = torch.bincount(3 - lists.sum(1), minlength=3) / 4000
    for out in range(3):
        a, b = (p[other] for other in range(3) if other != out)
        assert float(missing[out]) == pytest.approx(a * b / (1 - a) + a * b / (1 - b), abs=0.03)


def test_an_edge_that_goes_leaves_all_other_lists_and_places(graph: RelationalGraph, weight: Tensor) -> None:
    data = planted_kg()
    kind = ("item", "related", "entity")
    removed = int(data.tables[kind].edge_id[7])
    smaller = graph_of(data.without({kind: [removed]}))
    gone = (graph.edge_id == removed) & (graph.edge_type == graph.edge_types.index(kind))
    kept = torch.nonzero(~gone)[:, 0]
    renumbered = torch.full((len(graph) + 1,), -1)
    renumbered[kept] = torch.arange(len(kept))
    before = weighted_neighbour_lists(graph, weight, 5, seed=4)
    after = weighted_neighbour_lists(smaller, weight[kept], 5, seed=4)
    touched = gone[before.clamp_min(0)] & (before >= 0)
    untouched_rows = ~touched.any(1)
    assert int((~untouched_rows).sum()) in (1, 2)
    assert torch.equal(renumbered[before][untouched_rows], after[untouched_rows])


def test_an_edge_of_weight_zero_waits_for_the_others(graph: RelationalGraph, weight: Tensor) -> None:
    degree = graph.adjacency.degrees(0)
    node = int(torch.nonzero(degree >= 9)[0])
    start, end = (int(graph.adjacency.rowptr[at]) for at in (node, node + 1))
    weight = weight.clone()
    weight[start] = 0
    for count in (end - start - 1, end - start):
        for seed in range(8):
            assert start not in weighted_neighbour_lists(graph, weight, count, seed=seed)[node]


def test_bad_input(graph: RelationalGraph, weight: Tensor) -> None:
    with pytest.raises(InputError, match="1 or more, found 0"):
        weighted_neighbour_lists(graph, weight, 0, seed=0)
    with pytest.raises(InputError, match="one for each edge"):
        weighted_neighbour_lists(graph, weight[1:], 2, seed=0)
