"""The report of a run for click prediction: curves in the place of what is about lists."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from graphrec.evaluation import evaluate_clicks
from graphrec.models import BPRMF
from graphrec.reports import ClickCurves, ReportParts, click_curves, render, report_parts, write_report
from graphrec.runs import Run
from graphrec.training import fit
from tests.evaluation.labelled import labelled
from tests.reports.test_report import Checker


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    data = labelled()
    path = tmp_path_factory.mktemp("report") / "run"
    return fit(
        BPRMF(data, dim=4), data, epochs=3, task="ctr", out=path, auc_batch_size=64, scaling="platt", progress=False
    )


def test_a_run_gets_curves_and_no_lists(run: Run) -> None:
    page = (run.path / "report.html").read_text(encoding="utf-8")
    checked = Checker(page)
    assert checked.open == [] and checked.outside == []
    headings = re.findall("<h2>([^<]*)</h2>", page)
    assert "Click prediction" in headings and "Results on the test part" in headings
    for absent in ("Popularity bias", "Examples of recommendations"):
        assert absent not in headings
    assert 'aria-label="ROC curve"' in page and 'aria-label="Calibration"' in page
    assert "Platt" in page and "fitted on the valid part" in page
    assert "240 labelled pairs" in page and "trained by bpr" in page and "ranked over" not in page
    assert f"{run.metrics['auc']:.4f}" in page and "AUC (minibatches)" in page
    rows = dict(re.findall(r'<tr><th scope="row">([^<]*)(?: <span.*?</span>)?</th><td class="[^"]*">([^<]*)', page))
    for count in ("Num pairs", "Cold pairs", "Platt slope", "Auc users", "Auc batch size"):
        assert count not in rows
    assert {"AUC", "AUC (users)", "Accuracy", "F1", "Log loss", "Calibration error"} <= set(rows)
    assert "Lower is better".lower() in page.lower()
    body = re.sub(r"<style>.*</style>", "", page, flags=re.S).lower()
    assert not re.search(r"\bnan\b", body)
    # The validation curves are the metrics, not the terms of the loss.
    assert "AUC (valid)" in page and "Rank (pairs), epoch" not in page.split("<details>")[0].split("Validation")[-1]


def test_it_can_be_written_again_from_the_run(run: Run, tmp_path: Path) -> None:
    data = labelled()
    page = write_report(run, tmp_path / "again.html", data=data).read_text(encoding="utf-8")
    first = (run.path / "report.html").read_text(encoding="utf-8")
    drawn = [re.findall(r'<svg viewBox.*?aria-label="(?:ROC|Cal).*?</svg>', text, flags=re.S) for text in (page, first)]
    assert drawn[0] == drawn[1] and len(drawn[0]) == 2


def test_the_curves_are_the_evaluation(run: Run) -> None:
    data = labelled()
    found = evaluate_clicks(run, data, scaling="platt")
    curves = click_curves(found)
    assert curves.false_positive[0] == curves.true_positive[0] == 0
    assert curves.false_positive[-1] == curves.true_positive[-1] == 1
    assert sum(curves.count) == len(found.pairs)
    error = sum(
        n / len(found.pairs) * abs(p - o)
        for n, p, o in zip(curves.count, curves.predicted, curves.observed, strict=True)
        if n
    )
    assert error == pytest.approx(found["ece"])
    parts = report_parts(run, data, evaluation=found)
    assert parts.popularity is None and parts.examples == () and parts.clicks is not None
    # Intervals are of means over users; the AUC of all pairs is none.
    assert "auc_user" in parts.intervals and "auc" not in parts.intervals


def test_empty_bins_and_odd_words() -> None:
    curves = ClickCurves([0, 1], [0, 1], [math.nan, 0.9], [math.nan, 0.5], [0, 4], about="<b>&")
    page = render(ReportParts("m", "d", clicks=curves))
    assert Checker(page).open == [] and "&lt;b&gt;&amp;" in page
    assert not re.search(r"\bnan\b", re.sub(r"<style>.*</style>", "", page, flags=re.S))
