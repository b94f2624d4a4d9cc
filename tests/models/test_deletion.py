"""A trained model on fewer edges is the one that a smaller dataset gives, with the same parameters."""

from __future__ import annotations

import pytest
import torch

from graphrec.errors import InputError
from graphrec.models import EASE, KGCN, KGIN, LightGCN
from graphrec.models.base import GraphRecommender
from graphrec.models.deletion import inputs_without, without_edges
from tests.models.conformance import scores, trained
from tests.models.planted_kg import planted_kg

TO_ENTITY = ("item", "related", "entity")


@pytest.mark.parametrize("model_class", [EASE, KGIN, LightGCN])
def test_as_if_built_on_the_smaller_dataset(model_class: type[GraphRecommender]) -> None:
    data = planted_kg()
    hparams = {} if model_class is EASE else {"dim": 8}
    model = trained(model_class(data, **hparams), 2)
    removed = {data.target: torch.as_tensor(data.pairs("train").edge_id[5:40].copy())}
    if model_class is KGIN:
        removed[TO_ENTITY] = torch.as_tensor(data.table(TO_ENTITY).edge_id[::7].copy())
    before = scores(model).clone()
    found = without_edges(model, removed)
    expected = model_class(data.without({kind: ids.numpy() for kind, ids in removed.items()}), **hparams)
    if expected.phases():
        expected.load_state_dict(model.state_dict())
        expected.eval()
    else:
        expected.solve()
    torch.testing.assert_close(scores(found), scores(expected))
    assert not torch.allclose(scores(found), before)
    assert torch.equal(scores(model), before)  # the model that was given is as it was
    torch.testing.assert_close(scores(without_edges(model, {})), before)


def test_edges_that_are_not_there_are_refused() -> None:
    data = planted_kg()
    model = KGIN(data, dim=4)
    with pytest.raises(InputError, match="no edge 99999"):
        without_edges(model, {TO_ENTITY: torch.tensor([99999])})
    with pytest.raises(InputError, match="user__trusts__user"):
        without_edges(model, {("user", "trusts", "user"): torch.tensor([1])})


def test_labelled_pairs_go_with_their_edges() -> None:
    data = planted_kg().draw_negatives(1, seed=3)
    model = KGCN(data, dim=4)
    labelled = model.graph_inputs.labelled
    assert labelled is not None
    gone = labelled.edge_id[[0, 3, 10, 40]]
    assert set(labelled.labels[[0, 3, 10, 40]].tolist()) == {0.0, 1.0}, "a drawn negative among them is no edge"
    left = inputs_without(model.graph_inputs, {data.target: gone}).labelled
    expected = KGCN.inputs(data.without(gone.numpy()), dim=4).labelled
    assert left is not None and expected is not None
    for name, values in vars(expected).items():
        assert torch.equal(getattr(left, name), values), name
