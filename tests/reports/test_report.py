"""The report: escaped, self-contained, complete without its optional parts, and laid out well in a real browser."""

from __future__ import annotations

import html
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from graphrec.datasets.world import world
from graphrec.errors import InputError
from graphrec.evaluation import evaluate
from graphrec.models import LightGCN, Popularity
from graphrec.reports import (
    EdgeCount,
    Entry,
    Example,
    GraphStatistics,
    ReportParts,
    graph_statistics,
    popularity_bias,
    render,
    reproduce_command,
    write_report,
)
from graphrec.reports.page import duration
from graphrec.reports.svg import number, ticks
from graphrec.runs import Run
from graphrec.training.fit import fit
from tests.reports.browser import brightness, laid_out

EVIL = "<script>alert(1)</script>\"'&<img src=http://evil.example/x>"
VOID = {"meta", "br", "wbr"}


def full_parts(name: str = "LightGCN") -> ReportParts:
    """Everything filled in, with long words and many columns where layouts break."""
    rng = np.random.default_rng(0)
    recall = rng.choice([0, 0.25, 0.5, 1], size=500, p=[0.6, 0.2, 0.1, 0.1])
    degrees = {"users": rng.zipf(1.8, 500), "items": rng.zipf(2.2, 300)}
    metrics = {"recall@20": float(recall.mean()), "ndcg@20": 0.15, "gini@20": 0.7, "num_users": 500, "mask": "train"}
    history = [
        {"epoch": n, "loss": 0.7 / n, "bpr": 0.6 / n, "l2": 0.1 / n, "seconds": 1.5}
        | {"valid/recall@20": 0.2 - 0.1 / n, "valid/ndcg@20": math.nan}
        for n in range(1, 201)
    ]
    entries = [Entry(f"The Unpronounceable{'longwordwithoutspaces' * 3} {n}", "0.5", n == 2) for n in range(8)]
    return ReportParts(
        model=name,
        dataset="seeded-world-with-a-rather-long-name_and_no_break_in_it_at_all_whatsoever",
        metrics={**metrics, "seconds": 72.0, "epochs": 200, "best_epoch": 150, "valid/recall@20": 0.19},
        intervals={"recall@20": (float(recall.mean()) - 0.01, float(recall.mean()) + 0.01)},
        baselines={n: metrics for n in ("Popularity", "ItemKNN", "EASE", "GFCF", "BSPM")},
        history=history,
        per_user={"recall@20": recall},
        graph=GraphStatistics(
            {"user": 500, "item": 300, "entity": 1_200_000},
            [EdgeCount("user", "interacts", "item", 12_000, 0.08), EdgeCount("item", "related", "entity", 3, 8e-9)],
            degrees,
        ),
        popularity=popularity_bias(degrees["items"], rng.integers(0, 300, (500, 20))),
        examples=[Example(f"user {u}", [Entry(f"Seen {n}") for n in range(5)], entries, 40) for u in range(3)],
        config={"model": name, "hparams": {"dim": 64, "path": "/a/very/long/" + "path/" * 30}, "status": "complete"},
        environment={"versions": {"python": "3.11"}, "devices": []},
        command="graphrec train --model LightGCN --dataset " + "x" * 120,
        notes=["merged 3 user__interacts__item: duplicate rows"],
        fingerprint="ab" * 32,
    )


