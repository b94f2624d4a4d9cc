"""Score statistics against scipy and by hand; models of other id tables; fairness groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphrec
from graphrec.errors import InputError
from graphrec.evaluation import rank
from graphrec.serving import Recommender
from graphrec.unlearning import ForgetRequest, compacted, resolve
from graphrec.unlearning.evidence.fairness import active_users, fairness_measures
from graphrec.unlearning.evidence.scores import kolmogorov_smirnov, separation
from graphrec.unlearning.evidence.views import view
from tests.models.planted import planted
from tests.unlearning.evidence.scene import world

NUMBERS = st.lists(st.integers(-4, 4), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(NUMBERS, NUMBERS)
def test_kolmogorov_smirnov_is_the_largest_distance_of_the_shares_below(first: list[int], second: list[int]) -> None:
    a, b = torch.tensor(first).double(), torch.tensor(second).double()
    shares = [[sum(v <= x for v in one) / len(one) for x in range(-5, 6)] for one in (first, second)]
    assert kolmogorov_smirnov(a, b) == pytest.approx(max(abs(p - q) for p, q in zip(*shares, strict=True)))
    assert kolmogorov_smirnov(a, a) == 0


def test_separation_of_nothing_is_no_number() -> None:
    assert math.isnan(separation(torch.empty(0), torch.ones(2)))
    assert math.isnan(kolmogorov_smirnov(torch.empty(0), torch.ones(2)))
    assert separation(torch.tensor([2.0, 3.0]), torch.tensor([1.0])) == 1


def test_a_view_gives_the_models_own_scores_under_other_numbers() -> None:
    here = world()
    request = ForgetRequest(users=("person-000", "person-100"), items=("thing-003",))
    short = compacted(here.data, resolve(request, here.data))
    model = graphrec.models.BPRMF(short, dim=8).eval()
    seen = view(Recommender(model, short.vocabularies), here.data)
    assert seen.users[0] == seen.users[100] == seen.items[3] == -1
    assert int((seen.users >= 0).sum()) == 158
    users = torch.tensor([1, 99, 101])
    with torch.no_grad():
        own = model.score(seen.users[users])
        found = seen.scorer()(users)
    keep = np.delete(np.arange(80), 3)
    assert torch.equal(found[:, keep], own)
    assert bool((found[:, 3] == -torch.inf).all())
    lists, _ = rank(seen.scores, users, 10)
    raw = here.data.vocabularies["item"].raw[lists.numpy()]
    again = Recommender(model, short.vocabularies).recommend(
        here.data.vocabularies["user"].raw[users.numpy()], 10, exclude_seen=False
    )
    assert raw.reshape(-1).tolist() == again["item"].tolist()
    assert bool((seen.tables()["user_embedding"][0] == 0).all())
    assert torch.equal(seen.tables()["user_embedding"][1], model.user_embedding[seen.users[1]])


def test_a_model_without_representations_is_seen_by_its_scores() -> None:
    data = planted(num_users=40, num_items=30, per_user=8)
    model = graphrec.models.ItemKNN(data)
    model.solve()
    seen = view(model.eval(), data)
    assert seen.encoded is None or torch.equal(seen.scorer()(torch.arange(40)), model.score(torch.arange(40)))
    lists, _ = rank(seen.scores, torch.arange(40), 5)
    assert torch.equal(lists, rank(model, torch.arange(40), 5)[0])


def test_models_of_other_people_are_refused() -> None:
    here = world()
    other = planted(num_users=50, num_items=80)
    model = graphrec.models.BPRMF(other, dim=4)
    with pytest.raises(InputError, match="brings no ids"):
        view(model, here.data)
    with pytest.raises(InputError, match="dataset 'dataset' lacks"):
        view(Recommender(model, other.vocabularies), here.data)


def test_active_users_are_the_top_share() -> None:
    activity = torch.tensor([5, 9, 1, 9, 2, 3, 4, 4, 4, 4])
    assert active_users(activity, 0.2).nonzero().flatten().tolist() == [1, 3]
    assert active_users(activity, 0.1).nonzero().flatten().tolist() == [1]
    values = {"before": [{"ndcg@20": torch.arange(10).double()}], "retrained": [{"ndcg@20": torch.ones(10).double()}]}
    found = {(one.metric, one.row, one.group): one.value for one in fairness_measures(values, activity, ["ndcg@20"])}
    assert found["ndcg@20", "before", "active"] == 1
    assert found["ndcg@20", "before", "inactive"] == pytest.approx(44 / 9)
    assert found["ndcg@20/gap", "before", "all"] == pytest.approx(1 - 44 / 9)
    assert found["ndcg@20/gap", "retrained", "all"] == 0
    assert fairness_measures(values, activity[:1], ["ndcg@20"]) == []
