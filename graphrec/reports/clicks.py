"""The section of click prediction: how well labelled pairs are told apart, and whether probabilities are meant."""

from __future__ import annotations

from html import escape

from graphrec.reports import svg
from graphrec.reports.markup import figure, scroll, section
from graphrec.reports.parts import ClickCurves


def click_section(clicks: ClickCurves | None) -> str:
    """The ROC curve and the calibration; nothing where there are none."""
    if clicks is None:
        return ""
    chance = svg.Series("chance", [0.0, 1.0], [0.0, 1.0])
    roc = svg.line_chart(
        "ROC curve",
        [svg.Series("model", clicks.false_positive, clicks.true_positive), chance],
        "share of pairs labelled 0 above the threshold",
        "share of pairs labelled 1",
    )
    perfect = svg.Series("as said", [0.0, 1.0], [0.0, 1.0])
    kept = [n for n, size in enumerate(clicks.count) if size]
    curve = svg.Series("model", [clicks.predicted[n] for n in kept], [clicks.observed[n] for n in kept])
    calibration = svg.line_chart(
        "Calibration", [curve, perfect], "mean predicted probability of the bin", "share labelled 1"
    )
    rows = "".join(
        f'<tr><td class="number">{svg.number(clicks.predicted[n])}</td>'
        f'<td class="number">{svg.number(clicks.observed[n])}</td>'
        f'<td class="number">{svg.number(clicks.count[n])}</td></tr>'
        for n in kept
    )
    table = (
        '<table class="numbers"><thead><tr><th scope="col" class="number">Predicted</th>'
        '<th scope="col" class="number">Labelled 1</th><th scope="col" class="number">Pairs</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    about = f" Probabilities: {escape(clicks.about)}." if clicks.about else ""
    figures = figure(roc, "<b>ROC curve</b>: the area under it is the AUC of all labelled pairs.")
    figures += figure(
        calibration, f"<b>Calibration</b>: what was predicted beside what came true, in bins of probability.{about}"
    )
    numbers = f"<details><summary>Numbers of every bin</summary>{scroll('Numbers of every bin', table)}</details>"
    return section("Click prediction", f'<div class="row">{figures}</div>{numbers}')
