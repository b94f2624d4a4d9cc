"""The example in a report: of the user with the best list, an item that the test part confirms."""

from __future__ import annotations

from pathlib import Path

import graphrec
from graphrec.influence import add_example
from graphrec.reports import read_explanations
from tests.models.planted_kg import planted_kg


def test_a_confirmed_recommendation_of_the_best_list_is_explained(tmp_path: Path) -> None:
    data = planted_kg()
    assert "test" in data.parts
    run = graphrec.fit(graphrec.models.KGIN(data, dim=8, lr=1e-2), data, epochs=3, out=tmp_path / "run", progress=False)
    run = add_example(run, data, paths=2, k=20)
    (found,) = read_explanations(run)
    table = run.per_user()
    assert table is not None
    best = table.to_pandas().set_index("user").iloc[:, 2]
    assert best[found.user.id] == best.max() > 0
    listed = graphrec.Recommender.from_pretrained(run).recommend([found.user.id], 20)["item"].to_list()
    pairs = data.pairs("test")
    code = int(data.vocabularies["user"].encode([found.user.id])[0])
    confirmed = data.vocabularies["item"].raw[pairs.items[pairs.indptr[code] : pairs.indptr[code + 1]]].tolist()
    assert found.item.id == next(item for item in listed if item in confirmed)
    assert len(found.paths) == 2
    assert str(found.item) in (run.path / "report.html").read_text(encoding="utf-8")
    run.verify()


def test_a_model_without_a_knowledge_graph_gets_no_example(tmp_path: Path) -> None:
    data = planted_kg()
    run = graphrec.fit(graphrec.models.BPRMF(data, dim=4), data, epochs=1, out=tmp_path / "run", progress=False)
    assert add_example(run, data) is run
    assert read_explanations(run) == []
