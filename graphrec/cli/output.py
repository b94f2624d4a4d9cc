"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """A value as JSON holds it; numbers that are none (NaN, infinity) become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(plain(value), indent=2, ensure_ascii=False))


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return f"{number:.4f}" if abs(number) < 1e4 else f"{number:,.0f}"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    return str(value)


def figures(value: float | None) -> str:
    """Three significant digits, so that a small number is not 0; empty for none."""
    return "" if value is None else f"{value:.3g}"


def table(headers: Sequence[str], rows: Iterable[Iterable[Any]], numbers: Iterable[str] = ()) -> str:
    """Rows under their headers in columns.

    Args:
        headers: one for each column.
        rows: a value for each column.
        numbers: headers of the columns that are aligned on the right.
    """
    lines = [list(headers), *([cell(value) for value in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
    right = set(numbers)
    shown = []
    for line in lines:
        padded = [
            text.rjust(width) if header in right else text.ljust(width)
            for header, text, width in zip(headers, line, widths, strict=True)
        ]
        shown.append("  ".join(padded).rstrip())
    return "\n".join(shown)


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """Names and values of metrics, one a line."""
    return table(["metric", "value"], metrics.items(), ["value"])
