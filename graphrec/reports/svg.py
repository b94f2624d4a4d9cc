"""Charts as inline SVG: numbers in, markup out. Colours come from the page's style by class, so both schemes work."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 420, 262
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 12, 46
_MARKS = ("circle", "square", "diamond", "triangle")


@dataclass(frozen=True)
class Series:
    """A named line or set of points: x (N,), y (N,)."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def number(value: float) -> str:
    """A value as a person would write it: four decimals below 1, thousands with commas, no trailing noise."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return str(value)
    if not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.4f}" if size >= 0.001 else f"{value:.1e}"


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that cover most of [low, high]."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if rough <= power * factor * (1 + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def _tick_label(value: float) -> str:
    if value and abs(value) >= 10_000:
        return f"{value / 1000:,.6g}k" if abs(value) < 1e6 else f"{value / 1e6:,.6g}M"
    return f"{value:,.6g}"


@dataclass(frozen=True)
class _Axis:
    """One axis: values to pixels, and its ticks."""

    place: Callable[[float], float]
    ticks: list[float]


def _linear(low: float, high: float, start: float, stop: float, wanted: int = 5) -> _Axis:
    if not high > low:
        high = low + (abs(low) or 1.0)
    return _Axis(lambda v: start + (v - low) / (high - low) * (stop - start), ticks(low, high, wanted))


def _logarithmic(low: float, high: float, start: float, stop: float) -> _Axis:
    low, high = math.floor(math.log10(low)), max(math.ceil(math.log10(high) - 1e-9), math.floor(math.log10(low)) + 1)
    scale = (stop - start) / (high - low)
    return _Axis(lambda v: start + (math.log10(v) - low) * scale, [10.0**n for n in range(int(low), int(high) + 1)])


def _p(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _frame(x: _Axis, y: _Axis, x_label: str, y_label: str) -> list[str]:
    bottom = HEIGHT - _BOTTOM
    parts = []
    for tick in y.ticks:
        at = _p(y.place(tick))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 6}" y="{at}" dy=".35em" text-anchor="end">{_tick_label(tick)}</text>'
        )
    for tick in x.ticks:
        at = _p(x.place(tick))
        parts.append(f'<line class="axis" x1="{at}" x2="{at}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text class="tick" x="{at}" y="{bottom + 16}" text-anchor="middle">{_tick_label(tick)}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text class="label" x="{_p(middle)}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    centre = (_TOP + bottom) / 2
    parts.append(
        f'<text class="label" transform="translate(13 {_p(centre)}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    return parts


def _svg(title: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def legend(names: Sequence[str], bars: bool = False) -> str:
    """Names beside the marks of their series, as HTML that wraps on narrow screens."""
    entries = []
    for n, name in enumerate(names):
        mark = '<rect x="1" y="1" width="12" height="12"/>' if bars else _mark(n, 7, 7, 4.5)
        entries.append(
            f'<li><svg class="key" viewBox="0 0 14 14" aria-hidden="true"><g class="s{n % 4} fill">{mark}</g></svg>'
            f"{escape(name)}</li>"
        )
    return f'<ul class="legend">{"".join(entries)}</ul>'


def _mark(series: int, x: float, y: float, size: float, title: str = "") -> str:
    inner = f"<title>{escape(title)}</title>" if title else ""
    kind = _MARKS[series % 4]
    if kind == "circle":
        return f'<circle cx="{_p(x)}" cy="{_p(y)}" r="{size}">{inner}</circle>'
    shape: list[tuple[float, float]]
    if kind == "square":
        shape = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    elif kind == "diamond":
        shape = [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)]
    else:
        shape = [(0, -1.3), (1.2, 0.9), (-1.2, 0.9)]
    points = " ".join(f"{_p(x + size * a * 0.9)},{_p(y + size * b * 0.9)}" for a, b in shape)
    return f'<polygon points="{points}">{inner}</polygon>'


def line_chart(title: str, series: Sequence[Series], x_label: str, y_label: str, marked: float | None = None) -> str:
    """Lines over a linear axis, with marks that tell their values, and a legend where there are several.

    Args:
        title: said by screen readers.
        series: lines; points that are not finite are left out.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        marked: a place on the horizontal axis to mark with a vertical line (the best epoch).
    """
    finite = []
    for line in series:
        pairs = [(a, b) for a, b in zip(line.x, line.y, strict=True) if math.isfinite(a) and math.isfinite(b)]
        if pairs:
            finite.append(Series(line.name, [a for a, _ in pairs], [b for _, b in pairs]))
    if not finite:
        return ""
    low_x, high_x = min(min(s.x) for s in finite), max(max(s.x) for s in finite)
    low, high = min(min(s.y) for s in finite), max(max(s.y) for s in finite)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    # Starting at zero where that costs little keeps small changes from looking large.
    low = 0.0 if 0 <= low < 0.4 * high else low - margin
    x = _linear(low_x, high_x, _LEFT + 6, WIDTH - _RIGHT - 6, 6)
    y = _linear(low, high + margin, HEIGHT - _BOTTOM, _TOP)
    if all(float(v).is_integer() for s in finite for v in s.x):
        x = _Axis(x.place, [t for t in x.ticks if float(t).is_integer()])
    parts = _frame(x, y, x_label, y_label)
    if marked is not None and low_x <= marked <= high_x:
        at = _p(x.place(marked))
        parts.append(f'<line class="mark" x1="{at}" x2="{at}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
    for n, line in enumerate(finite):
        places = [(x.place(a), y.place(b)) for a, b in zip(line.x, line.y, strict=True)]
        path = " ".join(f"{_p(a)},{_p(b)}" for a, b in places)
        parts.append(f'<polyline class="s{n % 4} line" points="{path}"/>')
        every = max(1, math.ceil(len(places) / 40))
        size = 2.6 if len(places) > 15 else 3.4
        marks = []
        for i in sorted({*range(0, len(places), every), len(places) - 1}):
            told = f"{line.name}, {x_label} {number(line.x[i])}: {number(line.y[i])}"
            marks.append(_mark(n, places[i][0], places[i][1], size, told))
        parts.append(f'<g class="s{n % 4} fill">{"".join(marks)}</g>')
    return _svg(title, parts) + (legend([s.name for s in finite]) if len(finite) > 1 else "")


def bar_chart(
    title: str, labels: Sequence[str], series: Mapping[str, Sequence[float]], x_label: str, y_label: str
) -> str:
    """Groups of bars from zero up, a bar for each series."""
    high = max((max(values) for values in series.values()), default=0.0)
    y = _linear(0.0, (high or 1.0) * 1.05, HEIGHT - _BOTTOM, _TOP)
    left, right = _LEFT + 4, WIDTH - _RIGHT
    slot = (right - left) / max(len(labels), 1)
    parts = _frame(_Axis(lambda v: v, []), y, x_label, y_label)
    width = slot * 0.8 / max(len(series), 1)
    for n, (name, values) in enumerate(series.items()):
        bars = []
        for i, value in enumerate(values):
            at, top = left + slot * (i + 0.1) + width * n, y.place(value)
            bars.append(
                f'<rect x="{_p(at)}" y="{_p(top)}" width="{_p(width)}" height="{_p(HEIGHT - _BOTTOM - top)}">'
                f"<title>{escape(name)}, {escape(labels[i])}: {number(value)}</title></rect>"
            )
        parts.append(f'<g class="s{n % 4} fill">{"".join(bars)}</g>')
    for i, label in enumerate(labels):
        at = left + slot * (i + 0.5)
        parts.append(
            f'<text class="tick" x="{_p(at)}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{escape(label)}</text>'
        )
    return _svg(title, parts) + (legend(list(series), bars=True) if len(series) > 1 else "")


def histogram(title: str, values: NDArray[np.float64], x_label: str, y_label: str, bins: int = 20) -> str:
    """How often values fall into equal bins, with a vertical line at their mean."""
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return ""
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif not high > low:
        high = low + 1.0
    counts, edges = np.histogram(values, bins=bins, range=(low, high))
    x = _linear(low, high, _LEFT + 2, WIDTH - _RIGHT - 4)
    y = _linear(0.0, float(counts.max()) * 1.05, HEIGHT - _BOTTOM, _TOP)
    parts = _frame(x, y, x_label, y_label)
    bars = []
    for size, a, b in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        left, right, top = x.place(a), x.place(b), y.place(size)
        bars.append(
            f'<rect x="{_p(left + 0.5)}" y="{_p(top)}" width="{_p(right - left - 1)}" '
            f'height="{_p(HEIGHT - _BOTTOM - top)}"><title>{number(float(a))} to {number(float(b))}: '
            f"{size:,}</title></rect>"
        )
    parts.append(f'<g class="s0 fill">{"".join(bars)}</g>')
    mean = float(values.mean())
    at = x.place(mean)
    anchor, shift = ("end", -5) if at > WIDTH / 2 else ("start", 5)
    parts.append(f'<line class="mark" x1="{_p(at)}" x2="{_p(at)}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
    parts.append(
        f'<text class="label strong" x="{_p(at + shift)}" y="{_TOP + 12}" text-anchor="{anchor}">'
        f"mean {number(mean)}</text>"
    )
    return _svg(title, parts)


def step_histograms(
    title: str, edges: Sequence[float], counts: Mapping[str, Sequence[float]], x_label: str, y_label: str
) -> str:
    """Outlines of several histograms over the same bins, each as the share of its own total; no fill hides another.

    Args:
        title: said by screen readers.
        edges: (B + 1,) of the bins, ascending.
        counts: (B,) by name; names without any count are left out.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
    """
    shares = {name: np.asarray(values, dtype=np.float64) for name, values in counts.items()}
    shares = {name: values / values.sum() for name, values in shares.items() if values.sum() > 0}
    if not shares:
        return ""
    x = _linear(float(edges[0]), float(edges[-1]), _LEFT + 2, WIDTH - _RIGHT - 4)
    y = _linear(0.0, max(float(values.max()) for values in shares.values()) * 1.05, HEIGHT - _BOTTOM, _TOP)
    parts = _frame(x, y, x_label, y_label)
    floor = HEIGHT - _BOTTOM
    for n, (name, values) in enumerate(shares.items()):
        corners = [(x.place(float(edges[0])), float(floor))]
        for left, right, share in zip(edges[:-1], edges[1:], values.tolist(), strict=True):
            corners += [(x.place(float(left)), y.place(share)), (x.place(float(right)), y.place(share))]
        corners.append((x.place(float(edges[-1])), float(floor)))
        path = " ".join(f"{_p(a)},{_p(b)}" for a, b in corners)
        parts.append(f'<polyline class="s{n % 4} line" points="{path}"><title>{escape(name)}</title></polyline>')
    return _svg(title, parts) + (legend(list(shares), bars=True) if len(shares) > 1 else "")


def degree_chart(title: str, degrees: Mapping[str, NDArray[np.int64]], x_label: str, y_label: str) -> str:
    """Share of nodes with at least a given degree, both axes logarithmic, a set of points for each kind of node.

    The complementary cumulative distribution needs no bins: a power law is a straight line in it. Nodes of degree 0
    count in the total and have no place on the axis.
    """
    series = []
    for name, values in degrees.items():
        distinct, counts = np.unique(np.asarray(values, dtype=np.int64), return_counts=True)
        share = counts[::-1].cumsum()[::-1] / max(len(values), 1)
        distinct, share = distinct[distinct > 0], share[distinct > 0]
        if len(distinct) > 60:
            wanted = np.geomspace(distinct[0], distinct[-1], 60)
            keep = np.unique(np.searchsorted(distinct, wanted))
            distinct, share = distinct[keep], share[keep]
        if len(distinct):
            series.append((name, distinct, share))
    if not series:
        return ""
    x = _logarithmic(1, max(float(d[-1]) for _, d, _ in series), _LEFT + 6, WIDTH - _RIGHT - 10)
    y = _logarithmic(min(float(s[-1]) for _, _, s in series), 1, HEIGHT - _BOTTOM, _TOP)
    parts = _frame(x, y, x_label, y_label)
    for n, (name, distinct, share) in enumerate(series):
        marks = "".join(
            _mark(n, x.place(d), y.place(s), 2.8, f"{name} with at least {d:,}: {s:.2%}")
            for d, s in zip(distinct.tolist(), share.tolist(), strict=True)
        )
        parts.append(f'<g class="s{n % 4} fill">{marks}</g>')
    return _svg(title, parts) + legend([name for name, _, _ in series])
