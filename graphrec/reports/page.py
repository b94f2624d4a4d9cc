"""The report as one HTML page: sections from :class:`~graphrec.reports.parts.ReportParts`, in reading order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from graphrec.datasets.tables import PARTS
from graphrec.reports import svg
from graphrec.reports.clicks import click_section
from graphrec.reports.explanation_section import explanations_section
from graphrec.reports.markup import document, figure, scroll, section
from graphrec.reports.parts import Entry, Example, GraphStatistics, PopularityBias, ReportParts

_LOWER_IS_BETTER = ("gini", "logloss", "ece")
_NEITHER_IS_BETTER = ("arp",)
_MAX_METRICS = 14
_MAX_LINES = 4


def render(parts: ReportParts) -> str:
    """The whole page."""
    title = parts.title or f"{parts.model} on {parts.dataset}"
    sections = (
        _results(parts),
        _learning(parts),
        click_section(parts.clicks),
        _users(parts),
        _popularity(parts.popularity, parts.model),
        _graph(parts.graph),
        _examples(parts.examples),
        explanations_section(parts.explanations),
        _notes(parts.notes),
        _again(parts),
    )
    fingerprint = f" · data {escape(parts.fingerprint[:16])}" if parts.fingerprint else ""
    return document(
        title,
        header=f'<p class="soft">{_subtitle(parts)}</p>\n{_tiles(parts)}',
        main="".join(sections),
        footer=f"Report of a graphrec run{fingerprint}. Hover over points and bars for their values.",
    )


def _subtitle(parts: ReportParts) -> str:
    pieces = [f"Model <b>{escape(parts.model)}</b>", f"dataset <b>{escape(parts.dataset)}</b>"]
    if parts.config.get("seed") is not None:
        pieces.append(f"seed {escape(str(parts.config['seed']))}")
    if parts.config.get("status") not in (None, "complete"):
        pieces.append(f"<b>{escape(str(parts.config['status']))}</b>")
    return ", ".join(pieces)


def duration(seconds: float) -> str:
    """Seconds as "41 s", "12 min 5 s" or "3 h 20 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min {int(seconds % 60)} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _numeric(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in metrics.items()
        if isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    }


def _test_metrics(parts: ReportParts) -> dict[str, float]:
    """Metrics of lists: those with a cut-off and no prefix, and of the rest the ones that are known as metrics."""
    about = {"num_users", "seconds", "epochs", "best_epoch", "skipped_users", "dropped_users", "dropped_truth"}
    numeric = _numeric(parts.metrics)
    about |= {"num_pairs", "num_positives", "cold_pairs", "dropped_pairs", "auc_users", "auc_batch_size"}
    set_apart = ("tie_rate", "sampled_negatives", "platt_")
    about |= {key for key in numeric if "seconds" in key or key.startswith(set_apart)}
    return {key: value for key, value in numeric.items() if "/" not in key and key not in about}


def _tiles(parts: ReportParts) -> str:
    tiles: list[tuple[str, str, str]] = []
    for key, value in list(_test_metrics(parts).items())[:2]:
        low, high = parts.intervals.get(key, (math.nan, math.nan))
        span = f"{svg.number(low)} to {svg.number(high)}" if math.isfinite(low) else ""
        tiles.append((_metric_name(key), svg.number(value), span))
    if parts.graph is not None:
        tiles += [
            (f"{name}s", svg.number(parts.graph.nodes[name]), "")
            for name in ("user", "item")
            if name in parts.graph.nodes
        ]
        if parts.graph.edges:
            tiles.append(("training interactions", svg.number(parts.graph.edges[0].edges), ""))
    if "seconds" in parts.metrics:
        epochs = parts.metrics.get("epochs")
        tiles.append(("training", duration(float(parts.metrics["seconds"])), f"{epochs} epochs" if epochs else ""))
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}{f'<small>{escape(more)}</small>' if more else ''}</dd></div>"
        for name, value, more in tiles
    )
    return f'<dl class="tiles">{cells}</dl>' if tiles else ""


