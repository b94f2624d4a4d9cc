"""The published forms of a knowledge graph, against loops over its triples."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.errors import InputError
from graphrec.graphs.relational import CONVENTIONS, Convention, RelationalGraph, knowledge_edge_types, relational_graph
from tests.models.planted_kg import tiny_kg

TARGET = ("user", "interacts", "item")
TO_ENTITY = ("item", "related", "entity")
TO_ITEM = ("item", "related", "item")


def drawn(seed: int, *, users: int = 4, items: int = 5, entities: int = 6, relations: int = 3) -> HeteroData:
    """A graph with parallel edges, duplicates and loops."""
    stream = torch.Generator().manual_seed(seed)
    graph = HeteroData()
    sizes = {"user": users, "item": items, "entity": entities}
    for name, size in sizes.items():
        graph[name].num_nodes = size
    for kind, count in ((TARGET, 7), (TO_ENTITY, 15), (TO_ITEM, 6), (("entity", "related", "item"), 4)):
        ends = [torch.randint(sizes[kind[place]], (count,), generator=stream) for place in (0, 2)]
        graph[kind].edge_index = torch.stack(ends)
        graph[kind].edge_id = torch.randperm(100, generator=stream)[:count]
        if kind != TARGET:
            graph[kind].relation = torch.randint(relations, (count,), generator=stream)
    return graph


def listed(graph: RelationalGraph) -> list[tuple[int, int, int]]:
    return list(zip(graph.heads().tolist(), graph.relation.tolist(), graph.tails().tolist(), strict=True))


def stated(graph: HeteroData, offset: dict[str, int]) -> set[tuple[int, int, int]]:
    """KG triples in the common numbering, with the dataset's relation numbers."""
    triples = set()
    for kind in graph.edge_types:
        if kind == TARGET:
            continue
        store = graph[kind]
        for head, tail, relation in zip(*store.edge_index.tolist(), store.relation.tolist(), strict=True):
            triples.add((head + offset[kind[0]], relation, tail + offset[kind[2]]))
    return triples


def test_kgat_numbers_relations_as_its_code_does() -> None:
    graph = drawn(0)
    made = relational_graph(graph, TARGET, "kgat", num_relations=3)
    offset = {"user": 0, "item": 4, "entity": 9}
    facts = {(head, relation + 1, tail) for head, relation, tail in stated(graph, offset)}
    facts |= {(user, 0, item + 4) for user, item in graph[TARGET].edge_index.T.tolist()}
    both = facts | {(tail, relation + 4, head) for head, relation, tail in facts}
    assert made.num_relations == 8
    assert len(listed(made)) == len(both)
    assert set(listed(made)) == both
    assert [(r.code, r.inverse) for r in made.relations] == [
        *((code, False) for code in (-1, 0, 1, 2)),
        *((code, True) for code in (-1, 0, 1, 2)),
    ]


@pytest.mark.parametrize("seed", range(3))
def test_the_other_forms(seed: int) -> None:
    graph = drawn(seed)
    facts = stated(graph, {"item": 0, "entity": 5})
    assert set(listed(relational_graph(graph, TARGET, "directed"))) == facts
    back = {(tail, relation, head) for head, relation, tail in facts}
    assert sorted(listed(relational_graph(graph, TARGET, "kgcn"))) == sorted([*facts, *back])
    inverse = {(tail, relation + 3, head) for head, relation, tail in facts}
    assert sorted(listed(relational_graph(graph, TARGET, "kgin", num_relations=3))) == sorted(facts | inverse)
    pairs: dict[tuple[int, int], int] = {}
    for head, relation, tail in [*sorted(facts), *sorted(inverse)]:
        pairs.setdefault((head, tail), relation)
    found = relational_graph(graph, TARGET, "diffkg", num_relations=3)
    assert listed(found) == [(head, pairs[head, tail], tail) for head, tail in sorted(pairs)]
    bought = {(user + 11, 3, item) for user, item in graph[TARGET].edge_index.T.tolist()}
    mirrored = [*(facts | bought), *((tail, relation, head) for head, relation, tail in facts | bought)]
    assert sorted(listed(relational_graph(graph, TARGET, "kcan", num_relations=3))) == sorted(mirrored)
    shifted = {(head + 4, relation, tail + 4) for head, relation, tail in facts}
    one_way = shifted | {(user, 3, item + 4) for user, item in graph[TARGET].edge_index.T.tolist()}
    assert set(listed(relational_graph(graph, TARGET, "cfkg", num_relations=3))) == one_way


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_edge_knows_where_it_came_from(convention: str) -> None:
    graph = drawn(5)
    made = relational_graph(graph, TARGET, convention)
    for number in range(len(made)):
        kind = made.edge_types[int(made.edge_type[number])]
        place = int(made.position[number])
        ends = [int(node) for node in graph[kind].edge_index[:, place]]
        ends = [end + made.nodes(name).start for end, name in zip(ends, (kind[0], kind[2]), strict=True)]
        if bool(made.inverse[number]):
            ends.reverse()
        if CONVENTIONS[convention].inverse == "same" and [int(made.heads()[number]), int(made.tails()[number])] != ends:
            ends.reverse()
        assert [int(made.heads()[number]), int(made.tails()[number])] == ends
        assert int(made.edge_id[number]) == int(graph[kind].edge_id[place])
        relation = made.relations[int(made.relation[number])]
        assert relation.inverse is (bool(made.inverse[number]) and CONVENTIONS[convention].inverse == "distinct")
        if kind == TARGET:
            assert relation.edge_type == TARGET
        else:
            assert relation.code == int(graph[kind].relation[place])


