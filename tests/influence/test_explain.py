"""Explanations: paths with names, drops that are those of deletion, the command and its page."""

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
from graphrec.influence import Explainer, explain
from graphrec.influence.page import ego_graph, page, picture
from graphrec.models.base import GraphRecommender
from tests.models.conformance import trained
from tests.models.planted_kg import planted_kg


@pytest.fixture(scope="module")
def data() -> RecDataset:
    return planted_kg()


@pytest.fixture(scope="module")
def model(data: RecDataset) -> GraphRecommender:
    return trained(graphrec.models.KGIN(data, dim=16, lr=1e-2), 5)


def test_paths_lead_from_the_user_to_the_item(data: RecDataset, model: GraphRecommender) -> None:
    found = explain(model, data, user=3, item=7, k=5)
    assert found.user.id == 3
    assert found.item.id == 7
    assert len(found.paths) == 5
    strengths = [path.strength for path in found.paths]
    assert strengths == sorted(strengths, reverse=True)
    pairs = data.pairs("train")
    own = set(pairs.items[pairs.indptr[3] : pairs.indptr[4]].tolist())
    for path in found.paths:
        assert path.nodes[0] == found.user
        assert path.nodes[-1] == found.item
        assert path.nodes[1].id in own
        assert path.relations[0] == ("interacts", False)
        assert len(path.edges) == len(path.relations) == len(path.nodes) - 1
        for (kind, edge_id), (name, inverse), ends in zip(
            path.edges, path.relations, zip(path.nodes, path.nodes[1:], strict=False), strict=True
        ):
            table = data.table(kind)
            row = int(table.positions([edge_id])[0])
            stated = [int(table.source[row]), int(table.target[row])]
            walked = [int(data.vocabularies[end.node_type].encode(np.array([end.id]))[0]) for end in ends]
            assert stated == (walked[::-1] if inverse else walked)
            if table.relation is not None:
                assert data.relations.raw[table.relation[row]] == name


def test_a_drop_is_that_of_deletion(data: RecDataset, model: GraphRecommender) -> None:
    found = explain(model, data, user=3, item=7, k=3)
    users, items = torch.tensor([3]), torch.tensor([7])
    with torch.no_grad():
        assert found.score == pytest.approx(float(model.score(users, items)))
        for path in found.paths:
            triples: dict[tuple[str, str, str], list[int]] = {}
            for kind, edge_id in path.edges[1:]:
                triples.setdefault(kind, []).append(edge_id)
            smaller = graphrec.models.KGIN(data.without(triples), dim=16, lr=1e-2)
            smaller.load_state_dict(model.state_dict())
            assert path.drop == pytest.approx(found.score - float(smaller.eval().score(users, items)), abs=1e-5)


def test_rank_is_that_of_the_recommendation(data: RecDataset, model: GraphRecommender) -> None:
    lists = graphrec.Recommender(model, data.vocabularies).recommend([3], k=5)
    explainer = Explainer(model, data)
    assert [explainer.rank(3, int(item)) for item in lists["item"]] == [1, 2, 3, 4, 5]


def test_controls_are_alike_and_elsewhere(data: RecDataset, model: GraphRecommender) -> None:
    explainer = Explainer(model, data)
    graph = explainer.graph
    start, end = graph.nodes("user").start + 3, graph.nodes("item").start + 7
    edges = torch.nonzero((graph.heads() == end) & (graph.tails() >= graph.nodes("entity").start))[:2, 0]
    assert len(edges) == 2
    near = {end, *graph.tails()[graph.heads() == start].tolist()}
    drawn = list(explainer.control_edges(edges, start, end, 4, seed=1))
    assert len(drawn) == 4
    for others in drawn:
        assert torch.equal(graph.relation[others], graph.relation[edges])
        assert not near & {*graph.heads()[others].tolist(), *graph.tails()[others].tolist()}
    again = list(explainer.control_edges(edges, start, end, 4, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))


def test_the_picture_and_the_page(data: RecDataset, model: GraphRecommender) -> None:
    found = explain(model, data, user=3, item=7, k=4)
    graph = ego_graph(found)
    assert ("user", 3) in graph
    assert ("item", 7) in graph
    assert sum(len(path.relations) for path in found.paths) >= graph.number_of_edges()
    assert picture(found).count("<circle") == graph.number_of_nodes()
    shown = page(found)
    assert str(found.paths[0]).replace("'", "&#x27;") in shown
    assert "http://" not in shown
    assert "https://" not in shown
    json.dumps(found.to_dict())


def test_what_cannot_be_explained(data: RecDataset, model: GraphRecommender) -> None:
    with pytest.raises(InputError, match="user 'nobody' is not in dataset"):
        explain(model, data, user="nobody", item=7)
    with pytest.raises(InputError, match="LightGCN reads no knowledge graph"):
        Explainer(graphrec.models.LightGCN(data, dim=4), data)
    with pytest.raises(InputError, match="pass data="):
        explain(model, user=3, item=7)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", "world", "--epochs", "1", "--out", str(tmp_path / "run"), "--model.dim", "8"]
    assert main(["train", "--model", "KGIN", *words]) == 0
    run = graphrec.Run.open(tmp_path / "run")
    pairs = run.dataset().pairs("train")
    capsys.readouterr()
    item = int(graphrec.Recommender.from_pretrained(run).recommend([5], k=1)["item"][0])
    page_file = tmp_path / "why.html"
    asked = ["explain", str(tmp_path / "run"), "--user", "5", "--item", str(item), "--k", "2", "--out", str(page_file)]
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rank"] == 1
    assert len(found["paths"]) == 2
    assert found["paths"][0]["nodes"][1]["id"] in pairs.items[pairs.indptr[5] : pairs.indptr[6]]
    assert found["item_name"] in page_file.read_text(encoding="utf-8")
    assert main(asked) == 0
    assert "place 1" in capsys.readouterr().out
    assert main(["explain", str(tmp_path / "run"), "--user", "none", "--item", "0"]) == 2
    assert "is not in dataset" in capsys.readouterr().err