class Checker(HTMLParser):
    """Tags that do not close, attributes that lead elsewhere, and what the structure has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.outside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.outside += [f"{tag} {key}={value}" for key, value in attrs if key in ("src", "href", "srcset", "action")]
        self.outside += [f"{tag} {key}" for key, _ in attrs if key.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


def test_the_page_is_whole_and_leads_nowhere() -> None:
    page = render(full_parts())
    checked = Checker(page)
    assert checked.open == [] and checked.outside == []
    assert "script" not in checked.seen and "link" not in checked.seen and "url(" not in page and "@import" not in page
    assert "default-src 'none'" in page
    for heading in (
        "Results",
        "Learning curves",
        "Distribution",
        "Popularity",
        "graph",
        "Examples",
        "removed",
        "reproduce",
    ):
        assert re.search(f"<h2>[^<]*{heading}", page), heading
    assert checked.seen.count("figure") == checked.seen.count("figcaption") == 5
    assert len(re.findall(r'<svg viewBox="0 0 420 262" role="img" aria-label="[^"]+">', page)) == 5
    assert "nan" not in re.sub(r"<style>.*</style>", "", page, flags=re.S).lower()
    assert page.count("in the test part</span>") == 3 and "and 35 more" in page


def test_every_word_is_escaped() -> None:
    parts = ReportParts(
        model=EVIL,
        dataset=EVIL,
        metrics={f"recall@20{EVIL}": 0.5, "mask": EVIL, "best_epoch": 1},
        baselines={EVIL: {f"recall@20{EVIL}": 0.1}},
        history=[{"epoch": 1, "loss": 1.0, EVIL: 2.0, f"valid/{EVIL}": 1.0}],
        per_user={EVIL: np.array([0.0, 1.0])},
        graph=GraphStatistics({EVIL: 1}, [EdgeCount(EVIL, EVIL, EVIL, 1, 0.1)], {EVIL: np.array([1, 2])}),
        popularity=popularity_bias(np.arange(20), np.array([[1, 2]])),
        examples=[Example(EVIL, [Entry(EVIL, EVIL)], [Entry(EVIL, EVIL)], 1)],
        config={EVIL: EVIL, "seed": EVIL, "status": EVIL},
        environment={EVIL: [EVIL]},
        command=EVIL,
        notes=[EVIL],
        fingerprint=EVIL,
    )
    page = render(parts)
    checked = Checker(page)
    assert "script" not in checked.seen and "img" not in checked.seen and checked.outside == []
    assert page.count(html.escape(EVIL)) > 15


def test_terms_of_the_loss_are_no_metrics_of_a_part() -> None:
    terms = {"loss": 1.0, "pairs/rank": 0.9, "pairs/reg": 0.1}
    page = render(ReportParts("m", "d", history=[{"epoch": 1, **terms}, {"epoch": 2, **terms}]))
    assert "Terms of the loss" in page and "Rank (pairs)" in page and "Validation metrics" not in page
    page = render(ReportParts("m", "d", history=[{"epoch": n, **terms, "valid/recall@20": 0.1} for n in (1, 2)]))
    assert "Validation metrics" in page and "Recall@20 (valid)" in page and "Rank (pairs)" not in page


def test_what_is_not_known_is_left_out() -> None:
    page = render(ReportParts(model="EASE", dataset="d"))
    assert Checker(page).open == []
    assert "<h1>EASE on d</h1>" in page and "<h2>" not in page


@pytest.mark.parametrize(
    "parts",
    [
        ReportParts("m", "d", metrics={"recall@20": math.nan}, per_user={"recall@20": np.array([math.nan])}),
        ReportParts("m", "d", history=[{"epoch": 1, "loss": 0.5, "valid/recall@20": 0.1}]),
        ReportParts("m", "d", history=[{"epoch": 1, "loss": math.inf}, {"epoch": 2, "loss": math.nan}]),
        ReportParts("m", "d", per_user={"x": np.array([5.0, 5.0])}),
        ReportParts("m", "d", graph=GraphStatistics({"user": 0}, (), {"users": np.array([0, 0])})),
        ReportParts("m", "d", popularity=popularity_bias(np.zeros(3), np.full((2, 2), -1))),
    ],
)
def test_odd_values_still_give_a_page(parts: ReportParts) -> None:
    page = render(parts)
    assert Checker(page).open == []
    assert not re.search(r'="[^"]*\bnan\b', page)


def test_results_show_intervals_and_the_best_of_each_row() -> None:
    page = render(
        ReportParts(
            "A",
            "d",
            metrics={"recall@20": 0.25, "gini@20": 0.5},
            intervals={"recall@20": (0.24, 0.26)},
            baselines={"B": {"recall@20": 0.2, "gini@20": 0.4}},
        )
    )
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', page)
    assert [re.sub("<.*?>", "", name) for name, _ in rows] == ["Recall@20", "Gini@20 ↓"]
    assert "0.2400–<wbr>0.2600" in rows[0][1]
    assert [("best" in cell) for cell in re.findall("<td.*?</td>", rows[0][1] + rows[1][1])] == [
        True,
        False,
        False,
        True,
    ]


def test_popularity_bias_by_hand() -> None:
    # Ten items; item 0 has ten of nineteen interactions and half of the places of the lists.
    training = np.array([10, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    bias = popularity_bias(training, np.array([[0, 9], [0, -1], [9, -1]]))
    assert bias.training[0] == pytest.approx(10 / 19) and bias.recommended == [0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0.5]
    assert bias.coverage == 0.2
    # Items 0 and 9 are shown twice each: (2 * 9 - 11) * 2 + (2 * 10 - 11) * 2 = 32 of 10 * 4.
    assert bias.gini == pytest.approx(0.8)


def test_numbers_and_ticks_read_well() -> None:
    shown = [number(v) for v in (0, 12345, 0.28456, 4.236, 104.04, 12345.6, 1e-5, math.nan)]
    assert shown == ["0", "12,345", "0.2846", "4.24", "104.0", "12,346", "1.0e-05", "–"]
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0] and ticks(0.13, 0.21) == [0.14, 0.16, 0.18, 0.2]
    assert [duration(s) for s in (4.25, 125, 12_000)] == ["4.2 s", "2 min 5 s", "3 h 20 min"]


def test_the_command_quotes_what_needs_it() -> None:
    config = {
        "model": "LightGCN",
        "hparams": {"dim": 64, "reg": 1e-4, "seed": 1, "layers": [1, 2]},
        "dataset": {"source": "my data.csv", "columns": {"user": "uid", "item": "sku"}, "split": "random:.8,.1,.1"},
        "fit": {"epochs": 5},
        "seed": 1,
    }
    assert reproduce_command(config) == (
        "graphrec train --model LightGCN --dataset 'my data.csv' --columns user=uid,item=sku --split random:.8,.1,.1 "
        "--epochs 5 --seed 1 --model.dim 64 --model.reg 0.0001"
    )


def test_parts_need_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="out="):
        write_report(full_parts())
    assert write_report(full_parts(), tmp_path / "new" / "r.html").read_text(encoding="utf-8").startswith("<!DOCTYPE")


def test_a_run_gets_its_report(tmp_path: Path) -> None:
    data = world(150, seed=2)
    model = LightGCN(data, dim=8, num_layers=1)
    run = fit(model, data, epochs=2, out=tmp_path / "run", progress=False, ks=(10, 20))
    baseline = Popularity(data)
    baseline.solve()
    path = write_report(run, data=data, baselines={"Popularity": evaluate(baseline, data, ks=(10, 20))})
    assert path == tmp_path / "run" / "report.html"
    Run.open(run.path)  # the manifest knows the report
    page = path.read_text(encoding="utf-8")
    assert Checker(page).open == []
    assert "<h1>LightGCN on world</h1>" in page and "item <b>related</b> entity" in page
    assert f"{run.metrics['recall@20']:.4f}" in page and "valid" in page and page.count("<article") == 4
    assert any(html.escape(str(name)) in page for name in data.names["item"])
    with pytest.raises(InputError, match="fingerprint"):
        write_report(run, data=world(150, seed=3))


def test_graph_statistics_count_the_training_part() -> None:
    data = world(100, seed=2, sides=("trust",))
    found = graph_statistics(data)
    assert found.edges[0] == EdgeCount(*data.target, len(data.interactions("train")), found.edges[0].density)
    assert found.edges[0].density == pytest.approx(found.edges[0].edges / (data.num_users * data.num_items))
    assert [edge.name for edge in found.edges] == ["interacts", "trusts"]
    assert found.degrees["users"].sum() == found.degrees["items"].sum() == found.edges[0].edges


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400, 320])
def test_a_browser_lays_it_out_without_overflow_or_requests(tmp_path: Path, width: int, scheme: str) -> None:
    found = laid_out(render(full_parts()), width, scheme, tmp_path)
    assert found["width"] <= width and found["over"] == [] and found["loaded"] == []
    assert found["charts"] >= 5
    assert (brightness(found["background"]) < brightness(found["text"])) == (scheme == "dark")
