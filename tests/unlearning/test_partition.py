"""Partitions against slow references: every pair sorted, every move tried, every assignment enumerated or solved."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from graphrec.datasets import RecDataset
from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.models.base import GraphInputs
from graphrec.models.shard_assignment import CUTS
from graphrec.unlearning.partitions import SLACK, make_partition
from graphrec.unlearning.partitions.capacity import fill, sum_before
from graphrec.unlearning.partitions.clustering import balanced_clusters, capacity_of, distances, interaction_clusters
from graphrec.unlearning.partitions.factors import whole_data_factors
from graphrec.unlearning.partitions.label_propagation import even_cut, label_propagation, user_neighbours
from graphrec.unlearning.partitions.transport import balanced_assignment, transport_clusters
from tests.models.planted import planted


@st.composite
def costs(draw: st.DrawFn, largest: int = 24, clusters: int = 5) -> Tensor:
    """Costs (N, K): whole numbers (many ties) or decimals."""
    count, width = draw(st.integers(1, largest)), draw(st.integers(1, clusters))
    stream = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        return torch.from_numpy(stream.integers(0, 5, (count, width)).astype(np.float64))
    return torch.from_numpy(stream.normal(size=(count, width)))


def filled_slowly(cost: Tensor, capacity: list[int], weight: list[int] | None = None) -> list[int]:
    """All pairs sorted by (cost, element, cluster), one after the other."""
    count, clusters = cost.shape
    room, chosen = list(capacity), [-1] * count
    pairs = sorted((float(cost[e, c]), e, c) for e, c in itertools.product(range(count), range(clusters)))
    for _, element, cluster in pairs:
        if chosen[element] < 0 and room[cluster] > 0:
            chosen[element] = cluster
            room[cluster] -= 1 if weight is None else weight[element]
    return chosen


@settings(max_examples=80, deadline=None)
@given(costs(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_filling_is_the_walk_through_all_sorted_pairs(cost: Tensor, spare: int, random: object) -> None:
    count, clusters = cost.shape
    capacity = [-(-count // clusters) + spare] * clusters
    capacity[0] += random.randint(0, 2)  # type: ignore[attr-defined]
    found = fill(cost, capacity)
    assert found.tolist() == filled_slowly(cost, capacity)
    assert (torch.bincount(found, minlength=clusters) <= torch.tensor(capacity)).all()


@settings(max_examples=60, deadline=None)
@given(costs(), st.integers(0, 2**31))
def test_filling_by_weight_stops_where_a_cluster_has_enough(cost: Tensor, seed: int) -> None:
    count, clusters = cost.shape
    weight = torch.randint(1, 9, (count,), generator=torch.Generator().manual_seed(seed))
    capacity = -(-int(weight.sum()) // clusters)
    found = fill(cost, capacity, weight)
    assert found.tolist() == filled_slowly(cost, [capacity] * clusters, weight.tolist())
    held = torch.zeros(clusters, dtype=torch.int64).index_add_(0, found, weight)
    assert int(held.max()) < capacity + int(weight.max())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="5 do not fit into 2 clusters with room for 4"):
        fill(torch.zeros(5, 2), 2)
    with pytest.raises(InputError, match="not finite"):
        fill(torch.tensor([[0.0, math.nan]]), 1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=30))
def test_sums_are_of_the_entries_of_the_group_before(entries: list[tuple[int, int]]) -> None:
    groups, weights = (torch.tensor([entry[n] for entry in entries], dtype=torch.int64) for n in (0, 1))
    found = sum_before(groups, weights, 5)
    assert found.tolist() == [sum(w for g, w in entries[:n] if g == group) for n, (group, _) in enumerate(entries)]


def cheapest(cost: Tensor) -> float:
    """The least cost of an assignment with sizes floor and ceil: places as columns, solved as an assignment problem."""
    count, clusters = cost.shape
    small, larger = divmod(count, clusters)
    table = cost.repeat_interleave(small, 1).numpy() if small else np.empty((count, 0))
    if larger:
        # One more place in each cluster; of these K, K - larger stay empty: taken by elements that cost nothing there.
        table = np.concatenate([table, cost.numpy()], 1)
        nobody = np.concatenate(
            [np.full((clusters - larger, small * clusters), 1e6), np.zeros((clusters - larger,) * 1 + (clusters,))], 1
        )
        table = np.concatenate([table, nobody])
    rows, columns = linear_sum_assignment(table)
    return float(table[rows, columns].sum())


@settings(max_examples=80, deadline=None)
@given(costs())
def test_the_balanced_assignment_is_the_cheapest_there_is(cost: Tensor) -> None:
    count, clusters = cost.shape
    found = balanced_assignment(cost)
    sizes = torch.bincount(found, minlength=clusters)
    assert set(sizes.tolist()) <= {count // clusters, -(-count // clusters)}
    assert float(cost.gather(1, found.unsqueeze(1)).sum()) == pytest.approx(cheapest(cost), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 80), st.integers(1, 6), st.integers(0, 1000))
def test_transport_clusters_are_even_and_their_objective_never_rises(count: int, clusters: int, seed: int) -> None:
    clusters = min(clusters, count)
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    found = transport_clusters(x, clusters, seed=seed)
    sizes = torch.bincount(found.cluster, minlength=clusters)
    assert set(sizes.tolist()) <= {count // clusters, -(-count // clusters)}
    assert all(b <= a * (1 + 1e-12) + 1e-12 for a, b in itertools.pairwise(found.objective))


def test_transport_finds_clusters_that_are_there() -> None:
    stream = torch.Generator().manual_seed(1)
    truth = torch.arange(90) % 3
    x = 8.0 * torch.eye(3)[truth] + 0.1 * torch.randn(90, 3, generator=stream)
    found = transport_clusters(x, 3).cluster
    assert all(len(set(found[truth == group].tolist())) == 1 for group in range(3))


def clustered_slowly(x: Tensor, start: Tensor, capacity: int, rounds: int) -> list[int]:
    """Balanced k-means as it is described, in loops."""
    centroids, before = x[start].clone(), None
    for _ in range(rounds):
        cost = torch.stack([torch.stack([(row - c).square().sum().sqrt() for c in centroids]) for row in x])
        chosen = filled_slowly(cost, [capacity] * len(centroids))
        if chosen == before:
            break
        before = chosen
        for cluster in range(len(centroids)):
            members = [row for row, own in zip(x, chosen, strict=True) if own == cluster]
            if members:
                centroids[cluster] = torch.stack(members).mean(0)
    assert before is not None
    return before


@pytest.mark.parametrize("seed", range(4))
def test_balanced_k_means_is_what_its_description_says(seed: int) -> None:
    from graphrec.unlearning.partitions.clustering import starting_points

    x = torch.randn(31, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    capacity = capacity_of(31, 4, 0.1)
    found = balanced_clusters(x, 4, slack=0.1, rounds=20, seed=seed)
    start = starting_points(31, 4, seed, x.device)
    assert found.tolist() == clustered_slowly(x, start, capacity, 20)
    assert int(torch.bincount(found).max()) <= capacity


def test_centroids_are_means_in_each_dimension() -> None:
    """The authors' code averages over dimensions too: two far groups then share one constant centroid each."""
    x = torch.cat([torch.tensor([[5.0, -5.0]]).repeat(10, 1), torch.tensor([[-5.0, 5.0]]).repeat(10, 1)])
    x = x + 0.01 * torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    found = balanced_clusters(x, 2, slack=0.0, seed=3)
    assert len(set(found[:10].tolist())) == 1
    assert found[0] != found[-1]


