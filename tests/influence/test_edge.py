"""The influence of edges on scores, lists and losses, against retraining and finite differences."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import graphrec
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.influence import edge_influence
from graphrec.influence.linear_objective import LinearObjective
from graphrec.influence.objective import objective
from graphrec.influence.queries import part_loss
from graphrec.models import EASE, KGAT, NGCF, LightGCN
from tests.influence.small_graph import minimum, scores, small_graph, small_model, stationary, without
from tests.models.planted import planted
from tests.models.planted_kg import tiny_kg

torch.set_num_threads(1)

EXACT: dict[str, Any] = {"gauss_newton": False, "damping": 1e-7, "tolerance": 1e-10}


@cache
def trained(layers: int = 2) -> tuple[LightGCN, RecDataset, LinearObjective]:
    """A model at a minimum of the objective, its data and the objective."""
    model = small_model(layers)
    made = objective(model, num_negatives="all", reg=0.05, positives="edge")
    assert isinstance(made, LinearObjective)
    made.theta = minimum(made)
    with torch.no_grad():
        for name, value in made.unflatten(made.theta).items():
            model.get_parameter(name).copy_(value)
    return model.eval(), small_graph(), made  # type: ignore[return-value]


def test_scores_move_as_by_retraining_in_the_limit() -> None:
    """The influence is minus the derivative in the weight, direct term included: against a true small change."""
    model, data, made = trained()
    frame = edge_influence(model, data, user=0, item=3, made=made, **EXACT).set_index("edge_id")
    before, eta = float(scores(made, made.theta)[0, 3]), 1e-4
    for edge in (0, 5, 9, 17):
        weight = made.ones()
        weight[edge] = 1 - eta
        after = float(scores(made, stationary(made, made.theta, weight), weight)[0, 3])
        assert (after - before) / eta == pytest.approx(float(frame["influence"][edge]), rel=5e-3, abs=1e-4)


def test_the_frame_ranks_edges_as_retraining_does() -> None:
    model, data, made = trained()
    truth = np.array(
        [
            float(scores(made, stationary(made, made.theta, without(made, edge)), without(made, edge))[0, 3])
            for edge in range(18)
        ]
    ) - float(scores(made, made.theta)[0, 3])
    for estimator, least in (("derivative", 0.9), ("gif", 0.95), ("newton", 0.98)):
        frame = edge_influence(model, data, user=0, item=3, made=made, estimator=estimator, **EXACT)  # type: ignore[arg-type]
        found = frame.sort_values("edge_id")["influence"].to_numpy()
        assert stats.spearmanr(found, truth).statistic > least, estimator


def test_the_call_of_the_readme() -> None:
    data = planted(
        40,
        24,
        per_user=8,
        user_ids=np.array([f"u{n}" for n in range(40)]),
        item_ids=np.array([f"i{n}" for n in range(24)]),
    )
    model = LightGCN(data, dim=8, num_layers=2, init_scale=0.5)
    frame = graphrec.influence.edge_influence(model, data, user="u17", item="i3", k=10)
    assert list(frame.columns) == ["user", "item", "edge_id", "influence"] and len(frame) == 10
    assert frame["influence"].abs().is_monotonic_decreasing and np.isfinite(frame["influence"]).all()
    everything = edge_influence(model, data, user="u17", item="i3")
    assert len(everything) == 200 and everything["edge_id"].is_unique
    assert everything.attrs["relative_residual"] <= 2e-3 and everything.attrs["gradient_norm"] > 0
    table = data.interactions("train")
    pairs = dict(
        zip(table.edge_id.tolist(), zip(table.source.tolist(), table.target.tolist(), strict=True), strict=True)
    )
    for row in everything.head(20).itertuples():
        user, item = pairs[row.edge_id]
        assert (data.vocabularies["user"].raw[user], data.vocabularies["item"].raw[item]) == (row.user, row.item)
    some = everything["edge_id"].to_numpy()[[3, 50]]
    few = edge_influence(model, data, user="u17", item="i3", edges=some)
    assert sorted(few["edge_id"]) == sorted(some)


def test_a_list_says_which_edge_drops_which_item() -> None:
    model, data, made = trained()
    k = 2
    before = scores(made, made.theta).clone()
    seen = made.model.graph_inputs.adjacency().to_dense() > 0
    order = before.masked_fill(seen, -torch.inf)[1].argsort(descending=True)
    item = int(order[k - 1])
    frame = edge_influence(model, data, user=1, item=item, target="list", k=k, estimator="newton", made=made, **EXACT)
    assert len(frame) == 18
    margin = frame.attrs["value"]
    assert margin == pytest.approx(float(before[1, item] - before[1, order[k]]), abs=1e-9)
    hits = 0
    for row in frame.itertuples():
        weight = without(made, int(row.edge_id))
        after = scores(made, stationary(made, made.theta, weight), weight).masked_fill(seen, -torch.inf)[1]
        gone = item not in after.argsort(descending=True)[:k].tolist()
        hits += gone == (row.drops == item)
        assert (row.drops == item) == (margin + row.influence < 0)
    assert hits >= 17
    anyone = edge_influence(model, data, user=1, target="list", k=k, made=made, **EXACT)
    assert set(anyone["drops"].dropna()) <= set(order[:k].tolist())


def test_the_influence_on_a_validation_loss_is_its_derivative() -> None:
    data = planted(8, 8, groups=2, per_user=6)
    model = LightGCN(data, dim=2, num_layers=1, init_scale=0.3)
    made = objective(model, num_negatives="all", reg=0.2, positives="edge")
    assert isinstance(made, LinearObjective)
    made.theta = minimum(made)
    whole = edge_influence(model, data, target="validation", part="test", made=made, **EXACT)
    assert len(whole) == made.num_edges and whole.attrs["value"] > 0
    query, eta = part_loss(made, data, "test"), 1e-4
    for place in (0, 11):
        weight = made.ones()
        weight[place] = 1 - eta
        point = stationary(made, made.theta, weight)
        change = float(query(point, weight)[0] - query(made.theta, None)[0]) / eta
        found = whole.set_index("edge_id")["influence"][int(made.edge_id[place])]
        assert change == pytest.approx(float(found), rel=1e-2, abs=1e-5)
    one = edge_influence(model, data, user=3, target="validation", part="test", made=made, k=4)
    assert len(one) == 4 and one.attrs["value"] != whole.attrs["value"]
    with pytest.raises(InputError, match="part"):
        edge_influence(model, data, target="validation", part="valid", made=made)


def test_an_edge_beyond_the_reach_of_a_query_has_no_direct_term() -> None:
    # Two components: users 0 to 2 with items 0 to 3, users 3 and 4 with items 4 to 7.
    data = small_graph([[0, 1], [1, 2], [0, 3], [4, 5], [5, 6]], num_items=8)
    model = LightGCN(data, dim=3, num_layers=2, init_scale=0.5)
    made = objective(model, num_negatives="all", reg=0.05, positives="edge")
    assert isinstance(made, LinearObjective)
    users, items = torch.tensor([0]), torch.tensor([2])
    weight = made.ones().requires_grad_()
    direct = torch.autograd.grad(made.pair_scores(made.theta, users, items, weight).sum(), weight)[0]
    assert float(direct[6:].abs().max()) == 0 and float(direct[:6].abs().max()) > 0
    still = edge_influence(model, data, user=0, item=2, estimator="nothing", made=made).sort_values("edge_id")
    assert (still["influence"].to_numpy()[6:] == 0).all() and (still["influence"].to_numpy()[:6] != 0).any()
    # Through the parameters it acts none the less: its user's negatives are the other component's items.
    frame = edge_influence(model, data, user=0, item=2, made=made).sort_values("edge_id")
    assert (frame["influence"].to_numpy()[6:] != 0).all()


def test_the_third_dependence_matters() -> None:
    model, data, made = trained()
    frozen = edge_influence(model, data, user=0, item=3, made=made, **EXACT).sort_values("edge_id")["influence"]
    other = objective(model, num_negatives="all", reg=0.05, positives="edge", negatives="readmit")
    other.theta = made.theta
    readmitted = edge_influence(model, data, user=0, item=3, made=other, **EXACT).sort_values("edge_id")["influence"]
    assert float(np.linalg.norm(readmitted.to_numpy() - frozen.to_numpy())) > 0.1 * float(np.linalg.norm(frozen))


def test_edges_of_a_knowledge_graph() -> None:
    data = tiny_kg()
    model = KGAT(data, dim=4)
    user, item = data.vocabularies["user"].raw[1], data.vocabularies["item"].raw[2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = edge_influence(model, data, user=user, item=item, edge_types="all", reg=0.05, terms="rank")
    assert list(frame.columns) == ["edge_type", "source", "target", "edge_id", "influence"]
    graph = model.graph_inputs.graph
    assert frame["edge_type"].value_counts().to_dict() == {
        "__".join(kind): graph[kind].edge_index.shape[1] for kind in graph.edge_types
    }
    triples = frame[frame["edge_type"] != "__".join(model.graph_inputs.target)]
    assert (triples["influence"] != 0).any()
    own = edge_influence(model, data, user=user, item=item, reg=0.05, terms="rank").sort_values("edge_id")
    same = frame[frame["edge_type"] == "__".join(model.graph_inputs.target)].sort_values("edge_id")
    np.testing.assert_allclose(same["influence"], own["influence"], rtol=0.05, atol=1e-4)
    with pytest.raises(InputError, match="unknown edge type"):
        edge_influence(model, data, user=user, item=item, edge_types=[("item", "liked", "item")], terms="rank")


def test_a_path_serves_as_a_model_and_other_models_go_by_double_backward(tmp_path: Path) -> None:
    data = planted(20, 12, per_user=6)
    run = graphrec.fit(NGCF(data, dim=4), data, epochs=1, ks=(5,), metric="recall@5", out=tmp_path / "run")
    by_run = edge_influence(run, data, user=3, item=5, k=5, reg=0.1)
    by_path = edge_influence(str(tmp_path / "run"), data, user=3, item=5, k=5, reg=0.1)
    assert not by_run.attrs["closed_form"]
    np.testing.assert_allclose(by_path["influence"], by_run["influence"], rtol=1e-6)


def test_bad_input_says_what_was_expected() -> None:
    model, data, made = trained()
    cases: list[tuple[str, dict[str, Any]]] = [
        ("user 99 is not in dataset", {"user": 99, "item": 1}),
        ("needs a user and an item", {"user": 1}),
        ("needs a user", {"target": "list"}),
        ("unknown target 'lists'", {"target": "lists", "user": 1}),
        ("unknown estimator", {"estimator": "gift", "user": 1, "item": 1}),
        ("k must be", {"user": 1, "item": 1, "k": 0}),
        ("no edge 77", {"user": 1, "item": 1, "edges": [77]}),
        ("training items", {"user": 1, "item": 0, "target": "list", "k": 2}),
        ("give a smaller k", {"user": 1, "target": "list", "k": 10}),
        ("would not be used", {"user": 1, "item": 1, "reg": 0.1}),
    ]
    for match, options in cases:
        with pytest.raises(InputError, match=match):
            edge_influence(model, data, made=made, **options)
    with pytest.raises(InputError, match="pass data="):
        edge_influence(model, user=1, item=1)
    with pytest.raises(InputError, match="closed form"):
        edge_influence(EASE(data), data, user=1, item=1)
