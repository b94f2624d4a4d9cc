"""The graph of an explanation's paths, and its picture: the user on the left, the item on the right."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import Any

import networkx
import numpy as np

from graphrec.reports.explanation import Explanation, Path
from graphrec.reports.markup import scroll

_WIDTH, _ROW, _TOP = 760, 48, 26
# Half of it is how far a line rises or falls from the middle row: its label has to pass below that of the node.
_LEAST = 160


def ego_graph(explanation: Explanation) -> networkx.MultiDiGraph[Any]:
    """The nodes and relations of the explanation's paths.

    Each edge has the strength of its strongest path, and as ``weight`` the largest drop, or without drops the largest
    strength, of its paths.
    """
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
                graph.add_edge(*ends, key=name, inverse=inverse, strength=path.strength, weight=_weight(path))
            known_edge = graph.edges[(*ends, name)]
            known_edge["strength"] = max(known_edge["strength"], path.strength)
            known_edge["weight"] = max(known_edge["weight"], _weight(path))
    if graph:
        deepest = max(int(values["layer"]) for _, values in graph.nodes(data=True))
        for _, values in graph.nodes(data=True):
            if values["last"]:
                values["layer"] = deepest
    return graph


def _weight(path: Path) -> float:
    return path.strength if path.drop is None else max(path.drop, 0.0)


def picture(explanation: Explanation) -> str:
    """The ego graph as SVG (networkx's multipartite layout); nothing without paths. Wide lines cost the score much."""
    graph = ego_graph(explanation)
    if not graph:
        return ""
    layout = networkx.multipartite_layout(graph, subset_key="layer")
    places = np.array([layout[key] for key in graph])
    rows = _rows(graph)
    height = 2 * _TOP + max(_ROW * rows, _LEAST if rows > 1 else 2 * _ROW)
    low, span = places.min(0), np.maximum(places.max(0) - places.min(0), 1e-9)
    scaled = (places - low) / span
    scaled[:, 1] = np.where(np.ptp(places[:, 1]) < 1e-9, 0.5, scaled[:, 1])
    at = {
        key: (90 + x * (_WIDTH - 180), _TOP + y * (height - 2 * _TOP))
        for key, (x, y) in zip(graph, scaled.tolist(), strict=True)
    }
    heaviest = max(float(values["weight"]) for _, _, values in graph.edges(data=True)) or 1.0
    # Relations that join the same two nodes share a line and its label.
    joined: dict[tuple[Any, Any], list[tuple[str, float]]] = {}
    for source, target, name, values in graph.edges(keys=True, data=True):
        label = f"← {name}" if values["inverse"] else f"{name} →"
        joined.setdefault((source, target), []).append((label, float(values["weight"])))
    lines, labels = [], []
    for (source, target), relations in joined.items():
        (x1, y1), (x2, y2) = at[source], at[target]
        width = 1 + 3 * max(weight for _, weight in relations) / heaviest
        label = ", ".join(text for text, _ in relations)
        lines.append(f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" stroke-width="{width:.1f}"/>')
        labels.append(
            f'<text class="relation" text-anchor="middle" x="{(x1 + x2) / 2:.0f}" y="{(y1 + y2) / 2 - 4:.0f}">'
            f"<title>{escape(label)}</title>{escape(_short(label, 26))}</text>"
        )
    nodes = []
    for key, values in graph.nodes(data=True):
        node, (x, y) = values["node"], at[key]
        nodes.append(
            f'<g class="{escape(node.node_type)}"><title>{escape(str(node))}</title>'
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="7"/>'
            f'<text text-anchor="middle" x="{x:.0f}" y="{y + 20:.0f}">{escape(_short(str(node), 24))}</text></g>'
        )
    title = f"Paths from {explanation.user} to {explanation.item}"
    box = f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}"'
    return scroll(title, f'<svg class="ego" {box}>{"".join([*lines, *labels, *nodes])}</svg>')


def _rows(graph: networkx.MultiDiGraph[Any]) -> int:
    """Nodes in the fullest layer."""
    return max(Counter(values["layer"] for _, values in graph.nodes(data=True)).values())


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
