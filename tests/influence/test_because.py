"""Because you interacted with …: what is said of an interaction is what its removal does, for every kind of model."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import graphrec
from graphrec.cli import main
from graphrec.cli.output import figures
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.influence import explain
from graphrec.influence.because import because
from graphrec.influence.converge import converge
from graphrec.influence.objective import objective
from graphrec.influence.page import because_sentence, columns_sentence, page
from graphrec.influence.trust import Trust
from graphrec.models.base import GraphRecommender
from graphrec.reports.explanation import Because, Explanation, Node, Support
from tests.models.conformance import trained
from tests.models.planted import planted
from tests.models.planted_kg import planted_kg

BECAUSE = importlib.import_module("graphrec.influence.because")


@pytest.fixture(scope="module")
def data() -> RecDataset:
    return planted(num_users=60, num_items=30, per_user=9)


@pytest.fixture(scope="module")
def model(data: RecDataset) -> GraphRecommender:
    return trained(graphrec.models.LightGCN(data, dim=8, num_layers=2, lr=2e-2, reg=1e-2), 25)


def best(model: GraphRecommender, data: RecDataset, user: int) -> int:
    return int(graphrec.Recommender(model, data.vocabularies).recommend([user], k=1)["item"][0])


def test_a_drop_is_that_of_deletion(data: RecDataset, model: GraphRecommender) -> None:
    item = best(model, data, 3)
    found = because(model, data, 3, item, k=3, controls=2)
    assert found.by == "influence"
    assert found.interactions == found.candidates == 6
    assert len(found.supports) == 3
    assert len(found.controls) == 2
    influences = [one.influence for one in found.supports]
    assert influences == sorted(influences)  # type: ignore[type-var]
    assert found.facts["relative_residual"] <= 2e-3
    pairs = data.pairs("train")
    span = slice(pairs.indptr[3], pairs.indptr[4])
    own = dict(zip(pairs.edge_id[span].tolist(), pairs.items[span].tolist(), strict=True))
    users, items = torch.tensor([3]), torch.tensor([item])
    with torch.no_grad():
        whole = float(model.score(users, items))
        for one in found.supports:
            assert own[one.edge_id] == one.item.id
            smaller = graphrec.models.LightGCN(data.without([one.edge_id]), dim=8, num_layers=2)
            smaller.load_state_dict(model.state_dict())
            assert one.deleted == pytest.approx(whole - float(smaller.eval().score(users, items)), abs=1e-5)
    # What is said to support the item costs more than what is drawn from the user's other interactions.
    assert found.supports[0].unlearned is not None
    assert found.supports[0].loss > np.mean(found.controls)
    assert found.supports[0].item.name is None
    assert str(found.supports[0].item) in found.sentence()


def test_own_groups_interactions_support_an_item_of_the_group(data: RecDataset, model: GraphRecommender) -> None:
    """Over users, interactions within the item's planted group come first more often than their share."""
    shares, first = [], []
    pairs = data.pairs("train")
    for user in range(0, 60, 6):
        item = best(model, data, user)
        own = pairs.items[pairs.indptr[user] : pairs.indptr[user + 1]]
        shares.append(float((own % 4 == item % 4).mean()))
        first.append(because(model, data, user, item, k=1, controls=0).supports[0].item.id % 4 == item % 4)
    assert np.mean(first) >= np.mean(shares)


def test_models_without_propagation_and_closed_forms(data: RecDataset) -> None:
    factors = trained(graphrec.models.BPRMF(data, dim=8, lr=2e-2), 60)
    found = because(factors, data, 3, 5, k=2)
    assert found.by == "influence"
    assert [one.deleted for one in found.supports] == [0.0, 0.0]
    assert all(one.unlearned for one in found.supports)

    ease = graphrec.models.EASE(data)
    ease.solve()
    found = because(ease, data, 3, 5, k=2)
    assert found.by == "solved again"
    for one in found.supports:
        assert one.unlearned is None
        again = graphrec.models.EASE(data.without([one.edge_id]))
        again.solve()
        lost = float(ease.score(torch.tensor([3]))[0, 5] - again.score(torch.tensor([3]))[0, 5])
        assert one.deleted == pytest.approx(lost, abs=1e-5)
    with pytest.raises(InputError, match="closed form"):
        because(ease, data, 3, 5, by="influence")


