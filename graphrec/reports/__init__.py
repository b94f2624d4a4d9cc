"""The report of a run: one HTML file without outside links, scripts or fonts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from graphrec.errors import InputError
from graphrec.reports.collect import click_curves, examples_of, graph_statistics, report_parts, reproduce_command
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

__all__ = [
    "ClickCurves",
    "EdgeCount",
    "Entry",
    "Example",
    "GraphStatistics",
    "PopularityBias",
    "ReportParts",
    "click_curves",
    "examples_of",
    "graph_statistics",
    "popularity_bias",
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
    page = render(parts).encode("utf-8", errors="replace")
    if out is None:
        assert isinstance(source, Run)
        return source.add({"report.html": page}).path / "report.html"
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page)
    return path
