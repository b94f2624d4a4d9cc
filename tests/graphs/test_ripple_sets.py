from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.errors import InputError
from graphrec.graphs import ripple_sets as module
from graphrec.graphs.relational import RelationalGraph, relational_graph
from graphrec.graphs.ripple_sets import ripple_sets
from tests.models.planted_kg import planted_kg


def inputs() -> tuple[RelationalGraph, Tensor, Tensor]:
    """The graph of planted triples, and each user's training items."""
    data = planted_kg()
    pairs = data.pairs("train")
    graph = relational_graph(data.graph(part="train"), data.target, "directed")
    return graph, torch.from_numpy(pairs.indptr.copy()), torch.from_numpy(pairs.items.copy())


def chain(links: list[tuple[int, int]], items: int = 10) -> RelationalGraph:
    made = HeteroData()
    made["user"].num_nodes, made["item"].num_nodes, made["entity"].num_nodes = 1, items, 0
    made["user", "interacts", "item"].edge_index = torch.zeros(2, 1, dtype=torch.int64)
    made["item", "related", "item"].edge_index = torch.tensor(links).T
    return relational_graph(made, ("user", "interacts", "item"), "directed")


@pytest.mark.parametrize("size", [4, 12, 64])
def test_hops_follow_each_other_without_repetition(size: int) -> None:
    graph, indptr, nodes = inputs()
    found = ripple_sets(graph, indptr, nodes, num_hops=3, size=size, seed=1)
    assert found.shape == (160, 3, size)
    heads, tails = graph.heads(), graph.tails()
    degree = graph.adjacency.degrees(0)
    for user in range(0, 160, 5):
        seeds = set(nodes[indptr[user] : indptr[user + 1]].tolist())
        for hop in range(3):
            edges = found[user, hop][found[user, hop] >= 0]
            candidates = sum(int(degree[seed]) for seed in seeds)
            if candidates == 0:
                assert torch.equal(found[user, hop], found[user, hop - 1])
            else:
                assert len(edges.unique()) == len(edges) == min(candidates, size)
                assert set(heads[edges].tolist()) <= seeds
            seeds = set(tails[edges].tolist())


def test_published_samples_are_full_and_follow_multiplicities() -> None:
    graph, indptr, nodes = inputs()
    found = ripple_sets(graph, indptr, nodes, num_hops=2, size=40, seed=1, resample=True)
    assert int(found.min()) >= 0
    degree = graph.adjacency.degrees(0)
    few = [user for user in range(160) if int(degree[nodes[indptr[user] : indptr[user + 1]]].sum()) < 40]
    assert few
    for user in few:
        assert len(found[user, 0].unique()) < 40
    # Two ways into node 1 against one into node 2, and one edge out of each: twice as often there, on average.
    graph = chain([(0, 1), (3, 1), (4, 2), (1, 5), (2, 6)])
    counts = torch.zeros(len(graph))
    for seed in range(200):
        sample = ripple_sets(
            graph, torch.tensor([0, 3]), torch.tensor([0, 3, 4]), num_hops=2, size=3, seed=seed, resample=True
        )
        counts += torch.bincount(sample[0, 1], minlength=len(graph))
    into = {int(graph.tails()[edge]): float(counts[edge]) for edge in range(len(graph))}
    assert 1.6 < into[5] / into[6] < 2.5


def test_a_hop_without_edges_repeats_the_one_before_and_an_empty_first_stays_empty() -> None:
    graph = chain([(0, 1), (2, 3), (3, 4)])
    found = ripple_sets(graph, torch.tensor([0, 1, 2, 2, 3]), torch.tensor([0, 2, 7]), num_hops=2, size=2, seed=0)
    assert found[0].tolist() == [[0, -1], [0, -1]]
    assert found[1].tolist() == [[1, -1], [2, -1]]
    assert found[2].tolist() == found[3].tolist() == [[-1, -1], [-1, -1]]


def test_every_candidate_is_as_likely() -> None:
    graph = chain([(0, 1), (0, 2), (0, 3), (4, 5), (4, 6)])
    users = 4000
    indptr, nodes = torch.arange(users + 1) * 2, torch.tensor([0, 4]).repeat(users)
    found = ripple_sets(graph, indptr, nodes, num_hops=1, size=2, seed=5)
    shares = torch.bincount(found.flatten(), minlength=5) / (2 * users)
    assert (shares - 0.2).abs().max() < 0.02


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, indptr, nodes = inputs()
    for resample in (False, True):
        whole = ripple_sets(graph, indptr, nodes, num_hops=2, size=8, seed=3, resample=resample)
        monkeypatch.setattr(module, "BLOCK", 50)
        assert torch.equal(ripple_sets(graph, indptr, nodes, num_hops=2, size=8, seed=3, resample=resample), whole)
        monkeypatch.undo()
        other = ripple_sets(graph, indptr, nodes, num_hops=2, size=8, seed=4, resample=resample)
        assert not torch.equal(other, whole)


@pytest.mark.parametrize("resample", [False, True])
def test_the_lowest_of_many_candidates_are_those_of_a_whole_sort(
    resample: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = chain([(0, tail) for tail in range(1, 300)] + [(2, 3), (2, 4)], items=300)
    users = 300
    indptr, nodes = torch.arange(users + 1), torch.tensor([0]).repeat(users)
    nodes[::7] = 2
    found = ripple_sets(graph, indptr, nodes, num_hops=1, size=4, seed=5, resample=resample)
    seen: list[bool] = []
    near = module._lowest

    def none(bits: Tensor, counts: Tensor, size: int) -> None:
        seen.append(near(bits, counts, size) is not None)

    monkeypatch.setattr(module, "_lowest", none)
    assert torch.equal(ripple_sets(graph, indptr, nodes, num_hops=1, size=4, seed=5, resample=resample), found)
    assert seen == [True]


def test_too_few_low_candidates_are_made_up_for() -> None:
    bits = torch.arange(1000).repeat(2) + torch.iinfo(torch.int64).max - 2000  # none is low
    near = module._lowest(bits, torch.tensor([1000, 1000]), 4)
    assert near is not None and bool(near.all())


def test_a_users_draws_do_not_depend_on_other_users() -> None:
    graph, indptr, nodes = inputs()
    whole = ripple_sets(graph, indptr, nodes, num_hops=2, size=8, seed=3)
    emptied = indptr.clone()
    emptied[1:] -= indptr[1]
    without_first = ripple_sets(graph, emptied, nodes[int(indptr[1]) :], num_hops=2, size=8, seed=3)
    assert torch.equal(without_first[1:], whole[1:])
    assert bool((without_first[0] < 0).all())


def test_an_item_taken_away_leaves_the_rest_of_a_sample() -> None:
    graph, indptr, nodes = inputs()
    whole = ripple_sets(graph, indptr, nodes, num_hops=1, size=8, seed=3)
    gone = int(nodes[0])
    smaller = indptr.clone()
    smaller[1:] -= 1
    found = ripple_sets(graph, smaller, nodes[1:], num_hops=1, size=8, seed=3)
    kept = [edge for edge in whole[0, 0].tolist() if int(graph.heads()[edge]) != gone]
    assert found[0, 0].tolist()[: len(kept)] == kept
    assert torch.equal(found[1:], whole[1:])


def test_bad_sizes() -> None:
    graph, indptr, nodes = inputs()
    for num_hops, size in ((0, 4), (1, 0)):
        with pytest.raises(InputError, match="must be a positive whole number, found 0"):
            ripple_sets(graph, indptr, nodes, num_hops=num_hops, size=size, seed=0)
