"""Because you interacted with …: what is said of an interaction is what its removal does, for every kind of model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import graphrec
from graphrec.cli import main
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.influence import explain
from graphrec.influence.because import because
from graphrec.influence.page import page
from graphrec.models.base import GraphRecommender
from tests.models.conformance import trained
from tests.models.planted import planted
from tests.models.planted_kg import planted_kg


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
    factors = trained(graphrec.models.BPRMF(data, dim=8, lr=2e-2), 10)
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