@pytest.mark.parametrize("seed", range(3))
def test_interactions_are_clustered_by_the_product_of_distances(seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    users, items = (torch.randn(n, 3, dtype=torch.float64, generator=stream) for n in (6, 7))
    edges = torch.stack([torch.randint(0, 6, (25,), generator=stream), torch.randint(0, 7, (25,), generator=stream)])
    found = interaction_clusters(users, items, edges, 3, slack=0.2, rounds=1, seed=seed)
    from graphrec.unlearning.partitions.clustering import starting_points

    start = starting_points(25, 3, seed, users.device)
    cost = torch.tensor(
        [
            [float((users[u] - users[edges[0, s]]).norm() * (items[i] - items[edges[1, s]]).norm()) for s in start]
            for u, i in edges.T.tolist()
        ],
        dtype=torch.float64,
    )
    assert found.tolist() == filled_slowly(cost, [capacity_of(25, 3, 0.2)] * 3)
    more = interaction_clusters(users, items, edges, 3, slack=0.2, rounds=2, seed=seed)
    means = [(users[edges[0, found == c]].mean(0), items[edges[1, found == c]].mean(0)) for c in range(3)]
    cost = torch.stack(
        [
            distances(users, torch.stack([m[0] for m in means]))[edges[0]]
            * distances(items, torch.stack([m[1] for m in means]))[edges[1]]
        ]
    )[0]
    assert more.tolist() == filled_slowly(cost, [capacity_of(25, 3, 0.2)] * 3)


def moved_slowly(weights: np.ndarray, labels: list[int], clusters: int, capacity: int, rounds: int) -> list[int]:
    """Balanced label propagation in loops over nodes; ``weights`` (N, N) without a diagonal."""
    labels, count = list(labels), len(labels)
    for _ in range(rounds):
        votes = np.zeros((count, clusters))
        for node, other in itertools.product(range(count), range(count)):
            votes[node, labels[other]] += weights[node, other]
        asking = [n for n in range(count) if votes[n].max() > votes[n, labels[n]] * (1 + 1e-5) + 1e-7]
        asking.sort(key=lambda node: (-votes[node].max(), node))
        wanted, moved = votes.argmax(1), 0
        while True:
            room = [capacity - labels.count(cluster) for cluster in range(clusters)]
            granted = []
            for node in asking:
                if room[wanted[node]] > 0:
                    room[wanted[node]] -= 1
                    granted.append(node)
            if not granted:
                break
            for node in granted:
                labels[node] = int(wanted[node])
            asking = [node for node in asking if node not in granted]
            moved += len(granted)
        if not moved:
            break
    return labels


@pytest.mark.parametrize("seed", range(4))
def test_label_propagation_is_what_its_description_says(seed: int) -> None:
    from graphrec import randomness

    stream = np.random.default_rng(seed)
    weights = np.triu(stream.integers(0, 3, (24, 24)), 1)
    weights = (weights + weights.T).astype(np.float64)
    table = torch.from_numpy(weights).float()
    found = label_propagation(lambda labels: table @ labels, 24, 3, slack=0.2, rounds=10, seed=seed)
    bits = randomness.hash_bits(randomness.derive(seed, "cut"), torch.arange(24))
    capacity = capacity_of(24, 3, 0.2)
    assert found.tolist() == moved_slowly(weights, even_cut(bits, 3).tolist(), 3, capacity, 10)
    assert int(torch.bincount(found).max()) <= capacity


def test_users_vote_for_each_other_by_the_items_they_share() -> None:
    edges = torch.tensor([[0, 0, 1, 1, 2], [0, 1, 0, 2, 2]])
    votes = user_neighbours(Adjacency.from_edges(edges, (3, 4)))(torch.eye(3))
    # Item 0 is of users 0 and 1, item 2 of 1 and 2; item 1 is of user 0 alone, who has no vote for oneself.
    expected = torch.tensor([[0.0, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.0]])
    torch.testing.assert_close(votes, expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9))
