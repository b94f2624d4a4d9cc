"""An explanation as one HTML page: what it rests on, a picture of its paths, and what the model says of itself."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import Any

import networkx
import numpy as np

from graphrec.influence.because import Because
from graphrec.influence.explain import Explanation
from graphrec.reports.markup import document
from graphrec.reports.svg import number

_WIDTH, _ROW, _TOP = 760, 44, 26
_BECAUSE = ("influence", "score lost when it is deleted", "score lost after the removal step")
_STYLE = """
.ego { width: 100%; height: auto; }
.ego line { stroke: currentColor; stroke-opacity: .45; }
.ego text { fill: currentColor; font-size: 12px; }
.ego .relation { font-size: 10px; fill-opacity: .7; }
.ego circle { fill: var(--s0); }
.ego .item circle { fill: var(--s1); }
.ego .entity circle { fill: var(--s2); }
"""


def ego_graph(explanation: Explanation) -> networkx.MultiDiGraph[Any]:
    """The nodes and relations of the explanation's paths; each edge has the strength of its strongest path."""
    graph: networkx.MultiDiGraph[Any] = networkx.MultiDiGraph()
    for path in explanation.paths:
        for place, (node, after) in enumerate(zip(path.nodes, path.nodes[1:], strict=False)):
            for end, layer in ((node, place), (after, place + 1)):
                key = end.node_type, end.id
                last = end == explanation.item
                known = graph.nodes[key]["layer"] if key in graph else 0
                graph.add_node(key, node=end, layer=max(known, layer), last=last)
            name, inverse = path.relations[place]
            ends = ((node.node_type, node.id), (after.node_type, after.id))
            if not graph.has_edge(*ends, key=name):
                graph.add_edge(*ends, key=name, inverse=inverse, strength=path.strength)
    if graph:
        deepest = max(int(values["layer"]) for _, values in graph.nodes(data=True))
        for _, values in graph.nodes(data=True):
            if values["last"]:
                values["layer"] = deepest
    return graph


def picture(explanation: Explanation) -> str:
    """The ego graph as SVG: the user on the left, the item on the right (networkx's multipartite layout)."""
    graph = ego_graph(explanation)
    if not graph:
        return ""
    layout = networkx.multipartite_layout(graph, subset_key="layer")
    places = np.array([layout[key] for key in graph])
    height = 2 * _TOP + _ROW * max(_rows(graph), 2)
    low, span = places.min(0), np.maximum(places.max(0) - places.min(0), 1e-9)
    scaled = (places - low) / span
    scaled[:, 1] = np.where(np.ptp(places[:, 1]) < 1e-9, 0.5, scaled[:, 1])
    at = {
        key: (90 + x * (_WIDTH - 180), _TOP + y * (height - 2 * _TOP))
        for key, (x, y) in zip(graph, scaled.tolist(), strict=True)
    }
    strongest = max(float(values["strength"]) for _, _, values in graph.edges(data=True)) or 1.0
    parts = []
    for source, target, name, values in graph.edges(keys=True, data=True):
        (x1, y1), (x2, y2) = at[source], at[target]
        width = 1 + 3 * values["strength"] / strongest
        label = f"← {name}" if values["inverse"] else f"{name} →"
        parts.append(f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" stroke-width="{width:.1f}"/>')
        parts.append(
            f'<text class="relation" text-anchor="middle" x="{(x1 + x2) / 2:.0f}" y="{(y1 + y2) / 2 - 4:.0f}">'
            f"{escape(_short(label, 26))}</text>"
        )
    for key, values in graph.nodes(data=True):
        node, (x, y) = values["node"], at[key]
        parts.append(
            f'<g class="{escape(node.node_type)}"><title>{escape(str(node))}</title>'
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="7"/>'
            f'<text text-anchor="middle" x="{x:.0f}" y="{y + 20:.0f}">{escape(_short(str(node), 24))}</text></g>'
        )
    title = f"Paths from {explanation.user} to {explanation.item}"
    box = f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}"'
    return f'<svg class="ego" {box}>{"".join(parts)}</svg>'


