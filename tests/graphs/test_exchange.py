"""Graphs go to other forms and come back as they were."""

from __future__ import annotations

from typing import Any

import networkx
import pytest
import torch
from torch_geometric.data import HeteroData

from graphrec.errors import InputError
from graphrec.graphs.dgl import from_dgl, to_dgl
from graphrec.graphs.hetero import flatten, reverse_type, unflatten, with_reverse, without_reverse
from graphrec.graphs.networkx import from_networkx, to_networkx, triples_from_networkx, triples_to_networkx

BUYS = ("user", "buys", "item")
RELATED = ("item", "related", "entity")
SIMILAR = ("item", "similar", "item")


def example() -> HeteroData:
    graph = HeteroData()
    for kind, size in (("user", 3), ("item", 4), ("entity", 2), ("tag", 5)):
        graph[kind].num_nodes = size
    graph["item"].x_text = torch.rand(4, 3)
    graph[BUYS].edge_index = torch.tensor([[2, 0, 0, 0], [1, 3, 3, 0]])
    graph[BUYS].edge_id = torch.tensor([7, 5, 9, 1])
    graph[BUYS].rating = torch.tensor([0.1, 5.0, 2.5, 1.0])
    graph[RELATED].edge_index = torch.tensor([[0, 3], [1, 0]])
    graph[RELATED].edge_id = torch.tensor([0, 1])
    graph[RELATED].relation = torch.tensor([4, 2], dtype=torch.int32)
    graph[SIMILAR].edge_index = torch.empty(2, 0, dtype=torch.int64)
    graph[SIMILAR].edge_id = torch.empty(0, dtype=torch.int64)
    return graph


def assert_same(left: HeteroData, right: HeteroData) -> None:
    assert set(left.node_types) == set(right.node_types)
    assert set(left.edge_types) == set(right.edge_types)
    for kind in [*left.node_types, *left.edge_types]:
        assert set(left[kind].keys()) == set(right[kind].keys()), kind
        for name, value in left[kind].items():
            other = right[kind][name]
            if isinstance(value, torch.Tensor):
                assert value.dtype == other.dtype and torch.equal(value, other), (kind, name)
            else:
                assert value == other


def test_networkx_gives_the_same_graph_back() -> None:
    graph = example()
    made = to_networkx(graph)
    assert made.number_of_nodes() == 14 and made.number_of_edges() == 6
    assert made.number_of_edges(("user", 0), ("item", 3)) == 2
    assert made.edges[("user", 2), ("item", 1), ("buys", 0)]["edge_id"] == 7
    assert_same(graph, from_networkx(made))


def test_networkx_edges_removed_there_are_gone_here() -> None:
    made = to_networkx(example())
    made.remove_edge(("user", 0), ("item", 3), key=("buys", 1))
    back = from_networkx(made)
    assert back[BUYS].edge_id.tolist() == [7, 9, 1]
    made.add_edge(("user", 0), ("item", 1), key="mine")
    with pytest.raises(InputError, match="key 'mine'"):
        from_networkx(made)


def test_networkx_needs_its_schema() -> None:
    made = to_networkx(example())
    made.graph.clear()
    with pytest.raises(InputError, match="to_networkx"):
        from_networkx(made)


def test_triples_go_to_networkx_and_back() -> None:
    made = triples_to_networkx(["a", "a", "b"], ["r", "s", "r"], ["b", "b", "a"], {"a": {"kind": "x"}, "c": {}})
    assert made.number_of_edges("a", "b") == 2 and made.has_edge("b", "a", key="r") and "c" in made
    head, relation, tail, nodes = triples_from_networkx(made)
    assert set(zip(head, relation, tail, strict=True)) == {("a", "r", "b"), ("a", "s", "b"), ("b", "r", "a")}
    assert nodes == {"a": {"kind": "x"}, "b": {}, "c": {}}


def test_relations_as_attributes_of_edges() -> None:
    simple: Any = networkx.DiGraph()
    simple.add_edge(1, 2, relation="r")
    assert triples_from_networkx(simple)[:3] == (["1"], ["r"], ["2"])
    simple.add_edge(2, 3)
    with pytest.raises(InputError, match="edge 2 to 3 has no relation"):
        triples_from_networkx(simple)
    with pytest.raises(InputError, match="undirected"):
        triples_from_networkx(networkx.MultiGraph(simple))
    with pytest.raises(InputError, match="a dict"):
        triples_from_networkx({})
    twice: Any = networkx.MultiDiGraph([(1, "1", "r")])
    with pytest.raises(InputError, match="two nodes read '1'"):
        triples_from_networkx(twice)


def test_dgl_gives_the_same_graph_back() -> None:
    pytest.importorskip("dgl", reason="DGL is not installed (extra dgl)")
    graph = example()
    made = to_dgl(graph)
    assert made.num_nodes("tag") == 5 and made.num_edges(BUYS) == 4
    assert_same(graph, from_dgl(made))


def test_dgl_refuses_what_it_cannot_hold() -> None:
    pytest.importorskip("dgl", reason="DGL is not installed (extra dgl)")
    graph = example()
    graph["item"].names = ["a", "b", "c", "d"]
    with pytest.raises(InputError, match="'names' of 'item'"):
        to_dgl(graph)


def test_reverse_shares_ids_and_goes_away_again() -> None:
    graph = example()
    both = with_reverse(graph)
    other = both[reverse_type(BUYS)]
    assert reverse_type(BUYS) == ("item", "rev_buys", "user")
    assert torch.equal(other.edge_index, graph[BUYS].edge_index.flip(0))
    assert other.edge_id is both[BUYS].edge_id
    assert reverse_type(BUYS) not in graph.edge_types
    assert_same(graph, without_reverse(both))
    with pytest.raises(InputError, match="already has reversed"):
        with_reverse(both)


@pytest.mark.parametrize("order", ["users_items_entities", "items_entities_users", ("tag", "user")])
def test_flatten_and_back(order: str | tuple[str, ...]) -> None:
    graph = example()
    graph["item"].pop("x_text")
    graph[BUYS].pop("rating")
    graph[RELATED].relation = graph[RELATED].relation.long()
    flat = flatten(graph, order)
    assert flat.num_nodes == 14 and sorted(flat.order) == ["entity", "item", "tag", "user"]
    graph[SIMILAR].pop("edge_id")  # of no edges there are no ids to bring back
    assert_same(graph, unflatten(flat))


def test_flat_layout_of_the_papers() -> None:
    graph = example()
    users_first, items_first = flatten(graph), flatten(graph, "items_entities_users")
    assert (users_first.offset("user"), users_first.offset("item"), users_first.offset("entity")) == (0, 3, 7)
    assert (items_first.offset("item"), items_first.offset("entity"), items_first.offset("user")) == (0, 4, 6)
    assert users_first.edge_index[:, 0].tolist() == [2, 3 + 1]
    assert users_first.nodes("item") == slice(3, 7)
    matrix = users_first.adjacency()
    assert matrix.symmetric and len(matrix) == 12
    assert sorted(matrix.edge_id.tolist()) == sorted([7, 5, 9, 1, 0, 1] * 2)
    with pytest.raises(InputError, match="users_items_entities"):
        flatten(graph, "users_item_entities")