def test_an_even_cut_is_even(count: int, clusters: int) -> None:
    sizes = torch.bincount(even_cut(torch.randperm(count), clusters), minlength=clusters)
    assert int(sizes.sum()) == count
    assert int(sizes.max() - sizes.min()) <= 1


def test_capacity_has_room_for_everybody() -> None:
    assert capacity_of(100, 10, 0.2) == 12
    assert capacity_of(943, 10, 0.005) == 95
    assert capacity_of(7, 3, 0.0) == 3
    with pytest.raises(InputError, match="slack"):
        capacity_of(7, 3, -0.1)


def test_factors_are_where_their_gradient_is_zero() -> None:
    """The last side that was solved is at the minimum of the dense objective."""
    stream = torch.Generator().manual_seed(4)
    dense = (torch.rand(12, 9, generator=stream) < 0.3).double()
    adj = Adjacency.from_edges(dense.nonzero().T, (12, 9))
    users, items = whole_data_factors(adj, dim=3, negative_weight=0.1, reg=0.05, sweeps=4)
    q = items.double().requires_grad_()
    weight = torch.where(dense > 0, 1.0, 0.1)
    loss = (weight * (dense - users.double() @ q.T).square()).sum() + 0.05 * (q.square().sum())
    (gradient,) = torch.autograd.grad(loss, q)
    assert float(gradient.abs().max()) < 1e-4