_NAMES = {
    "ndcg": "NDCG", "ndcg_hit": "NDCG (hits)", "mrr": "MRR", "map": "MAP", "f1": "F1", "auc": "AUC", "gauc": "GAUC",
    "hitrate": "Hit rate", "arp": "Average popularity", "auc_batch": "AUC (minibatches)", "auc_user": "AUC (users)",
    "acc": "Accuracy", "acc_user": "Accuracy (users)", "logloss": "Log loss", "ece": "Calibration error",
}  # fmt: skip


def _metric_name(key: str) -> str:
    """``valid/recall@20`` as "Recall@20 (valid)"."""
    part, _, rest = key.rpartition("/")
    name, at, k = rest.partition("@")
    readable = _NAMES.get(name) or name.replace("_", " ").capitalize()
    return f"{readable}{at}{k}" + (f" ({part})" if part else "")


def _results(parts: ReportParts) -> str:
    own = _test_metrics(parts)
    keys = list(own)[:_MAX_METRICS]
    if not keys:
        return ""
    columns = {parts.model: parts.metrics, **parts.baselines}
    head = "".join(f'<th scope="col" class="number">{escape(name)}</th>' for name in columns)
    rows = []
    for key in keys:
        values = {name: _numeric(metrics).get(key, math.nan) for name, metrics in columns.items()}
        known = [value for value in values.values() if math.isfinite(value)]
        lower = key.startswith(_LOWER_IS_BETTER)
        best = (min if lower else max)(known) if known else math.nan
        cells = []
        for n, value in enumerate(values.values()):
            interval = parts.intervals.get(key)
            span = (
                f"<small>{svg.number(interval[0])}–<wbr>{svg.number(interval[1])}</small>"
                if n == 0 and interval
                else ""
            )
            classes = "number" + (" own" if n == 0 else "")
            classes += " best" if len(known) > 1 and value == best and not key.startswith(_NEITHER_IS_BETTER) else ""
            cells.append(f'<td class="{classes}">{svg.number(value)}{span}</td>')
        arrow = ' <span role="img" aria-label="lower is better">↓</span>' if lower else ""
        name = escape(_metric_name(key)).replace("@", "<wbr>@")
        rows.append(f'<tr><th scope="row">{name}{arrow}</th>{"".join(cells)}</tr>')
    told = []
    if "num_pairs" in parts.metrics:
        pairs, positives = parts.metrics["num_pairs"], parts.metrics.get("num_positives", 0)
        told.append(f"{svg.number(pairs)} labelled pairs, {svg.number(positives)} of them labelled 1")
        if parts.metrics.get("objective"):
            told.append(f"trained by {escape(str(parts.metrics['objective']))}")
    elif "num_users" in parts.metrics:
        told.append(f"means over {svg.number(parts.metrics['num_users'])} users")
    if parts.metrics.get("mask"):
        told.append(f"ranked over all items except those of {escape(str(parts.metrics['mask']))}")
    if parts.intervals:
        told.append("intervals: 95 % bootstrap over users")
    if parts.baselines:
        told.append("best of each row in bold")
    left = len(own) - len(keys)
    if left:
        told.append(f"{left} more in metrics.json")
    caption = "; ".join(told)
    caption = caption[:1].upper() + caption[1:] + "." if caption else ""
    described = ' aria-describedby="about-results"' if caption else ""
    about = f'<p class="soft" id="about-results">{caption}</p>' if caption else ""
    table = (
        f'<table class="results"{described}>'
        f'<thead><tr><th scope="col">Metric</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    return section("Results on the test part", f'<div class="card">{about}{scroll("Results", table)}</div>')


_SIDE_COLUMNS = ("epoch", "seconds", "memory", "peak_memory", "lr", "step", "eta")


def _is_curve(name: str) -> bool:
    return name.startswith(("recall@", "ndcg@")) or name in ("auc", "auc_user", "acc", "f1")


def _learning(parts: ReportParts) -> str:
    rows = list(parts.history)
    if not rows:
        return ""
    epochs = [float(row.get("epoch", n + 1)) for n, row in enumerate(rows)]
    keys = list(dict.fromkeys(key for row in rows for key, value in row.items() if key in _numeric({key: value})))

    def series(chosen: Sequence[str]) -> list[svg.Series]:
        columns = [[_numeric(row).get(key, math.nan) for row in rows] for key in chosen]
        return [svg.Series(_metric_name(key), epochs, column) for key, column in zip(chosen, columns, strict=True)]

    losses = [key for key in keys if "/" not in key and not any(word in key for word in _SIDE_COLUMNS)]
    losses = (["loss"] if "loss" in losses else []) + [key for key in losses if key != "loss"]
    if len(losses) == 2:
        losses = losses[:1]  # one named term is the loss itself
    of_parts = [key for key in keys if "/" in key and key.partition("/")[0] in PARTS]
    terms = [key for key in keys if "/" in key and key not in of_parts]
    measured = [key for key in of_parts if _is_curve(key.rpartition("/")[2])] or of_parts
    measured.sort(key=lambda key: (-int(k) if (k := key.rpartition("@")[2]).isdigit() else 0, "recall" not in key))
    best = parts.metrics.get("best_epoch")
    mark = None if best is None else float(best)
    told = f" The dashed line is the epoch that was kept ({svg.number(mark)})." if mark is not None else ""
    loss = svg.line_chart("Training loss by epoch", series(losses[:_MAX_LINES]), "epoch", "loss", mark)
    figures = figure(loss, f"<b>Training loss</b>, mean of each epoch.{told}")
    if measured or len(terms) < 2:
        curves = svg.line_chart("Validation metrics by epoch", series(measured[:_MAX_LINES]), "epoch", "metric", mark)
        figures += figure(curves, f"<b>Validation metrics</b> by epoch.{told}")
    else:
        curves = svg.line_chart("Terms of the loss by epoch", series(terms[:_MAX_LINES]), "epoch", "term", mark)
        figures += figure(curves, "<b>Terms of the loss</b>, mean of each epoch; in brackets the phase of training.")
    if not figures:
        return ""
    head = "".join(f'<th scope="col" class="number">{escape(key)}</th>' for key in keys)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="number">{svg.number(value) if (value := _numeric(row).get(key)) is not None else ""}</td>'
            for key in keys
        )
        + "</tr>"
        for row in rows
    )
    table = f'<table class="numbers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    numbers = f"<details><summary>Numbers of every epoch</summary>{scroll('Numbers of every epoch', table)}</details>"
    return section("Learning curves", f'<div class="row">{figures}</div>{numbers}')


