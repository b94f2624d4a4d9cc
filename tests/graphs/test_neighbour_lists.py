from __future__ import annotations

import pytest
import torch
from torch_geometric.data import HeteroData

from graphrec.errors import InputError
from graphrec.graphs.neighbour_lists import find_edges, reachable, sample_neighbour_lists
from graphrec.graphs.relational import RelationalGraph, relational_graph


def star(triples: list[tuple[int, int, int]], items: int = 4, entities: int = 30) -> RelationalGraph:
    """Item-entity triples (head, relation, tail) as stated."""
    graph = HeteroData()
    graph["user"].num_nodes, graph["item"].num_nodes, graph["entity"].num_nodes = 1, items, entities
    heads, relations, tails = (torch.tensor(column) for column in zip(*triples, strict=True))
    store = graph["item", "related", "entity"]
    store.edge_index, store.relation, store.edge_id = torch.stack([heads, tails]), relations, torch.arange(len(triples))
    graph["user", "interacts", "item"].edge_index = torch.zeros(2, 0, dtype=torch.int64)
    return relational_graph(graph, ("user", "interacts", "item"), "directed")


def test_every_edge_is_drawn_equally_often_with_and_without_repetition() -> None:
    count = 4000
    long = star([(item, k % 2, k) for item in range(count) for k in range(6)], items=count)
    lists = sample_neighbour_lists(long, 4, seed=0)
    assert (lists[count:] == -1).all()  # entities have no triples of their own here
    tails = long.tails()[lists[:count]]
    assert (tails.sort(1).values.diff(dim=1) > 0).all()
    share = torch.bincount(tails.flatten() - count, minlength=6)[:6] / count
    torch.testing.assert_close(share, torch.full((6,), 4 / 6), atol=0.03, rtol=0)

    short = star([(item, 0, k) for item in range(count) for k in range(3)], items=count)
    tails = short.tails()[sample_neighbour_lists(short, 4, seed=0)[:count]] - count
    for place in range(4):
        share = torch.bincount(tails[:, place], minlength=3)[:3] / count
        torch.testing.assert_close(share, torch.full((3,), 1 / 3), atol=0.03, rtol=0)
    both = (tails[:, 0] == tails[:, 1]).float().mean()
    assert abs(float(both) - 1 / 3) < 0.03  # places are independent


def test_edges_belong_to_their_node() -> None:
    graph = star([(item, 0, 5 * item + k) for item in range(4) for k in range(item + 1)])
    lists = sample_neighbour_lists(graph, 2, seed=3)
    for node in range(4):
        assert (graph.heads()[lists[node]] == node).all()


def test_taking_an_edge_away_leaves_other_lists_and_its_own_but_for_one_place() -> None:
    triples = [(item, 0, 7 * item + k) for item in range(4) for k in range(7)]
    whole = star(triples)
    lists = sample_neighbour_lists(whole, 3, seed=1)
    gone = int(lists[2, 0])
    rest = star([triple for number, triple in enumerate(triples) if number != gone])
    again = sample_neighbour_lists(rest, 3, seed=1)
    for node in range(4):
        before = set(whole.tails()[lists[node]].tolist())
        after = set(rest.tails()[again[node]].tolist())
        if node == 2:
            assert before - after == {int(whole.tails()[gone])}
        else:
            assert before == after


def test_find_edges() -> None:
    graph = star([(0, 1, 3), (0, 0, 3), (2, 1, 0)])
    heads, relations, tails = graph.heads(), graph.relation, graph.tails()
    assert find_edges(graph, heads, relations, tails).tolist() == [0, 1, 2]
    missing = find_edges(graph, torch.tensor([[1, 2]]), torch.tensor([[1, 1]]), torch.tensor([[4, 4]]))
    assert missing.tolist() == [[-1, 2]]


def test_reachable_puts_nearer_nodes_first() -> None:
    neighbours = torch.tensor([[1, 2], [3, 3], [0, 0], [4, -1], [-1, -1]])
    nodes, sizes = reachable(neighbours, torch.tensor([0, 0]), 3)
    assert sizes == [1, 3, 4, 5]
    assert nodes.tolist() == [0, 1, 2, 3, 4]
    assert reachable(neighbours, torch.tensor([4]), 2)[1] == [1, 1, 1]


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(InputError, match="neighbours"):
        sample_neighbour_lists(star([(0, 0, 0)]), 0, seed=0)
