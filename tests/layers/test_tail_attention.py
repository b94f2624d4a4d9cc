"""Attention over an item's triples against loops over them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from graphrec.errors import InputError
from graphrec.graphs.relational import RelationalGraph, relational_graph
from graphrec.layers.tail_attention import ItemTails, item_tails, tail_attention, with_tails
from tests.models.planted_kg import tiny_kg


def graph() -> RelationalGraph:
    data = tiny_kg()
    return relational_graph(data.graph(), data.target, "directed")


def vectors(tails: ItemTails, dim: int = 3, seed: int = 0) -> list[Tensor]:
    stream = torch.Generator().manual_seed(seed)
    shapes = [(10, dim), (len(tails.nodes), dim), (tails.num_relations, dim), (tails.num_relations, dim)]
    made = [torch.randn(*shape, generator=stream, dtype=torch.float64).requires_grad_() for shape in shapes]
    return [*made, torch.randn(tails.num_relations, generator=stream, dtype=torch.float64).requires_grad_()]


def attention(tails: ItemTails, given: list[Tensor], weight: Tensor | None = None) -> Tensor:
    items, x, item_vectors, tail_vectors, bias = given
    return tail_attention(tails, items, x, item_vectors, tail_vectors, bias, weight)


def slow_attention(tails: ItemTails, given: list[Tensor], weight: list[float]) -> list[Tensor]:
    items, x, item_vectors, tail_vectors, bias = given
    sizes = []
    triples = list(zip(tails.heads().tolist(), tails.relation.tolist(), tails.tails().tolist(), strict=True))
    for (item, relation, tail), w in zip(triples, weight, strict=True):
        logit = items[item] @ item_vectors[relation] + x[tail] @ tail_vectors[relation] + bias[relation]
        sizes.append(w * (logit if logit > 0 else 0.2 * logit).exp())
    totals: dict[int, Tensor] = {}
    for (item, _, _), size in zip(triples, sizes, strict=True):
        totals[item] = totals.get(item, torch.zeros(()).double()) + size
    shares = []
    for (item, _, _), size in zip(triples, sizes, strict=True):
        shares.append(size / totals[item] if totals[item] > 0 else size * 0)
    return shares


def test_the_first_triples_of_each_item_are_seen() -> None:
    whole = graph()
    items = whole.nodes("item")
    everything = item_tails(whole, "item", 100)
    heads = whole.heads()
    assert len(everything) == int(((heads >= items.start) & (heads < items.stop)).sum())
    limited = item_tails(whole, "item", 2)
    for item in range(10):
        own = torch.nonzero(heads == items.start + item)[:, 0].tolist()
        first = sorted(own, key=lambda edge: (int(whole.edge_type[edge]), int(whole.edge_id[edge])))[:2]
        seen = limited.edge[limited.heads() == item].tolist()
        assert sorted(seen) == sorted(first)
    assert torch.equal(limited.nodes[limited.tails()], whole.tails()[limited.edge])
    assert torch.equal(limited.relation, whole.relation[limited.edge])
    assert (limited.nodes.diff() > 0).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_attention_and_sums_equal_loops(weighted: bool) -> None:
    tails = item_tails(graph(), "item", 3)
    given = vectors(tails)
    weight = torch.rand(len(tails), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    weight[tails.heads() == int(tails.heads()[0])] = 0.0  # an item all of whose triples weigh nothing
    weight[-1] = 0.0
    plain = weight.tolist() if weighted else [1.0] * len(tails)
    found = attention(tails, given, weight if weighted else None)
    expected = torch.stack(slow_attention(tails, given, plain))
    torch.testing.assert_close(found, expected)
    rows = list(given[0])
    for edge, (item, tail) in enumerate(zip(tails.heads().tolist(), tails.tails().tolist(), strict=True)):
        rows[item] = rows[item] + expected[edge] * given[1][tail]
    made = with_tails(tails, given[0], given[1], found)
    torch.testing.assert_close(made, torch.stack(rows))
    upstream = torch.randn(10, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    ours = torch.autograd.grad(made, given, upstream)
    slow = torch.autograd.grad(torch.stack(rows), given, upstream)
    torch.testing.assert_close(ours, slow)


def test_it_can_be_differentiated_twice() -> None:
    tails = item_tails(graph(), "item", 2)
    given = vectors(tails, dim=2)
    weight = torch.linspace(0.5, 1.5, len(tails), dtype=torch.float64).requires_grad_()

    def made(*args: Tensor) -> Tensor:
        return with_tails(tails, args[0], args[1], attention(tails, list(args[:5]), args[5]))

    assert gradcheck(made, (*given, weight))
    assert gradgradcheck(made, (*given, weight), fast_mode=True)


def test_dropped_triples_take_no_part() -> None:
    tails = item_tails(graph(), "item", 3)
    given = vectors(tails)
    mask = torch.arange(len(tails)) % 3 != 0
    part = tails.kept(mask)
    assert torch.equal(part.edge, tails.edge[mask])
    masked = attention(tails, given, mask.double())
    torch.testing.assert_close(masked[mask], attention(part, given))
    assert not masked[~mask].any()
    sums = torch.zeros(10).double().index_add(0, part.heads(), attention(part, given)).detach()
    seen = part.adjacency.degrees(0) > 0
    torch.testing.assert_close(sums, seen.double())
    assert math.isclose(float(sums.sum()), int(seen.sum()))


def test_a_sample_is_drawn_by_triple() -> None:
    whole = graph()
    drawn = [item_tails(whole, "item", 1, seed=seed) for seed in range(30)]
    heads = whole.heads()
    for item in range(9):
        own = torch.nonzero(heads == whole.nodes("item").start + item)[:, 0].tolist()
        seen = {int(edge) for tails in drawn for edge in tails.edge[tails.heads() == item]}
        assert seen <= set(own)
        assert len(seen) == len(own) or len(own) > 3  # every triple of an item with few has its turn
    again = item_tails(whole, "item", 1, seed=3)
    assert torch.equal(again.edge, drawn[3].edge)


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="1 or more"):
        item_tails(graph(), "item", 0)
