"""Explanations in a report: shown, escaped, kept when the report is made anew, laid out at every width."""

from __future__ import annotations

import html
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graphrec.datasets.world import world
from graphrec.errors import InputError
from graphrec.evaluation import evaluate
from graphrec.influence.page import page
from graphrec.models import LightGCN, Popularity
from graphrec.reports import (
    Because,
    ExplainedPath,
    Explanation,
    Node,
    ReportParts,
    Support,
    add_explanation,
    read_explanations,
    render,
    write_report,
)
from graphrec.reports.ego_graph import ego_graph, picture
from graphrec.runs import Run
from graphrec.training.fit import fit
from tests.reports.browser import brightness, laid_out
from tests.reports.test_report import EVIL, Checker

INTERACTS, RELATED = ("user", "interacts", "item"), ("item", "related", "entity")


def example(
    user: int = 5, name: str = "The Long Goodbye of the Lighthouse Keeper's Unpronounceable Daughter"
) -> Explanation:
    """Six paths through two entities, two of them joined by two relations, with all that an explanation can have."""
    who, item = Node("user", user, None), Node("item", 7, name)
    paths = []
    for n in range(6):
        own, entity = Node("item", 10 + n, f"{name} {n}"), Node("entity", n % 2, None)
        relations = (("interacts", False), (f"film.film.relation_{n // 4}", False), (f"written_by_{n % 2}", True))
        edges = ((INTERACTS, n), (RELATED, 2 * n), (RELATED, 2 * n + 1))
        paths.append(
            ExplainedPath((who, own, entity, item), relations, edges, 0.1 / (n + 1), 0.3 - 0.1 * n, 0.2 - 0.1 * n)
        )
    supports = tuple(Support(Node("item", 10 + n, f"{name} {n}"), n, -0.2, 0.1, None) for n in range(3))
    tables = {
        "The user's intents": pd.DataFrame({"intent": [0, 1], "attention": [0.75, 0.25]}),
        "Relations in each intent": pd.DataFrame({"intent": [0, 1], "relation": [name, "b"], "share": [0.5, 0.5]}),
    }
    because = Because("interacts", "influence", supports, (0.01, 0.02), 9, 9, {"seconds": 1.0})
    return Explanation(
        who, item, 4.2, 3, "attention", tuple(paths), (0.01,), tables, because, order="effect", candidates=88
    )


def parts(*explanations: Explanation) -> ReportParts:
    return ReportParts(model="KGAT", dataset="d", explanations=explanations)


def test_a_report_shows_what_an_explanation_says() -> None:
    one = example()
    shown = render(parts(one, example(6)))
    assert Checker(shown).open == [] and Checker(shown).outside == []
    assert shown.count("<h2>Explanations</h2>") == 1 and shown.count('class="card explanation"') == 2
    for text in (
        f"Why {one.item} for user 5",
        one.order_sentence(),
        one.control_sentence(),
        str(one.paths[0]),
        "The user's intents",
        "Relations in each intent",
    ):
        assert html.escape(text) in shown, text
    assert "0.7500" in shown and "score lost when it is deleted" in shown
    assert "score lost after the removal step" not in shown  # nobody measured it
    assert shown.count('data-user="5" data-item="10"') == 2  # a path and a support


def test_a_long_table_is_folded() -> None:
    table = pd.DataFrame({"relation": [f"relation {n}" for n in range(23)], "weight": np.arange(23.0)})
    shown = render(parts(replace(example(), tables={"Weights": table})))
    head, folded, rest = shown.partition("<summary>3 more</summary>")
    assert folded and "<td>relation 19</td>" in head and "<td>relation 20</td>" not in head
    assert "<td>relation 22</td>" in rest


def test_the_picture_has_every_node_once_and_a_line_for_joined_ends() -> None:
    one = example()
    graph = ego_graph(one)
    drawn = picture(one)
    assert drawn.count("<circle") == graph.number_of_nodes() == 1 + 6 + 2 + 1
    ends = {(source, target) for source, target in graph.edges()}
    assert drawn.count("<line") == len(ends) == 6 + 6 + 2
    doubled = replace(
        one, paths=(*one.paths, replace(one.paths[0], relations=(("interacts", False), ("x", False), ("y", True))))
    )
    assert picture(doubled).count("<line") == len(ends)
    assert "film.film.relation_0 →, x →" in picture(doubled)
    assert picture(replace(one, paths=())) == ""