def _users(parts: ReportParts) -> str:
    figures = []
    for key, values in list(parts.per_user.items())[:2]:
        values = np.asarray(values, dtype=np.float64)
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        name = _metric_name(key)
        chart = svg.histogram(f"Distribution of {name} over users", values, name, "users")
        middle = svg.number(float(np.median(values)))
        none = f"{(values == 0).mean():.0%} of {len(values):,} users have 0; the median is {middle}."
        figures.append(figure(chart, f"<b>{escape(name)}</b> of each user. {none}"))
    return section("Distribution over users", f'<div class="row">{"".join(figures)}</div>' if figures else "")


def _popularity(bias: PopularityBias | None, model: str) -> str:
    if bias is None:
        return ""
    labels = [str(n + 1) for n in range(len(bias.training))]
    shares = {"training interactions": bias.training, "recommendations": bias.recommended}
    chart = svg.bar_chart(
        "Share of each tenth of the items, by popularity",
        labels,
        shares,
        "tenth of the items, most popular first",
        "share",
    )
    caption = "<b>Popularity bias</b>: share of training interactions and of recommended places by tenth of the items."
    rows = (
        (f"Items recommended to anybody (top {bias.k})", f"{bias.coverage:.1%}"),
        ("Places that go to the most popular tenth", f"{bias.recommended[0]:.1%}"),
        ("Training interactions of the most popular tenth", f"{bias.training[0]:.1%}"),
        ("Gini coefficient of recommendations", svg.number(bias.gini)),
        ("Gini coefficient of training interactions", svg.number(bias.gini_training)),
    )
    body = "".join(f'<tr><th scope="row">{a}</th><td class="number">{b}</td></tr>' for a, b in rows)
    told = f"How evenly {escape(model)} spreads its recommendations. Gini: 0 all items alike, 1 one item takes all."
    table = f"<table><caption>{told}</caption><tbody>{body}</tbody></table>"
    return section("Popularity bias", f'<div class="row">{figure(chart, caption)}<div class="card">{table}</div></div>')


