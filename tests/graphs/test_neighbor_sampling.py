"""Sampled neighbourhoods: what they may hold, that they are uniform, and that they stay put."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.loader import LinkLoader, NodeLoader
from torch_geometric.sampler import NegativeSampling

from graphrec.errors import InputError
from graphrec.graphs.hetero import reverse_type, with_reverse
from graphrec.graphs.neighbor_sampling import NeighborSampler, subgraph
from tests.graphs.strategies import bipartite

BUYS = ("user", "buys", "item")


def graph_of(edges: Tensor, shape: tuple[int, int]) -> HeteroData:
    graph = HeteroData()
    graph["user"].num_nodes, graph["item"].num_nodes = shape
    graph["item"].x = torch.arange(shape[1]).float()[:, None]
    graph[BUYS].edge_index = edges
    graph[BUYS].edge_id = torch.arange(edges.shape[1]) + 50
    return with_reverse(graph)


def random_graph() -> HeteroData:
    stream = torch.Generator().manual_seed(1)
    flat = torch.randperm(30 * 20, generator=stream)[:150]
    return graph_of(torch.stack([flat // 20, flat % 20]), (30, 20))


@settings(deadline=None, max_examples=40)
@given(bipartite(), st.lists(st.integers(-1, 3), min_size=1, max_size=3))
def test_what_is_sampled_is_in_the_graph(case: tuple[Tensor, tuple[int, int]], counts: list[int]) -> None:
    graph = graph_of(*case)
    output = NeighborSampler(graph, counts, seed=3).sample({"user": torch.arange(case[1][0]).flip(0)[:2]})
    assert output.node["user"][:2].tolist() == torch.arange(case[1][0]).flip(0)[:2].tolist()
    for kind, nodes in output.node.items():
        assert len(nodes.unique()) == len(nodes) == sum(output.num_sampled_nodes[kind])
    part = subgraph(graph, output)
    for kind, position in output.edge.items():
        ends = torch.stack([output.node[kind[0]][output.row[kind]], output.node[kind[2]][output.col[kind]]])
        assert torch.equal(ends, graph[kind].edge_index[:, position])
        assert len(position.unique()) == len(position) == sum(output.num_sampled_edges[kind])
        assert torch.equal(part[kind].edge_id, graph[kind].edge_id[position])
        first = output.col[kind][: output.num_sampled_edges[kind][0]]
        wanted = torch.bincount(graph[kind].edge_index[1], minlength=graph[kind[2]].num_nodes)[output.node[kind[2]]]
        taken = torch.bincount(first, minlength=len(wanted))[: output.num_sampled_nodes[kind[2]][0]]
        limit = wanted[: len(taken)] if counts[0] < 0 else wanted[: len(taken)].clamp_max(counts[0])
        assert torch.equal(taken, limit)
    assert torch.equal(part["item"].x.flatten().long(), part["item"].n_id)


def test_uniform_and_without_repetition() -> None:
    edges = torch.tensor([[0] * 12, list(range(12))])
    graph = graph_of(edges, (1, 12))
    back = reverse_type(BUYS)
    counts = torch.zeros(12)
    for seed in range(600):
        picked = NeighborSampler(graph, {back: [4]}, seed=seed).sample({"user": torch.tensor([0])}).edge[back]
        assert len(picked.unique()) == 4
        counts[picked] += 1
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_neither_edge_order_nor_other_edges_matter() -> None:
    graph = random_graph()
    edges = graph[BUYS].edge_index
    seeds = {"user": torch.tensor([4, 9, 17])}
    back = reverse_type(BUYS)

    def sampled(edges: Tensor) -> set[tuple[int, int]]:
        output = NeighborSampler(graph_of(edges, (30, 20)), {back: [2]}, seed=7).sample(seeds)
        return set(zip(output.global_row[back].tolist(), output.global_col[back].tolist(), strict=True))

    before = sampled(edges)
    assert sampled(edges[:, torch.randperm(150)]) == before
    item, user = sorted(before)[0]
    gone = (edges[0] == user) & (edges[1] == item)
    after = sampled(edges[:, ~gone])
    assert before - after == {(item, user)} and len(after - before) <= 1


def test_node_loader() -> None:
    graph = random_graph()
    sampler = NeighborSampler(graph, [3, 2], seed=1)
    loader = NodeLoader(graph, sampler, input_nodes="user", batch_size=8)
    seen = []
    for batch in loader:
        size = batch["user"].batch_size
        seen += batch["user"].n_id[:size].tolist()
        ends = batch["user"].n_id[batch[BUYS].edge_index[0]], batch["item"].n_id[batch[BUYS].edge_index[1]]
        assert torch.equal(torch.stack(ends), graph[BUYS].edge_index[:, batch[BUYS].e_id])
        assert torch.equal(batch[BUYS].edge_id, graph[BUYS].edge_id[batch[BUYS].e_id])
    assert seen == list(range(30))


@pytest.mark.parametrize(("mode", "amount"), [("triplet", 1), ("triplet", 3), ("binary", 2.0)])
def test_link_loader(mode: str, amount: float) -> None:
    graph = random_graph()
    sampler = NeighborSampler(graph, [3], seed=1)
    edges = {(int(u), int(i)) for u, i in graph[BUYS].edge_index.t()}
    negatives = NegativeSampling(mode, amount)
    for batch in LinkLoader(graph, sampler, (BUYS, graph[BUYS].edge_index), neg_sampling=negatives, batch_size=40):
        users, items = batch["user"].n_id, batch["item"].n_id
        if mode == "binary":
            pairs = [(int(users[u]), int(items[i])) for u, i in batch[BUYS].edge_label_index.t()]
            assert [pair in edges for pair in pairs] == (batch[BUYS].edge_label > 0).tolist()
            continue
        source = users[batch["user"].src_index]
        assert all((int(u), int(items[i])) in edges for u, i in zip(source, batch["item"].dst_pos_index, strict=True))
        drawn = items[batch["item"].dst_neg_index].view(len(source), -1)
        assert drawn.shape[1] == amount
        assert not any((int(u), int(i)) in edges for u, row in zip(source, drawn, strict=True) for i in row)


def test_seeds_and_settings_are_checked() -> None:
    graph = random_graph()
    sampler = NeighborSampler(graph, [3], seed=1)
    with pytest.raises(InputError, match="must differ"):
        sampler.sample({"user": torch.tensor([1, 1])})
    with pytest.raises(InputError, match="user__buys__item"):
        NeighborSampler(graph, {("user", "buy", "item"): [3]})
    with pytest.raises(InputError, match="same number of hops"):
        NeighborSampler(graph, {BUYS: [3], reverse_type(BUYS): [3, 3]})
    with pytest.raises(InputError, match="-1"):
        NeighborSampler(graph, [-2])
    one, other = sampler.sample({"user": torch.arange(30)}), sampler.reseeded(2).sample({"user": torch.arange(30)})
    back = reverse_type(BUYS)
    assert not torch.equal(one.edge[back], other.edge[back])
