from __future__ import annotations

import math

import pytest
import torch

from graphrec.errors import InputError
from graphrec.models import BPRMF
from graphrec.models.base import PairBatch
from tests.models.conformance import ModelConformance
from tests.models.planted import planted


class TestBPRMF(ModelConformance):
    model_class = BPRMF
    hparams = {"dim": 16, "lr": 1e-2, "batch_size": 256}


def one_pair(model: BPRMF, user: int, item: int, negative: int) -> PairBatch:
    return PairBatch(
        edge_id=torch.tensor([0]),
        weight=torch.ones(1),
        users=torch.tensor([user]),
        items=torch.tensor([item]),
        negatives=torch.tensor([[negative]]),
    )


@pytest.mark.parametrize(("name", "value"), [("lr", -1.0), ("reg", -0.1), ("lr", float("inf"))])
def test_rates_below_zero_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"{name} must be a number of at least 0, found {value}"):
        BPRMF(planted(), **{name: value})


def test_equal_embeddings_lose_ln_2() -> None:
    model = BPRMF(planted(), dim=4, reg=0.0)
    torch.nn.init.ones_(model.user_embedding)
    torch.nn.init.ones_(model.item_embedding)
    assert abs(float(model.pair_loss(one_pair(model, 0, 1, 2))["rank"]) - math.log(2)) < 1e-6


def test_gradient_of_one_pair() -> None:
    """dL/dp_u = -sigmoid(-x)(q_i - q_j), with x the difference of the scores."""
    model = BPRMF(planted(), dim=4, reg=0.0)
    model.pair_loss(one_pair(model, 3, 1, 2))["rank"].backward()
    user = model.user_embedding[3].detach()
    gap = (model.item_embedding[1] - model.item_embedding[2]).detach()
    expected = -torch.sigmoid(-(user @ gap)) * gap
    torch.testing.assert_close(model.user_embedding.grad[3], expected)
    untouched = torch.ones(model.num_users, dtype=torch.bool)
    untouched[3] = False
    assert model.user_embedding.grad[untouched].abs().max() == 0


def test_the_penalty_counts_rows_with_multiplicity() -> None:
    model = BPRMF(planted(), dim=4, reg=1.0)
    batch = PairBatch(
        edge_id=torch.tensor([0, 0]),
        weight=torch.ones(2),
        users=torch.tensor([3, 3]),
        items=torch.tensor([1, 1]),
        negatives=torch.tensor([[2], [2]]),
    )
    rows = model.user_embedding[3], model.item_embedding[1], model.item_embedding[2]
    expected = 0.5 * sum(float(row.detach().square().sum()) for row in rows)
    assert abs(float(model.pair_loss(batch)["reg"].detach()) - expected) < 1e-6
