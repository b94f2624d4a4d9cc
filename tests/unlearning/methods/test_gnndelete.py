"""Deletion operators: local, the identity to start from, and better at their own losses after training."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import graphrec
from graphrec.errors import InputError
from graphrec.models import BPRMF, EASE, KGCL, NCL, NGCF, SGL, LightGCL, LightGCN, SimGCL, XSimGCL
from graphrec.models.base import GraphRecommender
from graphrec.unlearning import ForgetRequest, remaining, resolve
from graphrec.unlearning.layered import layered, not_layered
from graphrec.unlearning.methods.base import Task
from graphrec.unlearning.methods.gnndelete import GNNDelete
from graphrec.unlearning.neighbourhood import balls
from tests.models.planted import planted
from tests.unlearning.methods.conformance import MethodConformance, scores


class TestGnnDelete(MethodConformance):
    method = GNNDelete(steps=10, lr=1e-2)


class TestOnTables(MethodConformance):
    method = GNNDelete(steps=10, lr=1e-2)
    model_class = BPRMF
    hparams = {"dim": 8, "lr": 0.02, "seed": 3}


class TestOnNGCF(MethodConformance):
    method = GNNDelete(steps=10, lr=1e-2)
    model_class = NGCF
    hparams = {"dim": 8, "num_layers": 2, "lr": 0.02, "seed": 3}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (LightGCN, {"num_layers": 3}),
        (LightGCN, {"num_layers": 2, "normalisation": "l1", "layer_weights": "last"}),
        (LightGCN, {"num_layers": 2, "layer_weights": "learned"}),
        (SGL, {"num_layers": 2}),
        (SimGCL, {}),
        (XSimGCL, {}),
        (LightGCL, {}),
        (NCL, {}),
        (NGCF, {"num_layers": 2}),
        (NGCF, {"num_layers": 2, "interaction": False, "combination": "mean"}),
        (BPRMF, {}),
    ],
)
def test_layers_add_up_to_the_encoder(kind: type[GraphRecommender], settings: dict[str, Any]) -> None:
    model = kind(planted(num_users=30, num_items=20, per_user=6), dim=6, **settings).eval()
    assert not_layered(kind) is None and not_layered(model) is None
    with torch.no_grad():
        made, expected = layered(model).encode(), model.encode()
    torch.testing.assert_close(made.users, expected.users)
    torch.testing.assert_close(made.items, expected.items)


def test_models_without_such_layers_are_refused() -> None:
    data = planted(num_users=30, num_items=20, per_user=6)
    assert "self-loops" in str(GNNDelete.refuses(LightGCN(data, dim=4, self_loops=True)))
    assert "different powers" in str(GNNDelete.refuses(LightGCN(data, dim=4, normalisation="left")))
    assert GNNDelete.refuses(EASE) is not None
    assert "triples" in str(GNNDelete.refuses(KGCL))


def sparse_task(steps: int = 0) -> Task:
    """A model on groups that hardly meet, and a request for one edge: its ball is a small part of the graph."""
    data = planted(num_users=60, num_items=60, groups=12, per_user=5, loyalty=0.995)
    model = LightGCN(data, dim=8, num_layers=2, lr=0.02)
    graphrec.fit(model, data, epochs=5, progress=False, select_on=None)
    edge = int(model.graph_inputs.graph[data.target].edge_id[0])
    found = resolve(ForgetRequest(edges={"__".join(data.target): (edge,)}), data)
    return Task(model, data, remaining(data, found), found)


@pytest.mark.parametrize("paper_exact", [False, True])
def test_scores_outside_the_ball_stay_bit_for_bit(paper_exact: bool) -> None:
    task = sparse_task()
    made = GNNDelete(steps=20, lr=1e-2, paper_exact=paper_exact).unlearn(task)
    ball = balls(task.model.graph_inputs.graph, task.removed, 2)[2]
    far = ~ball["user"], ~ball["item"]
    assert far[0].sum() > 5 and far[1].sum() > 5
    before, after = scores(task.model), scores(made.model)
    assert torch.equal(before[far[0]][:, far[1]], after[far[0]][:, far[1]])
    assert not torch.equal(before[ball["user"]][:, ball["item"]], after[ball["user"]][:, ball["item"]])
    assert made.facts["users_near"] == int(ball["user"].sum())


def test_training_brings_forgotten_edges_towards_non_edges() -> None:
    data = planted()
    model = LightGCN(data, dim=8, num_layers=2, lr=0.02)
    graphrec.fit(model, data, epochs=10, progress=False, select_on=None)
    store = model.graph_inputs.graph[data.target]
    chosen = store.edge_id[::40]
    found = resolve(ForgetRequest(edges={"__".join(data.target): tuple(chosen.tolist())}), data)
    task = Task(model, data, remaining(data, found), found)
    made = GNNDelete(steps=80, lr=2e-2, balance=0.5).unlearn(task)
    users, items = store.edge_index[:, ::40]

    def above_the_users_mean(table: torch.Tensor) -> float:
        return float((table[users, items] - table[users].mean(1)).mean())

    before, after = scores(model), scores(made.model)
    nothing = scores(task.rebuilt())
    assert above_the_users_mean(after) < 0.7 * above_the_users_mean(nothing) < above_the_users_mean(before)
    # The neighbourhood is held: all other scores have moved less, on average, than those of the forgotten edges.
    moved = (after - before).abs()
    assert float(moved[users, items].mean()) > 1.3 * float(moved.mean())


def test_a_second_request_acts_on_the_tables() -> None:
    first = sparse_task()
    made = GNNDelete(steps=5).unlearn(first)
    data = first.remaining
    edge = int(data.interactions("train").edge_id[7])
    found = resolve(ForgetRequest(edges={"__".join(data.target): (edge,)}), data)
    again = GNNDelete(steps=5).unlearn(Task(made.model, data, remaining(data, found), found))
    assert isinstance(again.model, BPRMF) and again.facts["users_near"] == again.facts["items_near"] == 1


def test_options_are_checked() -> None:
    for wrong in ({"steps": 0}, {"lr": 0.0}, {"balance": 2.0}, {"non_edges": "some"}, {"pairs": 0}):
        with pytest.raises(InputError):
            GNNDelete(**wrong)