def test_by_deletion_the_nearest_candidates_are_tried(data: RecDataset, model: GraphRecommender) -> None:
    found = because(model, data, 3, best(model, data, 3), k=6, by="deletion", most=4, controls=0)
    assert found.by == "deletion"
    assert (found.candidates, found.interactions, len(found.supports)) == (4, 6, 4)
    drops = [one.deleted for one in found.supports]
    assert drops == sorted(drops, reverse=True)
    assert all(one.influence is None and one.unlearned is None for one in found.supports)
    with pytest.raises(InputError, match="Did you mean"):
        because(model, data, 3, 4, by="delete")  # type: ignore[arg-type]


def test_a_user_without_interactions(data: RecDataset) -> None:
    table = data.interactions("train")
    emptied = data.without(table.edge_id[table.source == 3])
    model = graphrec.models.LightGCN(emptied, dim=4)
    found = because(model, emptied, 3, 5)
    assert found.supports == ()
    assert found.interactions == 0
    assert "No single training interaction" in found.sentence()


def test_a_model_with_a_knowledge_graph_has_both() -> None:
    data = planted_kg()
    model = trained(graphrec.models.KGIN(data, dim=8, lr=1e-2), 2)
    found = explain(model, data, user=3, item=7, k=2, controls=1, interactions=2)
    assert len(found.paths) == 2
    assert found.because is not None
    assert len(found.because.supports) == 2
    shown = page(found)
    assert "<h2>Because</h2>" in shown
    assert "<h2>Paths</h2>" in shown
    assert explain(model, data, user=3, item=7, k=1, controls=0, interactions=0).because is None