@pytest.fixture(scope="module")
def data() -> RecDataset:
    return planted()


@pytest.mark.parametrize(
    ("partition", "by"), [(name, by) for name, cuts in CUTS.items() for by in cuts if name not in ("hash", "random")]
)
def test_every_partition_keeps_its_capacity_and_its_seed(data: RecDataset, partition: str, by: str) -> None:
    inputs = GraphInputs.from_dataset(data)
    found = make_partition(partition, by, inputs, 4, dim=8, seed=5)
    count = {"user": data.num_users, "item": data.num_items, "interaction": len(data.interactions("train"))}[by]
    assert found.shape == (count,)
    sizes = torch.bincount(found, minlength=4)
    assert int(sizes.max()) <= capacity_of(count, 4, SLACK.get(partition, 0.0))
    assert torch.equal(found, make_partition(partition, by, inputs, 4, dim=8, seed=5))


@pytest.mark.parametrize(("partition", "by"), [("blpa", "user"), ("bekm", "user"), ("ibp", "item")])
def test_parts_can_be_even_in_interactions(data: RecDataset, partition: str, by: str) -> None:
    inputs = GraphInputs.from_dataset(data)
    found = make_partition(partition, by, inputs, 4, dim=8, slack=0.05, balance="edges")
    degree = inputs.adjacency().degrees(0 if by == "user" else 1)
    held = torch.zeros(4, dtype=torch.int64).index_add_(0, found, degree)
    start = int(degree.max())  # label propagation starts even in nodes
    assert int(held.max()) < capacity_of(int(degree.clamp_min(1).sum()), 4, 0.05) + start
    with pytest.raises(InputError, match="balance"):
        make_partition(partition, by, inputs, 4, balance="edge")


@pytest.mark.parametrize("partition", ["blpa", "bekm", "transport"])
def test_people_of_one_taste_come_together(data: RecDataset, partition: str) -> None:
    """Pairs of users of one planted group share a shard more often than pairs of users of two."""
    found = make_partition(partition, "user", GraphInputs.from_dataset(data), 4, dim=8, slack=0.1)
    group = torch.arange(data.num_users) % 4
    together = found[:, None] == found[None, :]
    alike = group[:, None] == group[None, :]
    apart = ~torch.eye(data.num_users, dtype=torch.bool)
    assert together[alike & apart].float().mean() > 1.5 * together[~alike].float().mean()


def test_a_partition_that_does_not_exist_is_refused(data: RecDataset) -> None:
    inputs = GraphInputs.from_dataset(data)
    with pytest.raises(InputError, match="'bekm'"):
        make_partition("bekn", "user", inputs, 4)
    with pytest.raises(InputError, match="cuts by interaction, found by='user'"):
        make_partition("inbp", "user", inputs, 4)
    with pytest.raises(InputError, match="made from the data"):
        make_partition("hash", "user", inputs, 4)
