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
from graphrec.influence import Explainer, Explanation, explain
from graphrec.influence.page import ego_graph, page, picture
from graphrec.models.base import GraphRecommender
from graphrec.runs.manifest import as_json
from tests.models.conformance import trained
from tests.models.planted_kg import planted_kg


@pytest.fixture(scope="module")
def data() -> RecDataset:
    return planted_kg()


@pytest.fixture(scope="module")
def model(data: RecDataset) -> GraphRecommender:
    return trained(graphrec.models.KGIN(data, dim=16, lr=1e-2), 5)


def test_paths_lead_from_the_user_to_the_item(data: RecDataset, model: GraphRecommender) -> None:
    found = explain(model, data, user=3, item=7, k=5, alike=0, interactions=0)
    assert found.user.id == 3
    assert found.item.id == 7
    assert len(found.paths) == 5
    assert found.order == "effect"
    drops = [path.drop for path in found.paths]
    assert drops == sorted(drops, reverse=True)  # type: ignore[type-var]
    strongest = explain(model, data, user=3, item=7, k=5, order="strength", interactions=0)
    strengths = [path.strength for path in strongest.paths]
    assert strongest.order == "strength" and strengths == sorted(strengths, reverse=True)
    assert drops[0] >= max(path.drop or 0.0 for path in strongest.paths)  # type: ignore[operator]
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
    found = explain(model, data, user=3, item=7, k=3, interactions=0)
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


def test_the_order_is_that_of_all_deletions(data: RecDataset, model: GraphRecommender) -> None:
    """On a graph where every path can be taken out, the first path is the one that costs most for most of the pairs."""
    explainer = Explainer(model, data)
    found_first = []
    for user in range(12):
        item = (user * 7 + 1) % data.num_items
        found = explainer.paths(user, item, limit=40)
        score = explainer.score(user, item)
        drops = [score - explainer.score(user, item, explainer.triples_of(edges)) for edges in found.edges]
        if not drops:
            continue
        shown = explainer.explain(user, item, k=1, candidates=40, controls=0)
        assert shown.candidates == len(found)
        (first,) = shown.paths
        assert first.drop is not None and first.drop <= max(drops) + 1e-6
        found_first.append(first.drop >= max(drops) - 1e-6)
    assert len(found_first) >= 8 and np.mean(found_first) >= 0.8


def test_a_short_list_is_the_beginning_of_a_longer_one(data: RecDataset, model: GraphRecommender) -> None:
    explainer = Explainer(model, data)
    long = explainer.explain(3, 7, k=8, controls=0).paths
    assert explainer.explain(3, 7, k=2, controls=0).paths == long[:2]


def test_paths_by_the_same_triple_come_last(data: RecDataset, model: GraphRecommender) -> None:
    explainer = Explainer(model, data)
    alone = explainer.explain(3, 7, k=40, alike=0, controls=0)
    drops = [path.drop for path in alone.paths]
    assert drops == sorted(drops, reverse=True)  # type: ignore[type-var]
    varied = explainer.explain(3, 7, k=40, alike=2, controls=0)
    assert varied.paths[0] == alone.paths[0] and "After 2 that reach the item" in varied.order_sentence()
    costly = [path for path in varied.paths if (path.drop or 0) > 0]
    assert varied.paths[: len(costly)] == tuple(costly)  # what costs nothing comes last
    endings = [path.edges[-1] for path in costly]
    waiting = [endings[:place].count(ending) >= 2 for place, ending in enumerate(endings)]
    assert waiting == sorted(waiting) and any(waiting) and not all(waiting)
    for part in (True, False):
        own = [path.drop for path, waits in zip(costly, waiting, strict=True) if waits == part]
        assert own == sorted(own, reverse=True)  # type: ignore[type-var]


def test_a_model_without_slopes_says_so(data: RecDataset) -> None:
    model = trained(graphrec.models.CKE(data, dim=8), 1)
    found = explain(model, data, user=3, item=7, k=3, interactions=0)
    assert found.order == "strength"
    assert "CKE has no slope in the weights of triples" in found.order_note
    assert found.order_note in found.order_sentence()
    assert [path.effect for path in found.paths] == [None] * 3
    strengths = [path.strength for path in found.paths]
    assert strengths == sorted(strengths, reverse=True)


def test_an_explanation_is_read_again(data: RecDataset, model: GraphRecommender) -> None:
    found = explain(model, data, user=3, item=7, k=3, by="deletion")
    again = Explanation.from_dict(json.loads(json.dumps(as_json(found.to_dict()))))
    assert again.to_dict() == as_json(found.to_dict())
    assert again.paths == found.paths and again.because == found.because
    assert page(again) == page(found)
    with pytest.raises(InputError, match="no explanation"):
        Explanation.from_dict({"user": 3})


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
    found = explain(model, data, user=3, item=7, k=4, interactions=0)
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
    with pytest.raises(InputError, match="order of paths 'length'"):
        explain(model, data, user=3, item=7, order="length")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="candidates must be 1 or more"):
        explain(model, data, user=3, item=7, candidates=0)
    with pytest.raises(InputError, match="alike must be 0 or more"):
        explain(model, data, user=3, item=7, alike=-1)
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
    asked = [
        "explain",
        str(tmp_path / "run"),
        "--user",
        "5",
        "--item",
        str(item),
        "--k",
        "2",
        "--out",
        str(page_file),
        "--by",
        "deletion",
    ]
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rank"] == 1
    assert len(found["paths"]) == 2
    assert found["paths"][0]["nodes"][1]["id"] in pairs.items[pairs.indptr[5] : pairs.indptr[6]]
    assert found["item_name"] in page_file.read_text(encoding="utf-8")
    assert main(asked) == 0
    told = capsys.readouterr().out
    assert "place 1" in told and "ordered by the measured drop" in told and "effect" in told
    assert "The user's intents" in told and "Relations in each intent" in told
    assert main([*asked, "--order", "strength", "--report"]) == 0
    told = capsys.readouterr().out
    assert "strongest paths first" in told and "report.html" in told
    kept = graphrec.Run.open(tmp_path / "run")
    assert found["item_name"] in (kept.path / "explanations.json").read_text(encoding="utf-8")
    report = (kept.path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Explanations</h2>" in report and "Relations in each intent" in report and 'class="ego"' in report
    assert main(["explain", str(tmp_path / "run"), "--user", "none", "--item", "0"]) == 2
    assert "is not in dataset" in capsys.readouterr().err
