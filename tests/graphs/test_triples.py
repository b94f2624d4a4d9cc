"""Known triples, corrupted ones, and batches: against sets and loops, uniform, and unmoved when other triples go."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.triples import TripleIndex, corrupted_heads, corrupted_tails, triple_order, triples_by_head
from tests.graphs.test_sampling import is_uniform

Triples = tuple[Tensor, Tensor, Tensor]


@st.composite
def triples(draw: st.DrawFn) -> tuple[Triples, int, int]:
    """Some triples in any order, repeated ones among them; N and R."""
    nodes, relations = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    node, relation = st.integers(0, nodes - 1), st.integers(0, relations - 1)
    drawn = draw(st.lists(st.tuples(node, relation, node), max_size=40))
    columns = torch.tensor(drawn, dtype=torch.int64).view(-1, 3)
    return (columns[:, 0], columns[:, 1], columns[:, 2]), nodes, relations


def as_set(heads: Tensor, relations: Tensor, tails: Tensor) -> set[tuple[int, int, int]]:
    return set(zip(heads.tolist(), relations.tolist(), tails.tolist(), strict=True))


def everything(nodes: int, relations: int) -> Triples:
    grid = torch.cartesian_prod(torch.arange(nodes), torch.arange(relations), torch.arange(nodes)).view(-1, 3)
    return grid[:, 0], grid[:, 1], grid[:, 2]


@settings(deadline=None, max_examples=80)
@given(triples())
def test_membership_is_that_of_a_set(case: tuple[Triples, int, int]) -> None:
    known, nodes, relations = case
    index = TripleIndex.from_triples(*known, nodes, relations)
    grid = everything(nodes, relations)
    expected = [triple in as_set(*known) for triple in zip(*(x.tolist() for x in grid), strict=True)]
    assert index.contains(*grid).tolist() == expected
    heads, relation, tails = grid
    assert index.reversed.contains(tails, relation, heads).tolist() == expected
    assert len(index) == len(as_set(*known))
    # Broadcasting: (nodes, 1, 1), (1, relations, 1) and (nodes,) make the same grid.
    node = torch.arange(nodes)
    table = index.contains(node[:, None, None], torch.arange(relations)[None, :, None], node)
    assert table.flatten().tolist() == expected


def test_membership_in_a_large_graph_is_that_of_its_keys() -> None:
    """Large enough that bits are asked before keys."""
    stream = torch.Generator().manual_seed(0)
    heads, tails = torch.randint(5000, (2, 100_000), generator=stream)
    relations = torch.randint(7, (100_000,), generator=stream)
    index = TripleIndex.from_triples(heads, relations, tails, 5000, 7)
    assert index.contains(heads, relations, tails).all()
    others = torch.randint(5000, (200, 300), generator=stream)
    found = index.contains(heads[:200, None], relations[:200, None], others)
    known = set(index.keys.tolist())
    keys = (heads[:200, None] * 7 + relations[:200, None]) * 5000 + others
    assert found.shape == (200, 300)
    assert found.flatten().tolist() == [key in known for key in keys.flatten().tolist()]
    share = index.cache["filter"].numel() * 8 / len(index)
    assert 8 <= share <= 16


@settings(deadline=None, max_examples=80)
@given(triples(), st.integers(1, 3), st.integers(0, 5), st.data())
def test_a_corrupted_triple_is_never_a_fact(
    case: tuple[Triples, int, int], count: int, seed: int, data: st.DataObject
) -> None:
    known, nodes, relations = case
    index = TripleIndex.from_triples(*known, nodes, relations)
    low = data.draw(st.integers(0, nodes - 1))
    high = data.draw(st.integers(low + 1, nodes))
    listed = torch.arange(low, high).flip(0)
    heads, relation, _ = everything(nodes, relations)
    for candidates in (slice(low, high), listed):
        tails = corrupted_tails(index, heads, relation, count, seed=seed, candidates=candidates)
        assert tails.shape == (len(heads), count)
        assert int(tails.min()) >= low and int(tails.max()) < high
        full = index.contains(heads[:, None], relation[:, None], listed).all(1)
        assert not (index.contains(heads[:, None], relation[:, None], tails) & ~full[:, None]).any()
        turned = corrupted_heads(index, relation, heads, count, seed=seed, candidates=candidates)
        full = index.contains(listed, relation[:, None], heads[:, None]).all(1)
        assert not (index.contains(turned, relation[:, None], heads[:, None]) & ~full[:, None]).any()


@pytest.mark.parametrize("listed", [False, True])
def test_corrupted_tails_are_uniform_over_what_is_left(listed: bool) -> None:
    # All of the candidates 5 to 1,994 are known but three: rejection alone would hardly ever end.
    missing = torch.tensor([5, 777, 1994])
    tails = torch.tensor([t for t in range(2000) if t not in missing.tolist()])
    index = TripleIndex.from_triples(torch.full_like(tails, 7), torch.ones_like(tails), tails, 2000, 2)
    candidates = torch.arange(5, 1995) if listed else slice(5, 1995)
    heads = torch.full((3000,), 7)
    drawn = corrupted_tails(index, heads, torch.ones_like(heads), 1, seed=5, candidates=candidates).flatten()
    assert set(drawn.tolist()) == set(missing.tolist())
    assert is_uniform(torch.bincount(drawn)[missing])
    # The other relation of the same head is free.
    drawn = corrupted_tails(index, heads, torch.zeros_like(heads), 20, seed=5, candidates=candidates).flatten()
    assert is_uniform(torch.bincount(drawn, minlength=2000)[5:1995])


def test_a_head_linked_to_everything_has_a_policy() -> None:
    index = TripleIndex.from_triples(torch.tensor([0, 0]), torch.tensor([0, 0]), torch.tensor([0, 1]), 2, 1)
    heads = torch.zeros(400, dtype=torch.int64)
    for candidates in (None, torch.tensor([1, 0])):
        drawn = corrupted_tails(index, heads, heads, seed=0, candidates=candidates)
        assert is_uniform(torch.bincount(drawn.flatten(), minlength=2))
        with pytest.raises(InputError, match="head 0 is linked by relation 0 to every candidate"):
            corrupted_tails(index, heads, heads, seed=0, candidates=candidates, saturated="error")


def test_draws_keyed_by_tails_do_not_rest_on_other_triples() -> None:
    stream = torch.Generator().manual_seed(0)
    heads, tails = torch.randint(50, (2, 200), generator=stream)
    relations = torch.randint(3, (200,), generator=stream)
    index = TripleIndex.from_triples(heads, relations, tails, 50, 3)
    whole = corrupted_tails(index, heads, relations, 4, seed=1, keys=tails)
    some = torch.randperm(200, generator=stream)[:60]
    part = corrupted_tails(index, heads[some], relations[some], 4, seed=1, keys=tails[some])
    assert torch.equal(part, whole[some])
    assert not torch.equal(whole, corrupted_tails(index, heads, relations, 4, seed=2, keys=tails))


def test_the_order_of_triples_outlives_the_loss_of_one() -> None:
    heads, relations, tails = everything(5, 3)
    order = triple_order(heads, relations, tails, seed=3)
    assert torch.equal(order.sort().values, torch.arange(75))
    kept = torch.arange(75) != 17
    shorter = triple_order(heads[kept], relations[kept], tails[kept], seed=3)
    renumbered = torch.nonzero(kept)[:, 0][shorter]
    assert torch.equal(renumbered, order[order != 17])
    assert not torch.equal(order, triple_order(heads, relations, tails, seed=4))


@pytest.mark.parametrize("nodes, active, count", [(400, 300, 30), (400, 300, 250), (4000, 40, 8), (50, 6, 6)])
def test_heads_of_a_batch_are_uniform_and_differ(nodes: int, active: int, count: int) -> None:
    """The three ways a batch is drawn: a short sequence, a large share of the heads, few nodes that have any triple."""
    stream = torch.Generator().manual_seed(2)
    rows = torch.randperm(nodes, generator=stream)[:active]
    degree = 1 + torch.arange(active) % 4
    heads = rows.repeat_interleave(degree)
    tails = torch.arange(len(heads)) % nodes
    adj = Adjacency.from_edges(torch.stack([heads, tails]), (nodes, nodes))
    batches = 12000 // count + 100
    drawn = torch.stack([triples_by_head(adj, count, seed=0, batch=batch) for batch in range(batches)])
    chosen = adj.rows().long()[drawn]
    ranked = chosen.sort(1).values
    assert (ranked[:, 1:] != ranked[:, :-1]).all()
    seen = torch.bincount(chosen.flatten(), minlength=nodes)
    assert torch.equal(seen > 0, adj.degrees(0) > 0)
    if count < active:
        # Draws without replacement spread less than independent ones, by the share that a batch leaves out.
        counts, expected = seen[rows].double(), batches * count / active
        statistic = float(((counts - expected) ** 2 / (expected * (1 - count / active))).mean())
        assert abs(statistic - 1) < 5 * (2 / active) ** 0.5
    # One of a head's triples uniformly: within the heads of four triples every place as often.
    place = drawn - adj.rowptr[chosen].long()
    four = adj.degrees(0)[chosen] == 4
    assert is_uniform(torch.bincount(place[four], minlength=4))


def test_more_heads_than_there_are_come_again() -> None:
    adj = Adjacency.from_edges(torch.tensor([[0, 0, 2], [1, 2, 1]]), (3, 3))
    drawn = triples_by_head(adj, 4000, seed=0)
    heads = adj.rows().long()[drawn]
    assert is_uniform(torch.bincount(heads, minlength=3)[[0, 2]])
    assert is_uniform(torch.bincount(drawn[heads == 0], minlength=2))


def test_bad_input_is_named() -> None:
    one = torch.tensor([0])
    with pytest.raises(InputError, match="triple 0 has relation 5, expected 0 to 1"):
        TripleIndex.from_triples(one, one + 5, one, 3, 2)
    with pytest.raises(InputError, match=r"triple 0 has head -1, expected 0 to 2"):
        TripleIndex.from_triples(one - 1, one, one, 3, 2)
    with pytest.raises(InputError, match="alike"):
        TripleIndex.from_triples(one, one, torch.tensor([0, 1]), 3, 2)
    with pytest.raises(InputError, match="63 bits"):
        TripleIndex.from_triples(one, one, one, 2**31, 3)
    index = TripleIndex.from_triples(one, one, one, 3, 2)
    with pytest.raises(InputError, match="range of nodes within 0 to 3"):
        corrupted_tails(index, one, one, seed=0, candidates=slice(0, 4))
    with pytest.raises(InputError, match="no candidates"):
        corrupted_tails(index, one, one, seed=0, candidates=slice(2, 2))
    with pytest.raises(InputError, match="1 or more"):
        corrupted_tails(index, one, one, 0, seed=0)
    empty = Adjacency.from_edges(torch.empty(2, 0, dtype=torch.int64), (3, 3))
    with pytest.raises(InputError, match="no triple"):
        triples_by_head(empty, 1, seed=0)


def test_keys_near_the_limit_are_exact() -> None:
    nodes, relations = 2_000_000_000, 2
    last = torch.tensor([nodes - 1])
    index = TripleIndex.from_triples(last, torch.tensor([1]), last, nodes, relations)
    assert int(index.keys[0]) == ((nodes - 1) * relations + 1) * nodes + nodes - 1
    assert index.contains(last, torch.tensor([1]), last).all()
    assert not index.contains(last, torch.tensor([0]), last).any()
