"""Injected edges against a slow search, and what they must never touch."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.datasets import Builder, RecDataset
from graphrec.errors import InputError
from graphrec.models import BPRMF
from graphrec.unlearning.injection import inject, inject_adversarial, inject_random
from tests.models.planted import planted


def pairs_of(data: RecDataset) -> set[tuple[int, int]]:
    table = data.tables[data.target]
    return set(zip(table.source.tolist(), table.target.tolist(), strict=True))


def slow_pairs(model: BPRMF, data: RecDataset) -> set[tuple[int, int]]:
    """The worst free item of every user and the worst free user of every item, one by one."""
    with torch.no_grad():
        scores = model.score(torch.arange(data.num_users)).double().numpy()
    for user, item in pairs_of(data):
        scores[user, item] = np.inf
    by_user = {(u, int(scores[u].argmin())) for u in range(data.num_users) if np.isfinite(scores[u]).any()}
    by_item = {(int(scores[:, i].argmin()), i) for i in range(data.num_items) if np.isfinite(scores[:, i]).any()}
    return by_user | by_item


@pytest.mark.parametrize("block", [7, 64])
def test_the_least_wanted_pairs_are_found(block: int) -> None:
    data = planted(30, 20, per_user=8)
    model = BPRMF(data, dim=4, init_scale=1.0)
    made = inject_adversarial(model, data, block=block)
    assert set(zip(made.users.tolist(), made.items.tolist(), strict=True)) == slow_pairs(model, data)
    assert len(set(made.users.tolist())) == 30 and len(set(made.items.tolist())) == 20


def test_what_was_there_stays_as_it_was_and_the_added_edges_are_training_edges() -> None:
    data = planted(30, 20, per_user=8)
    made = inject_adversarial(BPRMF(data, dim=4), data, users=0.5, items=0.2)
    assert made.clean is data and 15 <= len(made) <= 19
    assert made.data.without(made.edge_id).digests() == data.digests()
    assert not pairs_of(data) & set(zip(made.users.tolist(), made.items.tolist(), strict=True))
    train = made.data.interactions("train")
    place = train.positions(made.edge_id)
    np.testing.assert_array_equal(train.source[place], made.users)
    np.testing.assert_array_equal(train.target[place], made.items)
    order = np.lexsort((made.data.tables[data.target].target, made.data.tables[data.target].source))
    np.testing.assert_array_equal(order, np.arange(len(order)))


def test_a_pair_that_both_sides_choose_is_added_once() -> None:
    data = planted(30, 20, per_user=8)
    model = BPRMF(data, dim=1, init_scale=1.0)
    with torch.no_grad():  # everybody's worst item is the last, every item's worst user the last
        model.user_embedding.fill_(1.0)
        model.item_embedding.fill_(0.0)
        known = pairs_of(data)
        free = next((u, i) for u in range(30) for i in range(20) if (u, i) not in known)
        model.user_embedding[free[0]] = 2.0
        model.item_embedding[free[1]] = -1.0
    made = inject_adversarial(model, data)
    chosen = list(zip(made.users.tolist(), made.items.tolist(), strict=True))
    assert free in chosen and len(chosen) == len(set(chosen))


def test_same_seed_same_edges_and_another_seed_others() -> None:
    data = planted(60, 40)
    model = BPRMF(data, dim=4)
    first, again, other = (inject_adversarial(model, data, users=0.3, items=0.3, seed=s) for s in (1, 1, 2))
    assert first.data.fingerprint == again.data.fingerprint != other.data.fingerprint
    random = [inject_random(data, 50, seed=s).data.fingerprint for s in (1, 1, 2)]
    assert random[0] == random[1] != random[2]


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 150), seed=st.integers(0, 5))
def test_random_pairs_are_distinct_and_free(count: int, seed: int) -> None:
    data = planted(30, 20, per_user=8)
    made = inject_random(data, count, seed=seed)
    chosen = set(zip(made.users.tolist(), made.items.tolist(), strict=True))
    assert len(chosen) == len(made) == count
    assert not chosen & pairs_of(data)
    assert made.data.without(made.edge_id).digests() == data.digests()


def test_every_column_is_filled() -> None:
    frame = pd.DataFrame(
        {"u": [1, 1, 2], "i": [1, 2, 2], "r": [4.0, 3.0, 5.0], "t": [10, 30, 20], "part": ["train", "test", "train"]}
    )
    builder = Builder()
    builder.interactions(frame, user="u", item="i", rating="r", time="t", part="part")
    made = inject(builder.build(), np.array([1]), np.array([0]))
    table = made.data.tables[made.data.target]
    row = table.positions(made.edge_id)[0]
    assert np.isnan(table.rating[row]) and table.time[row] == 30 and table.part[row] == 0


def test_bad_pairs_are_refused() -> None:
    data = planted(30, 20, per_user=8)
    user, item = next(iter(pairs_of(data)))
    free = next(i for i in range(20) if (user, i) not in pairs_of(data))
    with pytest.raises(InputError, match="in the data already"):
        inject(data, np.array([user]), np.array([item]))
    with pytest.raises(InputError, match="twice"):
        inject(data, np.array([user, user]), np.array([free, free]))
    with pytest.raises(InputError, match=r"items must lie in \[0, 20\)"):
        inject(data, np.array([user]), np.array([20]))
    with pytest.raises(InputError, match="one length"):
        inject(data, np.array([user]), np.array([1, 2]))
    with pytest.raises(InputError, match="share of items"):
        inject_adversarial(BPRMF(data, dim=2), data, items=1.5)
    with pytest.raises(InputError, match="model has 30 users"):
        inject_adversarial(BPRMF(data, dim=2), planted(31, 20, per_user=8))
    with pytest.raises(InputError, match="number of injected edges"):
        inject_random(data, 0)


def test_a_user_with_every_item_gets_none() -> None:
    frame = pd.DataFrame({"u": [0, 0, 0, 1], "i": [0, 1, 2, 0]})
    builder = Builder()
    builder.interactions(frame, user="u", item="i")
    data = builder.build()
    made = inject_adversarial(BPRMF(data, dim=2), data)
    assert set(made.users.tolist()) == {1}
