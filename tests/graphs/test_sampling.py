"""Samplers: what is drawn is allowed, uniform, and does not move when other edges go."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.augment import keep_edges
from graphrec.graphs.sampling import nth_absent, positive_pairs, sample_negatives, shared_negatives
from tests.graphs.strategies import bipartite


def random_matrix(users: int, items: int, edges: int, seed: int = 0) -> Adjacency:
    stream = torch.Generator().manual_seed(seed)
    flat = torch.randperm(users * items, generator=stream)[:edges]
    return Adjacency.from_edges(torch.stack([flat // items, flat % items]), (users, items))


def is_uniform(counts: Tensor, expected: Tensor | None = None) -> bool:
    share = None if expected is None else (expected / expected.sum() * counts.sum()).numpy()
    return stats.chisquare(counts.double().numpy(), share).pvalue > 1e-3


@settings(deadline=None, max_examples=60)
@given(bipartite(), st.integers(1, 4), st.integers(0, 10))
def test_negatives_are_never_edges(case: tuple[Tensor, tuple[int, int]], count: int, seed: int) -> None:
    edges, shape = case
    adj = Adjacency.from_edges(edges, shape)
    users = torch.arange(shape[0]).repeat(3)
    drawn = sample_negatives(adj, users, count, seed=seed)
    assert drawn.shape == (len(users), count)
    assert int(drawn.min()) >= 0 and int(drawn.max()) < shape[1]
    there = adj.to_dense() > 0
    full = there.all(1)
    assert not (there[users[:, None], drawn] & ~full[users][:, None]).any()
    assert torch.equal(drawn, sample_negatives(adj, users, count, seed=seed))


def test_negatives_are_uniform_over_what_is_left() -> None:
    adj = random_matrix(2, 30, 25, seed=3)
    draws = 30000
    for user in range(2):
        drawn = sample_negatives(adj, torch.full((draws // 10,), user), 10, seed=user)
        left = ~adj.contains(torch.full((30,), user), torch.arange(30))
        assert is_uniform(torch.bincount(drawn.flatten(), minlength=30)[left])


def test_users_with_almost_everything_are_drawn_exactly() -> None:
    # 2,000 items of which the user lacks three: rejection alone would hardly ever end.
    missing = torch.tensor([0, 777, 1999])
    items = torch.tensor([i for i in range(2000) if i not in missing.tolist()])
    adj = Adjacency.from_edges(torch.stack([torch.zeros_like(items), items]), (1, 2000))
    drawn = sample_negatives(adj, torch.zeros(3000, dtype=torch.int64), 1, seed=5).flatten()
    assert set(drawn.tolist()) == set(missing.tolist())
    assert is_uniform(torch.bincount(drawn)[missing])


@settings(deadline=None, max_examples=60)
@given(bipartite())
def test_nth_absent_against_a_loop(case: tuple[Tensor, tuple[int, int]]) -> None:
    edges, shape = case
    adj = Adjacency.from_edges(edges, shape)
    for row in range(shape[0]):
        absent = torch.nonzero(adj.to_dense()[row] == 0)[:, 0]
        ranks = torch.arange(len(absent))
        assert torch.equal(nth_absent(adj, torch.full_like(ranks, row), ranks), absent)


def test_saturated_users_have_a_policy() -> None:
    adj = Adjacency.from_edges(torch.tensor([[0, 0, 1], [0, 1, 0]]), (2, 2))
    drawn = sample_negatives(adj, torch.zeros(400, dtype=torch.int64), 1, seed=0)
    assert is_uniform(torch.bincount(drawn.flatten(), minlength=2))
    with pytest.raises(InputError, match="user 0 has an edge to every item"):
        sample_negatives(adj, torch.tensor([1, 0]), 1, seed=0, saturated="error")
    assert sample_negatives(adj, torch.tensor([1]), 1, seed=0, saturated="error").tolist() == [[1]]


def test_user_mode_draws_users_and_their_items_uniformly() -> None:
    # User 0 has 40 items, user 1 has 1, user 2 none, user 3 has 9: each of the three is drawn a third of the time.
    rows = torch.tensor([0] * 40 + [1] + [3] * 9)
    cols = torch.cat([torch.arange(40), torch.tensor([7]), torch.arange(9)])
    adj = Adjacency.from_edges(torch.stack([rows, cols]), (4, 40), edge_id=torch.arange(50) + 1000)
    drawn = [positive_pairs(adj, positives="user", seed=seed) for seed in range(300)]
    assert len(drawn[0].users) == 50
    users, items, edge = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    assert is_uniform(torch.bincount(users, minlength=4)[[0, 1, 3]]) and not (users == 2).any()
    assert is_uniform(torch.bincount(items[users == 0], minlength=40))
    assert torch.equal(rows[edge - 1000], users) and torch.equal(cols[edge - 1000], items)


def test_edge_mode_is_a_permutation_of_the_edges() -> None:
    adj = random_matrix(20, 30, 200)
    pairs = positive_pairs(adj, positives="edge", seed=1)
    assert sorted(pairs.edge.tolist()) == list(range(200))
    first = torch.stack([positive_pairs(adj, positives="edge", seed=seed).edge[0] for seed in range(2000)])
    assert is_uniform(torch.bincount(first, minlength=200))
    with pytest.raises(InputError, match="Did you mean 'edge'"):
        positive_pairs(adj, positives="edges", seed=1)


def test_taking_an_edge_away_moves_nothing_else_in_edge_mode() -> None:
    adj = random_matrix(20, 30, 200)
    rows, cols = adj.rows().long(), adj.col.long()
    gone = 77
    kept = torch.arange(200) != gone
    less = Adjacency.from_edges(torch.stack([rows[kept], cols[kept]]), adj.shape, edge_id=torch.arange(200)[kept])
    before, after = (positive_pairs(matrix, positives="edge", seed=9) for matrix in (adj, less))
    same = [(int(u), int(i)) for u, i in zip(before.users, before.items, strict=True)]
    same.remove((int(rows[gone]), int(cols[gone])))
    assert same == [(int(u), int(i)) for u, i in zip(after.users, after.items, strict=True)]
    negatives = {
        (int(u), int(i)): n.tolist()
        for u, i, n in zip(
            before.users, before.items, sample_negatives(adj, before.users, 3, seed=9, keys=before.items), strict=True
        )
    }
    again = sample_negatives(less, after.users, 3, seed=9, keys=after.items)
    for user, item, drawn in zip(after.users.tolist(), after.items.tolist(), again.tolist(), strict=True):
        # Only the user who lost an item may be given that very item now.
        if user != int(rows[gone]):
            assert negatives[user, item] == drawn


def test_order_of_the_edge_list_does_not_matter() -> None:
    adj = random_matrix(10, 12, 50)
    edges = torch.stack([adj.rows().long(), adj.col.long()])
    shuffle = torch.randperm(50)
    other = Adjacency.from_edges(edges[:, shuffle], adj.shape)
    for positives in ("user", "edge"):
        left, right = (positive_pairs(matrix, positives=positives, seed=4) for matrix in (adj, other))
        assert torch.equal(left.users, right.users) and torch.equal(left.items, right.items)


def test_shared_negatives_are_uniform_and_differ_between_batches() -> None:
    adj = random_matrix(3, 20, 10)
    drawn = torch.stack([shared_negatives(adj, 50, seed=1, batch=batch) for batch in range(200)])
    assert is_uniform(torch.bincount(drawn.flatten(), minlength=20))
    assert not torch.equal(drawn[0], drawn[1])


def test_no_edges_is_an_error() -> None:
    empty = Adjacency.from_edges(torch.empty(2, 0, dtype=torch.int64), (3, 4))
    with pytest.raises(InputError, match="no edges"):
        positive_pairs(empty, seed=0)
    assert sample_negatives(empty, torch.tensor([0, 1]), 2, seed=0).shape == (2, 2)


def test_edge_dropout_is_each_edge_for_itself() -> None:
    adj = random_matrix(50, 60, 2000)
    kept = keep_edges(adj, 0.3, seed=2)
    assert abs(float(kept.double().mean()) - 0.7) < 0.05
    rows, cols = adj.rows().long(), adj.col.long()
    less = Adjacency.from_edges(torch.stack([rows[5:], cols[5:]]), adj.shape)
    stored = kept[adj.edge_positions()]
    assert torch.equal(keep_edges(less, 0.3, seed=2), stored[5:])
    assert keep_edges(adj, 0.0, seed=1).all()
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    square = Adjacency.from_edges(edges, (3, 3), symmetric=True)
    for seed in range(20):
        both = keep_edges(square, 0.5, seed=seed)
        assert both[0] == both[1] and both[2] == both[3]
    with pytest.raises(InputError, match=r"\[0, 1\)"):
        keep_edges(adj, 1.0, seed=0)
