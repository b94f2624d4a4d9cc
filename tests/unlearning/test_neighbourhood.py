"""The nodes around a request, against networkx and against what a propagation really changes."""

from __future__ import annotations

import networkx as nx
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.models import LightGCN
from graphrec.models.base import GraphInputs
from graphrec.models.deletion import without_edges
from graphrec.unlearning.neighbourhood import balls, degrees, touched_edges, touched_share
from tests.models.planted import planted
from tests.models.planted_kg import tiny_kg


def sparse_inputs(seed: int) -> GraphInputs:
    return GraphInputs.from_dataset(planted(num_users=40, num_items=30, per_user=5, seed=seed))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 20), st.lists(st.integers(0, 79), min_size=1, max_size=4, unique=True), st.integers(0, 4))
def test_balls_are_those_of_networkx(seed: int, rows: list[int], hops: int) -> None:
    inputs = sparse_inputs(seed)
    store = inputs.graph[inputs.target]
    removed = {inputs.target: store.edge_id[torch.tensor(rows)]}
    graph = nx.Graph()
    graph.add_edges_from((("user", int(u)), ("item", int(i))) for u, i in store.edge_index.T)
    ends = [
        end
        for row in rows
        for end in (("user", int(store.edge_index[0, row])), ("item", int(store.edge_index[1, row])))
    ]
    distance = nx.multi_source_dijkstra_path_length(graph, set(ends), weight=None)
    found = balls(inputs.graph, removed, hops)
    assert len(found) == hops + 1
    for hop, masks in enumerate(found):
        expected = {node for node, far in distance.items() if far <= hop}
        assert {(kind, int(n)) for kind, mask in masks.items() for n in mask.nonzero()} == expected


def test_a_propagation_changes_nothing_outside_the_ball() -> None:
    data = planted(num_users=60, num_items=60, groups=12, per_user=4, loyalty=0.995)
    model = LightGCN(data, dim=8, num_layers=2).eval()
    store = model.graph_inputs.graph[data.target]
    removed = {data.target: store.edge_id[:1]}
    ball = balls(model.graph_inputs.graph, removed, 2)[2]
    before, after = model.encoded(), without_edges(model, removed).encoded()
    assert not ball["user"].all() and not ball["item"].all()
    assert torch.equal(before.users[~ball["user"]], after.users[~ball["user"]])
    assert torch.equal(before.items[~ball["item"]], after.items[~ball["item"]])
    changed = (before.users != after.users).any(1)
    assert changed.any() and not (changed & ~ball["user"]).any()


def test_touched_share_against_a_loop_over_edges() -> None:
    data = tiny_kg()
    graph = data.graph()
    triples = next(name for name in graph.edge_types if name != data.target)
    removed = {data.target: graph[data.target].edge_id[[0, 3, 4]], triples: graph[triples].edge_id[[1]]}
    edges = [
        ((kind[0], int(s)), (kind[2], int(t)), bool(np.isin(int(e), removed.get(kind, torch.empty(0)))))
        for kind in graph.edge_types
        for s, t, e in zip(*graph[kind].edge_index, graph[kind].edge_id, strict=True)
    ]
    nodes = [(kind, n) for kind in graph.node_types for n in range(graph[kind].num_nodes)]
    degree = {node: sum((node == a) + (node == b) for a, b, _ in edges) for node in nodes}
    gone = {node: sum(((node == a) + (node == b)) * out for a, b, out in edges) for node in nodes}
    arrived = {node: gone[node] / max(degree[node], 1) for node in nodes}
    share = dict(arrived)
    for _ in range(2):
        step = dict.fromkeys(nodes, 0.0)
        for a, b, _out in edges:
            step[b] += arrived[a]
            step[a] += arrived[b]
        arrived = {node: step[node] / max(degree[node], 1) for node in nodes}
        share = {node: share[node] + arrived[node] for node in nodes}
    found = touched_share(graph, removed, 2)
    for kind, n in nodes:
        assert int(degrees(graph)[kind][n]) == degree[kind, n]
        assert int(touched_edges(graph, removed)[kind][n]) == gone[kind, n]
        assert abs(float(found[kind][n]) - share[kind, n]) < 1e-12
