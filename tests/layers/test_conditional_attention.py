from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from graphrec.errors import InputError
from graphrec.layers.conditional_attention import AttentionTables, NeighbourShares, conditional_attention

NODES, WIDTH, OUT = 7, 3, 2


def random_tables(seed: int = 0) -> list[Tensor]:
    stream = torch.Generator().manual_seed(seed)
    shapes = [(NODES, WIDTH), (NODES, WIDTH), (NODES,), (NODES, OUT), (WIDTH, OUT), (WIDTH,)]
    return [torch.randn(shape, generator=stream, dtype=torch.float64, requires_grad=True) for shape in shapes]


def random_lists(count: int, seed: int = 1) -> NeighbourShares:
    stream = torch.Generator().manual_seed(seed)
    nodes = torch.randint(NODES, (NODES, count), generator=stream).sort(1).values
    shares = torch.rand(NODES, count, generator=stream, dtype=torch.float64)
    return NeighbourShares(nodes, shares, torch.ones(NODES, dtype=torch.bool))


SEEDS = torch.tensor([3, 0, 6, 3])
TARGET = torch.tensor([0.4, -1.0, 2.0, 0.1], dtype=torch.float64)


def slow(tables: AttentionTables, around: list[list[tuple[int, float]]], seed: int, target: Tensor) -> Tensor:
    """Attention over ragged neighbourhoods (node, share), node by node."""

    def activated(x: Tensor) -> Tensor:
        x = torch.where(x > 0, x, torch.expm1(x))
        return x / x.square().sum().sqrt()

    def mean(rows: list[Tensor], gates: list[Tensor], node: int) -> Tensor:
        logits = [p * (target + gate) for (_, p), gate in zip(around[node], gates, strict=True)]
        sizes = [torch.exp(torch.where(x > 0, x, 0.2 * x)) for x in logits]
        return (
            torch.stack([size * row for size, row in zip(sizes, rows, strict=True)]).sum(0) / torch.stack(sizes).sum()
        )

    inner = []
    for j, _ in around[seed]:
        rows = [tables.hop_message[k] for k, _ in around[j]]
        gates = [tables.hop_gate[k] for k, _ in around[j]]
        inner.append(activated(tables.hop_own[j] + mean(rows, gates, j)))
    mixed = mean(inner, [(y * tables.seed_gate).sum() for y in inner], seed)
    return activated(tables.seed_own[seed] + mixed @ tables.seed_message)


def test_whole_neighbourhoods_give_exact_two_hop_attention() -> None:
    """Lists as long as the largest degree, each neighbour once, the places left over weighing nothing."""
    draws = torch.Generator().manual_seed(5)
    around = []
    for node in range(NODES):
        others = torch.randperm(NODES, generator=draws)[: 1 + node % 4].tolist()
        around.append([(other, float(torch.rand((), generator=draws))) for other in others])
    nodes = torch.zeros(NODES, 4, dtype=torch.int64)
    shares, weight = torch.zeros(NODES, 4, dtype=torch.float64), torch.zeros(NODES, 4, dtype=torch.float64)
    for node, listed in enumerate(around):
        for place, (other, share) in enumerate(sorted(listed)):
            nodes[node, place], shares[node, place], weight[node, place] = other, share, 1.0
    tables = AttentionTables(*random_tables())
    lists = NeighbourShares(nodes, shares, torch.ones(NODES, dtype=torch.bool), weight)
    found = conditional_attention(tables, lists, SEEDS, TARGET)
    expected = torch.stack([slow(tables, around, int(s), t) for s, t in zip(SEEDS, TARGET, strict=True)])
    torch.testing.assert_close(found, expected)


def test_derivatives_of_both_orders() -> None:
    lists = random_lists(2)
    target = TARGET.clone().requires_grad_()

    def run(target: Tensor, shares: Tensor, *tables: Tensor) -> Tensor:
        given = NeighbourShares(lists.nodes, shares, lists.present)
        return conditional_attention(AttentionTables(*tables), given, SEEDS, target)

    inputs = (target, lists.shares.clone().requires_grad_(), *random_tables())
    assert gradcheck(run, inputs)
    assert gradgradcheck(run, inputs)


def test_the_order_of_the_neighbours_does_not_matter() -> None:
    lists = random_lists(4)
    order = torch.tensor([2, 0, 3, 1])
    turned = NeighbourShares(lists.nodes[:, order], lists.shares[:, order], lists.present)
    tables = AttentionTables(*random_tables())
    found = [conditional_attention(tables, given, SEEDS, TARGET) for given in (lists, turned)]
    torch.testing.assert_close(*found)


def test_equal_shares_and_no_gates_are_a_plain_mean_for_any_target() -> None:
    lists = random_lists(3)
    lists = NeighbourShares(lists.nodes, torch.full_like(lists.shares, 0.3), lists.present)
    tables = random_tables()
    tables[2], tables[5] = torch.zeros_like(tables[2]), torch.zeros_like(tables[5])
    given = AttentionTables(*tables)
    found = conditional_attention(given, lists, SEEDS[[0, 3]], TARGET[[0, 3]])
    torch.testing.assert_close(found[0], found[1])
    unequal = NeighbourShares(lists.nodes, random_lists(3).shares, lists.present)
    found = conditional_attention(given, unequal, SEEDS[[0, 3]], TARGET[[0, 3]] * 5)
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_a_node_without_neighbours_has_its_own_part_alone() -> None:
    lists = random_lists(3)
    present = lists.present.clone()
    present[3] = False
    tables = AttentionTables(*random_tables())
    found = conditional_attention(tables, NeighbourShares(lists.nodes, lists.shares, present), SEEDS[:1], TARGET[:1])
    row = torch.nn.functional.elu(tables.seed_own[3])
    torch.testing.assert_close(found[0], row / row.norm())


@pytest.mark.parametrize("live", [True, False])
def test_any_memory_gives_the_same(live: bool) -> None:
    lists, tables = random_lists(3), random_tables()
    results = []
    for memory in (1, None):
        with torch.set_grad_enabled(live):
            found = conditional_attention(AttentionTables(*tables), lists, SEEDS, TARGET, memory=memory)
        gradients = torch.autograd.grad(found.pow(3).sum(), tables) if live else ()
        results.append((found, *gradients))
    torch.testing.assert_close(results[0], results[1])
    none = conditional_attention(AttentionTables(*tables), lists, SEEDS[:0], TARGET[:0])
    assert none.shape == (0, OUT)


def test_seeds_and_targets_must_be_as_many() -> None:
    with pytest.raises(InputError, match=r"found \(4,\) and \(3,\)"):
        conditional_attention(AttentionTables(*random_tables()), random_lists(2), SEEDS, TARGET[:3])
