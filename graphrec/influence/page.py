"""An explanation as one HTML page: what it rests on, a picture of its paths, and what the model says of itself."""

from __future__ import annotations

from graphrec.reports.ego_graph import ego_graph, picture
from graphrec.reports.explanation import Explanation
from graphrec.reports.explanation_section import because_sentence, bodies, columns_sentence, standing, title
from graphrec.reports.markup import document, section

__all__ = ["because_sentence", "columns_sentence", "control_sentence", "ego_graph", "page", "picture"]


def page(explanation: Explanation) -> str:
    """The whole page: one file, nothing from outside."""
    return document(
        title(explanation),
        header=f"<p>{standing(explanation)}</p>",
        main="".join(
            section(name, f'<div class="card explanation">{body}</div>') for name, body in bodies(explanation)
        ),
        footer="Explanation of a graphrec run. Hover over nodes for their names.",
    )


def control_sentence(explanation: Explanation) -> str:
    """What the first path's drop is to be compared with; nothing where no comparison was asked for."""
    return explanation.control_sentence()