def page(explanation: Explanation) -> str:
    """The whole page: one file, nothing from outside."""
    title = f"Why {explanation.item} for {explanation.user}"
    tables = "".join(
        f"<section><h2>{escape(name)}</h2>{table.to_html(index=False, border=0, float_format=number)}</section>"
        for name, table in explanation.tables.items()
    )
    return document(
        title,
        header=f"<p>Score {number(explanation.score)}, place {explanation.rank} of the list.</p>",
        main=f"{because_section(explanation)}{_paths(explanation)}{tables}\n",
        footer="Explanation of a graphrec run. Hover over nodes for their names.",
        style=_STYLE,
    )


def _paths(explanation: Explanation) -> str:
    """The picture and the table of paths; nothing for a model that reads no knowledge graph."""
    if not explanation.strength_by:
        return ""
    rows = "".join(
        f"<tr><td>{n}</td><td>{escape(str(path))}</td><td>{number(path.strength)}</td><td>{_cell(path.drop)}</td></tr>"
        for n, path in enumerate(explanation.paths, 1)
    )
    return (
        f"<section><h2>Paths</h2>{picture(explanation) or '<p>No path was found.</p>'}"
        f"<table><thead><tr><th></th><th>path</th><th>strength</th><th>score lost without its triples</th></tr></thead>"
        f"<tbody>{rows}</tbody></table><p>{escape(control_sentence(explanation))}</p></section>"
    )


def because_section(explanation: Explanation) -> str:
    """The interactions that the score rests on and what their removal costs; nothing where they were not asked for."""
    found = explanation.because
    if found is None:
        return ""
    rows = "".join(
        f"<tr><td>{n}</td><td>{escape(str(one.item))}</td><td>{_cell(one.influence)}</td><td>{_cell(one.deleted)}</td>"
        f"<td>{_cell(one.unlearned)}</td></tr>"
        for n, one in enumerate(found.supports, 1)
    )
    head = "".join(f"<th>{title}</th>" for title in ("", "training interaction with", *_BECAUSE))
    return (
        f"<section><h2>Because</h2><p>{escape(found.sentence())}</p><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table><p>{escape(because_sentence(found))}</p></section>"
    )


def because_sentence(found: Because) -> str:
    """How the interactions were found, and what their losses are to be compared with."""
    ranked = {
        "influence": "by influence (an estimate); the losses of score are measured after removing each",
        "deletion": "by what the score loses when each is deleted and the parameters stay",
        "solved again": "by solving the model again without each",
    }[found.by]
    text = f"{found.candidates} of the user's {found.interactions} training interactions were ranked {ranked}."
    if "relative_residual" in found.facts:
        text += (
            f" Gauss-Newton with damping {found.facts['damping']:.3g}, relative residual "
            f"{found.facts['relative_residual']:.1e}, gradient norm {found.facts['gradient_norm']:.3g}."
        )
    if found.controls:
        mean = float(np.mean(found.controls))
        text += f" Removing others of them instead costs {mean:.4g} on average ({len(found.controls)} drawn)."
    return text


def _cell(value: float | None) -> str:
    return "" if value is None else number(value)


def control_sentence(explanation: Explanation) -> str:
    """What the strongest path's drop is to be compared with."""
    if not explanation.controls or not explanation.paths:
        return "No control triples were found to compare with."
    mean = float(np.mean(explanation.controls))
    return (
        f"Taking out other triples of the same relations and of similar degree instead of the strongest path's costs "
        f"{mean:.4g} on average ({len(explanation.controls)} draws)."
    )


def _rows(graph: networkx.MultiDiGraph[Any]) -> int:
    """Nodes in the fullest layer."""
    return max(Counter(values["layer"] for _, values in graph.nodes(data=True)).values())


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
