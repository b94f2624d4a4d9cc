"""Requests to models that read a knowledge graph: triples, relations, items with all their triples, features, texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import graphrec
from graphrec.datasets.relations import is_knowledge
from graphrec.models import KGAT, KGIN
from graphrec.models.base import GraphRecommender
from graphrec.unlearning import ForgetRequest, compacted, forget, remaining, resolve
from tests.models.planted_kg import planted_kg

HPARAMS = {KGAT: {"dim": 8, "layer_dims": (8,), "lr": 0.01}, KGIN: {"dim": 8, "num_layers": 2, "lr": 0.01}}
FIT = {"epochs": 2, "progress": False, "report": False, "seed": 0}


def requests() -> dict[str, ForgetRequest]:
    """A user and an item wholly; all triples of a relation; single triples."""
    data = planted_kg()
    edge_type = next(name for name, table in data.tables.items() if is_knowledge(name) and len(table))
    table = data.tables[edge_type]
    assert table.relation is not None
    raw = [data.vocabularies[edge_type[0]].raw, data.relations.raw, data.vocabularies[edge_type[2]].raw]
    triples = [
        tuple(values[code[row]] for values, code in zip(raw, (table.source, table.relation, table.target), strict=True))
        for row in (0, 7)
    ]
    plain = [tuple(v.item() if hasattr(v, "item") else v for v in triple) for triple in triples]
    relation = raw[1][table.relation[0]]
    return {
        "nodes": ForgetRequest(users=(3,), items=(5,)),
        "relation": ForgetRequest(relations=(relation.item() if hasattr(relation, "item") else relation,)),
        "triples": ForgetRequest(triples=tuple(plain)),  # type: ignore[arg-type]
    }


@pytest.mark.parametrize("kind", ["nodes", "relation", "triples"])
@pytest.mark.parametrize("model_class", [KGAT, KGIN])
def test_a_knowledge_model_forgets(model_class: type[GraphRecommender], kind: str, tmp_path: Path) -> None:
    data, request = planted_kg(), requests()[kind]
    model = model_class(data, **HPARAMS[model_class])
    run = graphrec.fit(model, data, out=tmp_path / "run", **FIT)
    found = resolve(request, data)
    gone = {name: ids for name, ids in found.edges.items() if is_knowledge(name)}
    assert gone and sum(map(len, gone.values())) > 0
    new = forget(run, data, request, out=tmp_path / "new", references=0)
    evidence = json.loads((new.path / "forgetting.json").read_text())
    assert evidence["scan"]["ok"] and evidence["claims"]["training graph"]["level"] == "L4"
    graph = new.inputs().graph
    for edge_type, ids in gone.items():
        assert not torch.isin(graph[edge_type].edge_id, torch.from_numpy(ids.copy())).any()
    if kind != "nodes":
        # Nobody goes wholly: the run has the rows of a training on what remains.
        left = remaining(data, found)
        again = model_class(left, **HPARAMS[model_class])
        graphrec.fit(again, left, **FIT)
        for name, tensor in again.state_dict().items():
            assert torch.equal(new.weights()[name], tensor), name
    else:
        assert new.model().num_users == data.num_users - 1 and new.model().num_items == data.num_items - 1
    quick = forget(
        new,
        compacted(data, found),
        ForgetRequest(users=(8,)),
        method="finetune",
        options={"epochs": 1},
        out=tmp_path / "quick",
        references=0,
    )
    assert torch.isfinite(quick.model().score(torch.arange(4))).all()


@pytest.mark.parametrize("model_class", [KGAT, KGIN])
def test_triples_are_forgotten_by_a_step_too(model_class: type[GraphRecommender], tmp_path: Path) -> None:
    data = planted_kg()
    run = graphrec.fit(model_class(data, **HPARAMS[model_class]), data, out=tmp_path / "run", **FIT)
    before = run.weights()
    new = forget(
        run,
        data,
        requests()["triples"],
        method="gif",
        options={"iterations": 60, "tolerance": 0.5},
        out=tmp_path / "new",
        references=0,
    )
    assert new.config["unlearning"]["exactness"] == "approximate"
    after = new.weights()
    assert any(not torch.equal(before[name], after[name]) for name in after if name in before)
