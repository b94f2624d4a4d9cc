"""Paths against a search that visits every one."""

from __future__ import annotations

import pytest
import torch

from graphrec.errors import InputError
from graphrec.graphs.relational import RelationalGraph, relational_graph
from graphrec.influence.paths import paths_between, shares_backwards
from tests.graphs.test_relational import TARGET, drawn


def slow(
    graph: RelationalGraph, shares: torch.Tensor, start: int, end: int, inner: torch.Tensor, longest: int
) -> dict[tuple[int, ...], float]:
    heads, tails = graph.heads().tolist(), graph.tails().tolist()
    facts = {
        (int(kind), int(place), bool(inverse)): number
        for number, (kind, place, inverse) in enumerate(
            zip(graph.edge_type, graph.position, graph.inverse, strict=True)
        )
    }

    def other(number: int) -> float:
        key = (int(graph.edge_type[number]), int(graph.position[number]), not bool(graph.inverse[number]))
        return float(shares[facts[key]]) if key in facts else 0.0

    shares = shares.tolist()
    passable = inner.tolist()
    found = {}
    open_paths = [((), start)]
    for _ in range(longest):
        longer = []
        for edges, node in open_paths:
            visited = {start, *(tails[edge] for edge in edges)}
            for number in range(len(heads)):
                if heads[number] != node or tails[number] in visited or (edges and not passable[number]):
                    continue
                path = (*edges, number)
                if tails[number] == end:
                    if len(path) > 1:
                        forwards, backwards = 1.0, 1.0
                        for edge in path:
                            forwards *= float(shares[edge])
                            backwards *= other(edge)
                        found[path] = forwards + backwards
                else:
                    longer.append((path, tails[number]))
        open_paths = longer
    return found


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("longest", [2, 3, 4])
def test_every_path_is_found(seed: int, longest: int) -> None:
    graph = relational_graph(drawn(seed), TARGET, "kgat")
    shares = torch.rand(len(graph), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    inner = (graph.relation != 0) & (graph.relation != 4)
    for start, end in ((0, 4), (1, 6), (2, 8)) if longest == 4 else ((a, b) for a in range(3) for b in range(4, 9)):
        expected = slow(graph, shares, start, end, inner, longest)
        found = paths_between(graph, shares, start, end, inner=inner, limit=10_000, max_length=longest)
        listed = {
            tuple(edge for edge in row if edge >= 0): value
            for row, value in zip(found.edges.tolist(), found.strength.tolist(), strict=True)
        }
        assert listed == pytest.approx(expected)
        assert found.strength.tolist() == sorted(found.strength.tolist(), reverse=True)
        for edges, nodes in zip(found.edges.tolist(), found.nodes.tolist(), strict=True):
            walked = [start, *(int(graph.tails()[edge]) for edge in edges if edge >= 0)]
            assert [node for node in nodes if node >= 0] == walked


def test_the_other_direction_of_an_edge() -> None:
    graph = relational_graph(drawn(1), TARGET, "kgat")
    shares = torch.arange(float(len(graph)))
    back = shares_backwards(graph, shares)
    twice = back[back.long()]
    assert torch.equal(twice, shares)
    assert bool((graph.heads()[back.long()] == graph.tails()).all())
    one_way = relational_graph(drawn(1), TARGET, "directed")
    assert bool((shares_backwards(one_way, torch.ones(len(one_way))) == 0).all())


def test_ends_and_lengths_are_checked() -> None:
    graph = relational_graph(drawn(1), TARGET, "kgat")
    shares, inner = torch.ones(len(graph)), torch.ones(len(graph), dtype=torch.bool)
    with pytest.raises(InputError, match="max_length"):
        paths_between(graph, shares, 0, 5, inner=inner, max_length=7)
    with pytest.raises(InputError, match="twice"):
        paths_between(graph, shares, 5, 5, inner=inner)
