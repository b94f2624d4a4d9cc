"""The report of a run: one HTML file without outside links, scripts or fonts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.reports.collect import click_curves, examples_of, graph_statistics, report_parts, reproduce_command
from graphrec.reports.explanation import Because, Explanation, Node, Support
from graphrec.reports.explanation import Path as ExplainedPath
from graphrec.reports.explanation_section import refreshed
from graphrec.reports.explanations_file import FILE, read_explanations, written
from graphrec.reports.page import render
from graphrec.reports.parts import (
    ClickCurves,
    EdgeCount,
    Entry,
    Example,
    GraphStatistics,
    PopularityBias,
    ReportParts,
    popularity_bias,
)
from graphrec.runs import Run
from graphrec.runs.manifest import HOLDS

REPORT = "report.html"

__all__ = [
    "Because",
    "ClickCurves",
    "EdgeCount",
    "Entry",
    "Example",
    "ExplainedPath",
    "Explanation",
    "GraphStatistics",
    "Node",
    "PopularityBias",
    "ReportParts",
    "Support",
    "add_explanation",
    "click_curves",
    "examples_of",
    "graph_statistics",
    "popularity_bias",
    "read_explanations",
    "render",
    "report_parts",
    "reproduce_command",
    "write_report",
]


def write_report(source: Run | ReportParts, out: str | os.PathLike[str] | None = None, **options: Any) -> Path:
    """Write ``report.html``.

    Args:
        source: a run, or the parts of a report.
        out: the file to write; None: into the run's folder, whose manifest then names it.
        **options: of :func:`report_parts`, where ``source`` is a run.

    Returns:
        The path of the report.

    Raises:
        InputError: parts without a file to write to.
    """
    if isinstance(source, ReportParts):
        if options:
            raise InputError(f"write_report: {', '.join(options)} only go with a run.")
        if out is None:
            raise InputError("write_report: parts need out=, the file to write.")
        parts = source
    else:
        parts = report_parts(source, **options)
    page = _bytes(render(parts))
    if out is None:
        assert isinstance(source, Run)
        return source.add({REPORT: page}, _holds(parts.explanations)).path / REPORT
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page)
    return path


def add_explanation(run: Run, explanation: Explanation, data: RecDataset | None = None) -> Run:
    """Show an explanation in a run's report, and keep it for when the report is made anew.

    It takes the place of an older one of the same user and item. A report that has a section of explanations gets a
    new one and stays as it is otherwise; one that has not, or that is not there, is made anew.

    Args:
        run: of the explained model.
        explanation: see :func:`graphrec.influence.explain`.
        data: the dataset, for a report that is made anew; None: loaded again by the run's config.

    Returns:
        The run, whose manifest names ``explanations.json`` and the report.
    """
    ends = explanation.user.id, explanation.item.id
    kept = [one for one in read_explanations(run) if (one.user.id, one.item.id) != ends]
    kept.append(explanation)
    page = refreshed((run.path / REPORT).read_text(encoding="utf-8"), kept) if REPORT in run.files else None
    if page is not None:
        return run.add({FILE: written(kept), REPORT: _bytes(page)}, _holds(kept))
    run = run.add({FILE: written(kept)})
    write_report(run, data=data)
    return Run(run.path)


def _bytes(page: str) -> bytes:
    return page.encode("utf-8", errors="replace")


def _holds(explanations: Sequence[Explanation]) -> dict[str, tuple[str, ...]]:
    """What the report holds, for the manifest: explanations name interactions."""
    return {REPORT: (*HOLDS[REPORT], "pairs") if explanations else HOLDS[REPORT]}
