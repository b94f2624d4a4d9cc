from __future__ import annotations

import pytest
import torch

from graphrec.errors import InputError
from graphrec.graphs.relational import RelationalGraph, relational_graph
from graphrec.graphs.relational_fields import keep_edges_exactly, relational_fields
from tests.models.planted_kg import planted_kg


@pytest.fixture(scope="module")
def graph() -> RelationalGraph:
    data = planted_kg()
    return relational_graph(data.graph(), data.target, "kgin")


def edges_of(graph: RelationalGraph, chosen: torch.Tensor) -> set[tuple[int, int, int]]:
    columns = (graph.heads()[chosen], graph.relation[chosen], graph.tails()[chosen])
    return set(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("dropped", [0.0, 0.6])
def test_fields_hold_the_edges_that_layers_rest_on(graph: RelationalGraph, dropped: float) -> None:
    nodes, also = torch.tensor([3, 3, 70]), torch.tensor([11, 0])
    kept = None if dropped == 0 else keep_edges_exactly(graph, dropped, seed=1)
    order = graph.tail_pair_matrix.edge_positions()
    allowed = edges_of(graph, order if kept is None else order[kept])
    fields = relational_fields(graph, nodes, also, 3, kept)
    above = {3, 70}
    for field in reversed(fields):
        assert set(field.above.tolist()) == above
        expected = {edge for edge in allowed if edge[0] in above}
        assert edges_of(graph, field.edge) == expected
        rows, cols = field.matrix.rows().long(), field.matrix.col.long()
        stated = zip(
            field.above[rows].tolist(),
            field.relation[cols].tolist(),
            field.below[field.node[cols]].tolist(),
            strict=True,
        )
        assert set(stated) == expected
        assert len(field.edge) == len(expected)
        above = {tail for _, _, tail in expected} | {3, 70, 11, 0}
    assert set(fields[0].below.tolist()) == above


def test_a_draw_leaves_the_order_of_other_edges(graph: RelationalGraph) -> None:
    """Without one edge that was kept, the kept ones are the others and the next in the order."""
    order = graph.tail_pair_matrix.edge_positions()
    before = edges_of(graph, order[keep_edges_exactly(graph, 0.5, seed=4)])
    gone = int(order[keep_edges_exactly(graph, 0.5, seed=4)][0])
    kept = torch.ones(len(graph), dtype=torch.bool)
    kept[gone] = False
    rest = graph.subset(kept)
    after = edges_of(rest, rest.tail_pair_matrix.edge_positions()[keep_edges_exactly(rest, 0.5, seed=4)])
    assert before - after == edges_of(graph, torch.tensor([gone]))
    assert len(after - before) <= 1


def test_a_seed_may_be_a_tensor(graph: RelationalGraph) -> None:
    assert torch.equal(keep_edges_exactly(graph, 0.5, seed=9), keep_edges_exactly(graph, 0.5, seed=torch.tensor(9)))


def test_nothing_or_all_is_kept_at_the_ends(graph: RelationalGraph) -> None:
    assert keep_edges_exactly(graph, 0.0, seed=0).all()
    assert not keep_edges_exactly(graph, 1 - 1e-9, seed=0).any()
    with pytest.raises(InputError, match="share"):
        keep_edges_exactly(graph, 1.0, seed=0)
