"""How the evidence is set down in ``forgetting.html``: numbers, cells, tables of the four rows, histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from graphrec.reports import svg
from graphrec.reports.markup import figure, scroll
from graphrec.unlearning.evidence.measures import BEFORE, RETRAINED, ROWS, UNLEARNED, Measure
from graphrec.unlearning.evidence.report import Report

SHOWN = (UNLEARNED, BEFORE, RETRAINED)
"""The rows that charts show, in their order."""


def pairs_table(caption: str, rows: Mapping[str, str]) -> str:
    """A table of names and values (HTML already); nothing where all values are empty."""
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{value}</td></tr>' for name, value in rows.items() if value
    )
    return f'<table class="settings"><caption>{escape(caption)}</caption><tbody>{body}</tbody></table>' if body else ""


def as_share(value: float) -> str:
    """A share in per cent."""
    return f"{value * 100:.1f} %"


def plain_number(value: float) -> str:
    """Four decimals below 10, so that a column can be read down; never in powers of ten."""
    if math.isnan(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"


def row_cell(found: Measure | None, own: bool = False) -> str:
    """A measure of one row with its gap or its spread below it; ``own`` marks the unlearned model's."""
    classes = "number own" if own else "number"
    if found is None:
        return f'<td class="{classes}">–</td>'
    if found.row == RETRAINED:
        more = "" if math.isnan(found.sd) else f"<small>± {plain_number(found.sd)}</small>"
    elif math.isnan(found.gap_sd):
        more = "" if math.isnan(found.gap) else f"<small>{found.gap:+.4f}</small>"
    elif abs(found.gap_sd) >= 100:
        more = f"<small>{'+' if found.gap_sd > 0 else '-'}over 100 sd</small>"
    else:
        more = f"<small>{found.gap_sd:+.1f} sd</small>"
    return f'<td class="{classes}">{plain_number(found.value)}{more}</td>'


def rows_table(report: Report, lines: Mapping[str, tuple[str, str, str]], caption: str) -> str:
    """A line for each metric, a column for each row of the evidence."""
    head = "".join(
        f'<th scope="col" class="number{" own" if row == UNLEARNED else ""}">{escape(row)}</th>' for row in ROWS
    )
    body = []
    for name, (part, metric, group) in lines.items():
        found = [report.find(part, metric, row, group) for row in ROWS]
        if any(one is not None for one in found):
            cells = "".join(row_cell(one, row == UNLEARNED) for one, row in zip(found, ROWS, strict=True))
            body.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    if not body:
        return ""
    table = (
        f'<table class="results rows"><caption>{escape(caption)}</caption><thead><tr><th scope="col">Metric</th>{head}'
        f"</tr></thead><tbody>{''.join(body)}</tbody></table>"
    )
    return scroll(caption, table)


def histogram(report: Report, name: str, axis: str, caption: str) -> str:
    """The figure of one of the report's histograms; nothing where there is none."""
    found = report.histograms.get(name)
    if found is None:
        return ""
    counts: dict[str, list[float]] = {row: found.counts[row] for row in SHOWN if row in found.counts}
    chart = svg.step_histograms(f"Histogram of {axis}", found.edges, counts, axis, "share of interactions")
    return figure(chart, caption)


def interval_cell(found: Measure | None) -> str:
    """A measure with its 95 % interval below it."""
    if found is None:
        return '<td class="number">–</td>'
    ends = "" if math.isnan(found.low) else f"<small>{found.low:.3f} to {found.high:.3f}</small>"
    return f'<td class="number">{found.value:.3f}{ends}</td>'


def words(name: str) -> str:
    """The name of an attack as words."""
    return name.replace("_", " ")