def _graph(graph: GraphStatistics | None) -> str:
    if graph is None:
        return ""
    nodes = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="number">{svg.number(size)}</td></tr>'
        for name, size in graph.nodes.items()
    )
    node_table = (
        '<table><caption>Nodes by type</caption><thead><tr><th scope="col">Type</th>'
        f'<th scope="col" class="number">Nodes</th></tr></thead><tbody>{nodes}</tbody></table>'
    )
    edges = "".join(
        f'<tr><th scope="row">{escape(edge.source)} <b>{escape(edge.name)}</b> {escape(edge.target)}</th>'
        f'<td class="number">{svg.number(edge.edges)}</td><td class="number">{_per_cent(edge.density)}</td></tr>'
        for edge in graph.edges
    )
    edge_table = (
        "<table><caption>Edges by type; density is edges over possible pairs</caption><thead><tr>"
        '<th scope="col">Type</th><th scope="col" class="number">Edges</th><th scope="col" class="number">Density</th>'
        f"</tr></thead><tbody>{edges}</tbody></table>"
    )
    chart = svg.degree_chart("Degree distribution", graph.degrees, "training interactions", "share of nodes")
    degrees = figure(
        chart, "<b>Degrees</b>: share of nodes with at least so many training interactions, both axes logarithmic."
    )
    tables = f'<div class="card">{node_table}<br>{edge_table if graph.edges else ""}</div>'
    return section("The training graph", f'<div class="row">{tables}{degrees}</div>')


def _per_cent(value: float) -> str:
    """Two significant digits at least: 1.72 %, 0.0098 %."""
    if value == 0:
        return "0%"
    digits = max(2, 1 - math.floor(math.log10(value * 100)))
    return f"{value * 100:.{digits}f}%"


def _entries(entries: Sequence[Entry], ordered: bool) -> str:
    rows = []
    for entry in entries:
        detail = f" <small>{escape(entry.detail)}</small>" if entry.detail else ""
        hit = ' <span class="hit">in the test part</span>' if entry.hit else ""
        rows.append(f"<li>{escape(entry.name)}{detail}{hit}</li>")
    tag = "ol" if ordered else "ul"
    return f"<{tag}>{''.join(rows)}</{tag}>"


def _examples(examples: Sequence[Example]) -> str:
    cards = []
    for example in examples:
        more = example.history_size - len(example.history)
        rest = f'<p class="soft"><small>and {more:,} more</small></p>' if more > 0 else ""
        cards.append(
            f'<article class="card"><h3>{escape(example.user)}</h3><div class="pair">'
            f"<div><h4>History (training part)</h4>{_entries(example.history, False)}{rest}</div>"
            f"<div><h4>Recommended</h4>{_entries(example.recommended, True)}</div></div></article>"
        )
    return section("Examples of recommendations", f'<div class="row">{"".join(cards)}</div>' if cards else "")


def _notes(notes: Sequence[str]) -> str:
    entries = "".join(f"<li>{escape(str(note))}</li>" for note in notes)
    return section("What was removed, merged or kept", f'<div class="card"><ul>{entries}</ul></div>' if notes else "")


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted names with printable values."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        elif isinstance(value, (list, tuple)):
            flat[name] = ", ".join(map(str, value))
        elif value is not None:
            flat[name] = f"{value:g}" if isinstance(value, float) else str(value)
    return flat


def _settings(caption: str, settings: Mapping[str, Any]) -> str:
    flat = {key: value for key, value in flatten(settings).items() if value}
    rows = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(value)}</td></tr>' for key, value in flat.items()
    )
    table = f'<table class="settings"><caption>{escape(caption)}</caption><tbody>{rows}</tbody></table>'
    return f'<div class="card">{table}</div>' if rows else ""


def _again(parts: ReportParts) -> str:
    command = (
        f'<div class="card"><h3>Run it again</h3><pre>{escape(parts.command)}</pre></div>' if parts.command else ""
    )
    tables = _settings("Settings", parts.config) + _settings("Environment", parts.environment)
    return section(
        "Settings, environment and how to reproduce", command + (f'<div class="row">{tables}</div>' if tables else "")
    )
