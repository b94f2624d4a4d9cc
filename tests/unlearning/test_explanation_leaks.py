"""Explanations that outlive what they name: in the run, in its report, on a page outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from graphrec.influence import explain
from graphrec.influence.page import page
from graphrec.models.deletion import without_edges
from graphrec.models.kgin import KGIN
from graphrec.reports import Because, ExplainedPath, Explanation, Node, Support, add_explanation
from graphrec.reports.explanations_file import FILE, written
from graphrec.runs import Run
from graphrec.unlearning.request import ForgetRequest
from graphrec.unlearning.resolve import compacted
from graphrec.unlearning.scanner import Scan, scan
from tests.models.planted_kg import planted_kg
from tests.unlearning.forgotten import GONE_ITEM, GONE_NAME, GONE_USER, World, world

INTERACTS = ("user", "interacts", "item")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("films"), dim=8, num_layers=2)


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A run over a knowledge graph; user 3 and one pair of user 4 are gone."""
    data = planted_kg()
    pairs = data.pairs("train")
    met = int(pairs.items[pairs.indptr[4]])
    request = ForgetRequest(users=(3,), pairs=((4, met),))
    return world(tmp_path_factory.mktemp("knowing"), KGIN, request, data, dim=8)


def look(made: World, run: Run) -> Scan:
    return scan(run, made.resolved, made.data, made.before)


def told(run: Run, user: Any, item: int, met: list[int]) -> Explanation:
    """Why a user is shown an item, by interactions alone."""
    ids = run.vocabularies["user"].encode([user], unknown="mark"), run.vocabularies["item"].encode([item])
    score = 0.0
    if ids[0][0] >= 0:
        model = without_edges(run.model(), {})
        with torch.no_grad():
            score = float(model.score(torch.as_tensor(ids[0]), torch.as_tensor(ids[1]))[0, 0])
    supports = tuple(Support(Node("item", other, f"The Lost Valley {other}"), 0, None, 0.1, None) for other in met)
    because = Because("interacts", "deletion", supports, (), len(met), len(met))
    return Explanation(Node("user", user, None), Node("item", item, None), score, 1, "", (), because=because)


def trained_items(run: Run, user: str) -> list[int]:
    store = run.inputs().graph[INTERACTS].edge_index
    row = int(run.vocabularies["user"].encode([user])[0])
    return [int(run.vocabularies["item"].raw[code]) for code in store[1][store[0] == row].tolist()]


def test_an_explanation_of_what_is_left_is_no_leak(films: World, tmp_path: Path) -> None:
    run = films.copy(tmp_path)
    run = add_explanation(run, told(run, "U009x", 3, trained_items(run, "U009x")[:2]), films.data)
    found = look(films, Run.open(run.path))
    assert found.ok, found.lines()
    assert FILE in [entry.where for entry in found.checked]


def of_somebody_gone(run: Run) -> Explanation:
    return told(run, GONE_USER, 3, [])


def of_an_item_gone(run: Run) -> Explanation:
    return told(run, "U009x", 3, [GONE_ITEM])


def of_a_pair_gone(run: Run) -> Explanation:
    """U009x and item 4 are both still there; that they met is not to be said."""
    return told(run, "U009x", 3, [4])


def of_a_path_through_a_pair_gone(run: Run) -> Explanation:
    nodes = Node("user", "U009x", None), Node("item", 4, None), Node("item", 3, None)
    sequel = ("item", "related", "item")
    path = ExplainedPath(nodes, (("interacts", False), ("x", False)), ((INTERACTS, 1), (sequel, 1)), 0.1, 0.1)
    return replace(told(run, "U009x", 3, []), strength_by="degree", paths=(path,))


def with_a_name_in_a_table(run: Run) -> Explanation:
    return replace(told(run, "U009x", 3, []), tables={"Weights": pd.DataFrame({"relation": [GONE_NAME]})})


@pytest.mark.parametrize(
    ("leak", "kind"),
    [
        (of_somebody_gone, "raw id"),
        (of_an_item_gone, "raw id"),
        (of_a_pair_gone, "row"),
        (of_a_path_through_a_pair_gone, "row"),
        (with_a_name_in_a_table, "raw id"),
    ],
)
def test_a_planted_explanation_is_caught(
    films: World, tmp_path: Path, leak: Callable[[Run], Explanation], kind: str
) -> None:
    run = films.copy(tmp_path)
    one = leak(run)
    run = run.add({FILE: written([one])})
    found = look(films, run)
    assert FILE in [finding.where for finding in found.of(kind)], found.lines()
    (tmp_path / "why.html").write_text(page(one), encoding="utf-8")
    run.record(tmp_path / "why.html", ["ids", "pairs"])
    assert "why.html" in [finding.where for finding in look(films, run).of(kind)]
    shown = add_explanation(films.copy(tmp_path / "shown"), one)
    assert "report.html" in [finding.where for finding in look(films, shown).of(kind)]


def test_an_explanation_of_the_model_before_is_stale(films: World, tmp_path: Path) -> None:
    """Nobody who is gone is in it, but the score was learned from them."""
    run = films.copy(tmp_path)
    run = run.add({FILE: written([told(films.before, "U009x", 3, [])])})
    assert [finding.where for finding in look(films, run).of("stale")] == [FILE]


def test_what_is_no_explanation_is_said(films: World, tmp_path: Path) -> None:
    run = films.copy(tmp_path).add({FILE: b'{"explanations": [{"user": 1}]}'})
    assert FILE in [finding.where for finding in look(films, run).of("unreadable file")]


def test_paths_of_a_run_over_a_knowledge_graph(knowing: World, tmp_path: Path) -> None:
    """Explained after forgetting: nothing is found; explained before: who is gone, and the pair that is gone."""
    run, data = knowing.copy(tmp_path), knowing.data
    made = explain(run, compacted(data, knowing.resolved), user=5, item=9, k=4, by="deletion")
    assert made.paths
    assert look(knowing, run.add({FILE: written([made])})).ok
    pairs = data.pairs("train")
    met = int(pairs.items[pairs.indptr[4]])
    alike = (met + 4) % data.num_items  # of the same genre
    before = explain(knowing.before, data, user=4, item=alike, k=300, candidates=300, controls=0, interactions=0)
    through = [path for path in before.paths if path.nodes[1].id == met]
    assert through
    spoiled = run.add({FILE: written([replace(before, paths=tuple(through[:1]))])})
    assert FILE in [finding.where for finding in look(knowing, spoiled).of("row")]
    gone = explain(knowing.before, data, user=3, item=9, k=2, controls=0, interactions=0)
    assert FILE in [finding.where for finding in look(knowing, run.add({FILE: written([gone])})).of("raw id")]
