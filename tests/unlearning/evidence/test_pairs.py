"""The populations: forgotten pairs were trained on, controls never were, non-edges are in no part."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
import torch

from graphrec.unlearning import ForgetRequest, remaining, resolve
from graphrec.unlearning.evidence.pairs import PairSet, keys_of, pair_set, populations
from graphrec.unlearning.evidence.utility import distance_to, forgotten_pairs, stayed, with_pairs
from graphrec.unlearning.evidence.views import view
from tests.models.planted import planted
from tests.unlearning.evidence.scene import world


def test_each_population_is_what_it_is_called() -> None:
    here = world()
    size = here.data.num_items
    chosen = populations(here.data, here.left, [view(here.before, here.data)])
    train, left = (keys_of(pair_set(data, "train"), size) for data in (here.data, here.left))
    every = keys_of(pair_set(here.data, None), size)
    gone = keys_of(chosen.forgotten, size)
    assert chosen.asked == len(gone) == 240
    assert bool(torch.isin(gone, train).all())
    assert not bool(torch.isin(gone, left).any())
    assert bool(torch.isin(keys_of(chosen.kept, size), left).all())
    for name in ("held_out", "others"):
        keys = keys_of(getattr(chosen, name), size)
        assert bool(torch.isin(keys, every).all())
        assert not bool(torch.isin(keys, train).any())
    for name in ("matched", "random"):
        assert not bool(torch.isin(keys_of(getattr(chosen, name), size), every).any())
    own = set(chosen.forgotten.users.tolist())
    assert set(chosen.held_out.users.tolist()) <= own
    assert not set(chosen.others.users.tolist()) & own
    assert chosen.same_users == len(chosen.held_out) == 240
    pairs, places = chosen.joined()
    assert torch.equal(pairs[places["held_out"]].items, chosen.held_out.items)


def test_matched_items_are_about_as_popular_and_of_the_same_users() -> None:
    here = world()
    chosen = populations(here.data, here.left, [view(here.before, here.data)])
    assert len(chosen.matched) > 0.9 * len(chosen.forgotten)
    assert set(chosen.matched.users.tolist()) <= set(chosen.forgotten.users.tolist())
    popularity = torch.as_tensor(np.bincount(here.data.pairs("train").items, minlength=80)).double()
    gap = popularity[chosen.matched.items].mean() - popularity[chosen.forgotten.items].mean()
    drawn = popularity[chosen.random.items].mean() - popularity[chosen.forgotten.items].mean()
    assert abs(float(gap)) < abs(float(drawn)) / 2


def test_a_request_of_few_borrows_controls_from_users_like_them() -> None:
    here = world()
    request = ForgetRequest(pairs=here.request.pairs[:3])
    left = remaining(here.data, resolve(request, here.data))
    chosen = populations(here.data, left, [view(here.before, here.data)])
    assert chosen.same_users == 3
    assert len(chosen.held_out) == 50
    assert not set(keys_of(chosen.held_out, 80).tolist()) & set(keys_of(chosen.others, 80).tolist())


def test_samples_are_bounded_and_repeatable() -> None:
    here = world()
    views = [view(here.before, here.data)]
    first, second = (populations(here.data, here.left, views, max_pairs=50, seed=4) for _ in range(2))
    for name in first.NAMES:
        if name != "random":
            assert len(getattr(first, name)) <= 50
        assert torch.equal(getattr(first, name).items, getattr(second, name).items)
    other = populations(here.data, here.left, views, max_pairs=50, seed=5)
    assert not torch.equal(first.forgotten.items, other.forgotten.items)


@pytest.mark.parametrize("seed", [0, 1])
def test_distances_are_those_of_a_breadth_first_search(seed: int) -> None:
    data = planted(num_users=40, num_items=60, per_user=5, seed=seed)
    train = data.pairs("train")
    start = PairSet(torch.tensor([int(train.users[0])]), torch.tensor([int(train.items[0])]))
    graph = networkx.Graph()
    graph.add_nodes_from(("u", n) for n in range(40))
    graph.add_edges_from((("u", int(u)), ("i", int(i))) for u, i in zip(train.users, train.items, strict=True))
    ends = [("u", int(start.users[0])), ("i", int(start.items[0]))]
    found = distance_to(data, start, 3).tolist()
    steps = networkx.multi_source_dijkstra_path_length(graph, ends)
    assert found == [min(steps.get(("u", n), 4), 4) for n in range(40)]
    assert {0, 1}.issubset(found)


def test_those_who_stay_have_something_left() -> None:
    here = world()
    user = here.data.vocabularies["user"].raw[5]
    own = here.data.interactions("train")
    items = here.data.vocabularies["item"].raw[own.target[own.source == 5]]
    request = ForgetRequest(pairs=tuple((user, item) for item in items))
    left = remaining(here.data, resolve(request, here.data))
    gone = forgotten_pairs(here.data, left)
    who = stayed(here.data, left, gone, [view(here.before, here.data)])
    assert 5 not in who.users.tolist()
    assert who.emptied == 1
    assert not bool(who.groups["own"].any())
    assert bool(who.groups["touched"].any())
    full = with_pairs(who.exclude, gone, 80)
    train = here.data.pairs("train")
    assert torch.equal(full.items, torch.as_tensor(train.items.copy()))
    assert torch.equal(full.indptr, torch.as_tensor(train.indptr.copy()))