def test_the_command_on_a_model_without_a_knowledge_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", "world", "--epochs", "2", "--out", str(tmp_path / "run"), "--model.dim", "8"]
    assert main(["train", "--model", "LightGCN", *words]) == 0
    capsys.readouterr()
    run = graphrec.Run.open(tmp_path / "run")
    item = int(graphrec.Recommender.from_pretrained(run).recommend([5], k=1)["item"][0])
    file = tmp_path / "why.html"
    asked = ["explain", str(tmp_path / "run"), "--user", "5", "--item", str(item), "--interactions", "2"]
    assert main([*asked, "--json", "--out", str(file)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rank"] == 1
    assert found["paths"] == []
    supports = found["because"]["supports"]
    assert len(supports) == 2
    pairs = run.dataset().pairs("train")
    assert {one["item"] for one in supports} <= set(pairs.items[pairs.indptr[5] : pairs.indptr[6]].tolist())
    shown = file.read_text(encoding="utf-8")
    assert supports[0]["item_name"] in shown
    assert "<h2>Because</h2>" in shown
    assert "<h2>Paths</h2>" not in shown
    assert "http://" not in shown
    assert "https://" not in shown
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "Because of the user's training interactions" in printed
    assert supports[0]["item_name"] in printed
    assert "no paths" in printed


def test_a_barely_trained_model_is_not_explained_by_influence(data: RecDataset) -> None:
    barely = trained(graphrec.models.LightGCN(data, dim=8, num_layers=2, lr=1e-3, reg=1e-6), 1)
    item = best(barely, data, 3)
    found = because(barely, data, 3, item, k=2, controls=1)
    assert found.by == "deletion"
    assert "Not ranked by influence" in found.note
    assert found.note in because_sentence(found)
    assert all(one.influence is None and one.unlearned is None for one in found.supports)
    with pytest.warns(UserWarning, match="not to be believed"):
        asked = because(barely, data, 3, item, k=2, controls=1, by="influence")
    assert asked.by == "influence"
    with torch.no_grad():
        span = float(np.ptp(barely.score(torch.tensor([3]))[0].numpy()))
    assert asked.facts["span"] == pytest.approx(span, rel=1e-4)
    assert abs(asked.facts["drift"]) > span
    again = Because.from_dict(json.loads(json.dumps(asked.to_dict())))
    assert again.note == asked.note


def test_at_a_minimum_there_is_no_drift(data: RecDataset) -> None:
    """The same model driven to the last digits of its objective: its estimates are held to be good."""
    model = trained(graphrec.models.BPRMF(data, dim=4, lr=2e-2, reg=1e-1), 5)
    made = objective(model, data, terms="rank", num_negatives=1, seed=0)
    end = converge(
        made.value, made.gradient, lambda point: made.curvature(point, gauss_newton=False), made.theta, tolerance=1e-4
    )
    assert end.converged
    found = because(made.recommender(end.theta).float(), data, 3, 5, k=2, controls=0)
    assert found.by == "influence"
    assert found.note == ""
    assert abs(found.facts["drift"]) < 1e-2 * found.facts["span"]


def test_what_is_refused_and_what_is_cautioned() -> None:
    good = Trust(drift=0.1, span=8.0, spread=1.5, largest=1.0, residual=1e-3, tolerance=1e-3)
    assert good.refused() == ""
    assert good.caution() == ""
    assert "not solved" in replace(good, residual=0.5).refused()
    assert "not solved" in replace(good, residual=float("nan")).refused()
    assert "far from a minimum" in replace(good, drift=-9.0).refused()
    assert "one interaction" in replace(good, largest=70.9).refused()
    rough = replace(good, drift=-2.0)
    assert rough.refused() == ""
    assert "order" in rough.caution()


def test_a_model_built_anew_for_each_deletion_tries_few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BECAUSE, "_DOUBLE_BACKWARD_UP_TO", 10)
    data = planted_kg()
    model = trained(graphrec.models.DiffKG(data, dim=8, lr=1e-2, main="pruned"), 1)
    pairs = data.pairs("train")
    user = int(np.argmax(np.diff(pairs.indptr)))
    chosen = because(model, data, user, 7, k=1, controls=2)
    assert chosen.by == "deletion"
    assert chosen.candidates == 3
    assert because(model, data, user, 7, k=1, controls=2, by="deletion").candidates > 3


def test_large_graphs_are_ranked_by_deletion(data: RecDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained(graphrec.models.NGCF(data, dim=8, lr=1e-2), 1)
    monkeypatch.setattr(BECAUSE, "_DOUBLE_BACKWARD_UP_TO", 10)
    found = because(model, data, 3, 7, k=2)
    assert found.by == "deletion"
    assert found.note == ""
    factors = trained(graphrec.models.BPRMF(data, dim=8, lr=2e-2), 60)
    assert because(factors, data, 3, 5, k=1).by == "influence"
    monkeypatch.setattr(BECAUSE, "_WRITTEN_OUT_UP_TO", 10)
    # The rows of factors are parameters themselves.
    few = because(factors, data, 3, 5, k=1, most=2)
    assert few.candidates == 2
    assert "Deletion shows nothing" in few.note
    assert because(factors, data, 3, 5, k=1).by == "deletion"
    assert because(factors, data, 3, 5, k=1, by="influence").by == "influence"


def test_signs_are_explained_and_small_losses_are_not_zero(data: RecDataset) -> None:
    node = Node("item", 332, None)
    one = Because("interacts", "influence", (Support(node, 0, -4.2e-5, 3.1e-6, 5.5e-5),), (), 1, 1)
    assert "negative where the interaction supports" in columns_sentence(one)
    assert figures(3.1e-6) == "3.1e-06"
    assert figures(None) == ""
    alone = replace(one, by="deletion", supports=(Support(node, 0, None, 0.1, None),))
    assert "negative" not in columns_sentence(alone)
    assert columns_sentence(replace(one, supports=())) == ""


@pytest.mark.parametrize(("name", "value"), [("k", 0), ("controls", -1), ("interactions", -1)])
def test_numbers_that_are_too_small(data: RecDataset, model: GraphRecommender, name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"^{name} must be"):
        explain(model, data, user=3, item=7, **{name: value})


def test_no_comparison_and_a_single_path() -> None:
    data = planted_kg()
    model = trained(graphrec.models.KGIN(data, dim=8, lr=1e-2), 1)
    found = explain(model, data, user=3, item=7, k=1, controls=0, interactions=0)
    assert found.control_sentence() == ""
    assert Explanation.from_dict(json.loads(json.dumps(found.to_dict()))).control_sentence() == ""
    assert "No control triples" in replace(found, draws=5).control_sentence()
    single = explain(model, data, user=3, item=7, k=1, candidates=1, controls=1, interactions=0)
    assert "1 strongest paths" not in single.order_sentence()
    assert "only path" in single.order_sentence()