@given(st.integers(0, 2**30))
@settings(max_examples=25, deadline=None)
def test_pairs_and_counts(seed: int) -> None:
    graph = drawn(seed)
    made = relational_graph(graph, TARGET, "kgat")
    assert made.counts["triples"] == 25
    kept = made.counts["edges"] // 2
    assert made.counts["triples"] + made.counts["interactions"] - made.counts["duplicates"] == kept
    keys = made.heads() * made.num_nodes + made.tails()
    assert bool((keys[1:] >= keys[:-1]).all())
    for pairs, nodes in ((made.head_pairs, made.heads()), (made.tail_pairs, made.tails())):
        assert torch.equal(pairs.node[pairs.of_edge], nodes)
        assert torch.equal(pairs.relation[pairs.of_edge], made.relation)
        assert len(set(zip(pairs.node.tolist(), pairs.relation.tolist(), strict=True))) == len(pairs)
        for relation in range(made.num_relations):
            assert bool((pairs.relation[pairs.starts[relation] : pairs.starts[relation + 1]] == relation).all())
        assert pairs.starts[-1] == len(pairs)


def test_weights_reach_both_directions_and_have_gradients() -> None:
    graph = drawn(1)
    made = relational_graph(graph, TARGET, "kgat")
    weight = torch.arange(15.0, requires_grad=True)
    found = made.weights({TO_ENTITY: weight})
    assert found is not None
    for number, value in enumerate(found.tolist()):
        kind = made.edge_types[int(made.edge_type[number])]
        assert value == (float(made.position[number]) if kind == TO_ENTITY else 1.0)
    found.sum().backward()
    mine = made.edge_type == made.edge_types.index(TO_ENTITY)
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.bincount(made.position[mine], minlength=15).float())
    assert made.weights(None) is None
    assert made.weights({("user", "trusts", "user"): weight}) is None
    with pytest.raises(InputError, match="one for each edge"):
        made.weights({TO_ENTITY: torch.ones(3)})


def test_an_edge_type_without_relations_is_one() -> None:
    graph = drawn(2)
    del graph[TO_ITEM].relation
    made = relational_graph(graph, TARGET, "directed", num_relations=3)
    assert made.relations[3].edge_type == TO_ITEM
    mine = made.edge_type == made.edge_types.index(TO_ITEM)
    assert set(made.relation[mine].tolist()) == {3}


def test_what_is_wrong_is_named() -> None:
    graph = drawn(3)
    with pytest.raises(InputError, match="kgat"):
        relational_graph(graph, TARGET, "kgta")
    with pytest.raises(InputError, match="layout"):
        relational_graph(graph, TARGET, Convention(layout="nowhere"))
    with pytest.raises(InputError, match="out of range"):
        relational_graph(graph, TARGET, "kgat", num_relations=2)
    graph[TO_ITEM].relation = graph[TO_ITEM].relation - 5
    with pytest.raises(InputError, match="0 or more"):
        relational_graph(graph, TARGET, "kgat")
    bare = HeteroData()
    bare["user"].num_nodes, bare["item"].num_nodes = 2, 2
    bare[TARGET].edge_index = torch.tensor([[0, 1], [1, 0]])
    with pytest.raises(InputError, match="no triples"):
        relational_graph(bare, TARGET, "kgat")


def test_types_that_are_knowledge() -> None:
    kinds = [TARGET, ("entity", "related", "entity"), TO_ENTITY, ("item", "tagged", "tag"), ("user", "trusts", "user")]
    assert knowledge_edge_types(kinds) == (("entity", "related", "entity"), TO_ENTITY)


def test_relation_numbers_do_not_hang_on_which_triples_are_there() -> None:
    from graphrec.models.base import GraphInputs

    data = tiny_kg()
    table = data.table(TO_ENTITY)
    last = table.edge_id[table.relation == 2]
    less = data.without(
        {TO_ENTITY: last, ("entity", "related", "entity"): data.table("entity__related__entity").edge_id}
    )
    before, after = (
        relational_graph(
            GraphInputs.from_dataset(some, edge_types=(data.target, *knowledge_edge_types(data.tables))).graph,
            data.target,
            "kgat",
        )
        for some in (data, less)
    )
    assert before.relations == after.relations


def test_moving_keeps_everything() -> None:
    made = relational_graph(drawn(4), TARGET, "kgat")

    def same(tensor: Tensor) -> Tensor:
        return tensor.clone()

    moved = made.apply(same)
    assert listed(moved) == listed(made)
    assert torch.equal(moved.edge_id, made.edge_id)


def test_a_subset_keeps_what_its_edges_are() -> None:
    graph = relational_graph(drawn(3), TARGET, "kgin")
    kept = torch.rand(len(graph), generator=torch.Generator().manual_seed(1)) < 0.4
    part = graph.subset(kept)
    assert 0 < len(part) < len(graph)
    for name in ("relation", "edge_type", "position", "inverse"):
        assert torch.equal(getattr(part, name), getattr(graph, name)[kept])
    assert torch.equal(torch.stack([part.heads(), part.tails()]), torch.stack([graph.heads(), graph.tails()])[:, kept])
    assert torch.equal(part.edge_id, graph.edge_id[kept])
    assert (part.adjacency.num_edges, part.counts["edges"]) == (len(part), len(part))
    weights = {kind: torch.arange(length).float() for kind, length in zip(graph.edge_types, graph.lengths, strict=True)}
    whole, some = graph.weights(weights), part.weights(weights)
    assert whole is not None
    assert some is not None
    assert torch.equal(some, whole[kept])
    assert len(graph.subset(torch.zeros_like(kept))) == 0