def test_every_word_is_escaped() -> None:
    one = example(name=EVIL)
    evil = Node("user", EVIL, EVIL)
    paths = tuple(replace(path, relations=((EVIL, False), (EVIL, True), (EVIL, False))) for path in one.paths)
    table = pd.DataFrame({EVIL: [EVIL], "share": [0.1]})
    one = replace(one, user=evil, paths=paths, tables={EVIL: table}, order="strength", order_note=EVIL)
    for shown in (render(parts(one)), page(one)):
        checked = Checker(shown)
        assert checked.open == [] and checked.outside == []
        assert "script" not in checked.seen and "img" not in checked.seen
        assert shown.count(html.escape(EVIL)) > 15


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    data = world(150, seed=2)
    model = LightGCN(data, dim=8, num_layers=1)
    return fit(model, data, epochs=1, out=tmp_path_factory.mktemp("runs") / "run", progress=False, report=False)


def test_a_runs_report_keeps_its_explanations(run: Run) -> None:
    data = world(150, seed=2)
    baseline = Popularity(data)
    baseline.solve()
    write_report(run, data=data, baselines={"Popularity": evaluate(baseline, data, ks=(20,))})
    before = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Explanations</h2>" not in before
    found = add_explanation(Run.open(run.path), example())
    shown = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Why The Long Goodbye" in shown
    # What the report had been given stays: it was not made anew.
    head, _, rest = shown.partition("<!-- explanations -->")
    tail = rest.partition("<!-- end of explanations -->")[2]
    assert head + "<!-- explanations --><!-- end of explanations -->" + tail == before and "Popularity" in head
    assert found.files["explanations.json"]["holds"] == ["ids", "pairs", "edge ids", "texts"]
    assert "pairs" in found.files["report.html"]["holds"]

    again = replace(example(), rank=1, score=9.5)
    add_explanation(add_explanation(Run.open(run.path), example(6)), again)
    kept = read_explanations(Run.open(run.path))
    assert [one.user.id for one in kept] == [6, 5] and kept[1].rank == 1
    write_report(Run.open(run.path), data=data)
    shown = (run.path / "report.html").read_text(encoding="utf-8")
    assert shown.count('class="card explanation"') == 2 and "place 1 of the list" in shown
    assert np.isclose(kept[1].paths[0].drop, 0.3)


def test_a_report_that_is_not_there_or_has_no_place_is_made(run: Run, tmp_path: Path) -> None:
    data = world(150, seed=2)
    for name, old in (("without", None), ("old", "<html>an old report</html>")):
        shutil.copytree(run.path, tmp_path / name)
        copy = Run(tmp_path / name).add(
            {} if old is None else {"report.html": old}, remove=["report.html"] * (old is None)
        )
        add_explanation(copy, example(9), data)
        shown = (copy.path / "report.html").read_text(encoding="utf-8")
        assert "<h1>LightGCN on world</h1>" in shown and "for user 9" in shown
        Run.open(copy.path)


def test_a_damaged_file_is_an_error(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    damaged = Run(tmp_path / "run").add({"explanations.json": b'{"explanations": [{}]}'})
    with pytest.raises(InputError, match="no explanation: KeyError"):
        read_explanations(damaged)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("kind", ["report", "page"])
def test_a_browser_lays_it_out(tmp_path: Path, kind: str, width: int, scheme: str) -> None:
    shown = render(parts(example(), example(6))) if kind == "report" else page(example())
    found = laid_out(shown, width, scheme, tmp_path)
    assert found["width"] <= width and found["over"] == [] and found["loaded"] == []
    assert len(found["pictures"]) == (2 if kind == "report" else 1)
    assert min(found["pictures"]) >= 640  # its words can be read; on a narrow screen it scrolls
    for colour in found["words"]:
        assert abs(brightness(colour) - brightness(found["card"])) > 200
    assert (brightness(found["card"]) < brightness(found["text"])) == (scheme == "dark")
