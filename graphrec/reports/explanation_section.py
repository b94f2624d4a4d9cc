"""The section of explanations: what a recommendation rests on, a picture of its paths, what the model says of itself.

A row of a table that speaks of one of the user's training interactions carries the two ids (``data-user``,
``data-item``), so that a scan after forgetting can hold it against the training graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd

from graphrec.reports.ego_graph import picture
from graphrec.reports.explanation import Because, Explanation, Node
from graphrec.reports.markup import scroll, section
from graphrec.reports.svg import number

_ROWS = 20
BEGIN, END = "<!-- explanations -->", "<!-- end of explanations -->"


def explanations_section(explanations: Sequence[Explanation]) -> str:
    """A card for each explanation between two marks, by which a page's section can be found; empty without any."""
    cards = []
    for one in explanations:
        body = "".join(f"<h4>{escape(name)}</h4>{text}" for name, text in bodies(one))
        cards.append(
            f'<div class="card explanation"><h3>{escape(title(one))}</h3><p class="soft">{standing(one)}</p>'
            f"{body}</div>"
        )
    return f"{BEGIN}{section('Explanations', ''.join(cards))}{END}\n"


def refreshed(page: str, explanations: Sequence[Explanation]) -> str | None:
    """A report's page with its section of explanations made anew; None for a page without the two marks."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END + "\n")
    return head + explanations_section(explanations) + tail if begin and end else None


def title(explanation: Explanation) -> str:
    """Whose recommendation it is, and of what."""
    return f"Why {explanation.item} for {explanation.user}"


def standing(explanation: Explanation) -> str:
    """Score and place."""
    return f"Score {number(explanation.score)}, place {explanation.rank} of the list."


def bodies(explanation: Explanation) -> list[tuple[str, str]]:
    """What there is to say, as headings and markup: interactions, paths, the model's own tables."""
    found = []
    if explanation.because is not None:
        found.append(("Because", _because(explanation.user, explanation.because)))
    if explanation.strength_by:
        found.append(("Paths", _paths(explanation)))
    return found + [(name, _table(name, table)) for name, table in explanation.tables.items()]


def _paths(explanation: Explanation) -> str:
    """The picture and the table of paths."""
    if not explanation.paths:
        return "<p>No path was found.</p>"
    paths = explanation.paths
    table = _measures(
        "path",
        [(_of(explanation.user, path.nodes[1]), str(path)) for path in paths],
        {
            "score lost without its triples": [path.drop for path in paths],
            "estimated": [path.effect for path in paths],
            "strength": [path.strength for path in paths],
        },
    )
    return f"{picture(explanation)}<p>{escape(explanation.order_sentence())}</p>{scroll('Paths', table)}" + (
        f"<p>{escape(explanation.control_sentence())}</p>" if explanation.control_sentence() else ""
    )


def _because(user: Node, found: Because) -> str:
    """The interactions that the score rests on and what their removal costs."""
    table = _measures(
        "training interaction with",
        [(_of(user, one.item), str(one.item)) for one in found.supports],
        {
            "influence (negative: supports)": [one.influence for one in found.supports],
            "score lost when it is deleted": [one.deleted for one in found.supports],
            "score lost after the removal step": [one.unlearned for one in found.supports],
        },
    )
    return (
        f"<p>{escape(found.sentence())}</p>{scroll('Because', table)}<p>{escape(because_sentence(found))}</p>"
        f"<p>{escape(columns_sentence(found))}</p>"
    )


def _measures(name: str, rows: Sequence[tuple[str, str]], columns: Mapping[str, Sequence[float | None]]) -> str:
    """A table of numbered rows, (attributes, text) each, with what was measured of them; nothing without rows.

    What was measured of none of them has no column.
    """
    if not rows:
        return ""
    taken = {title: values for title, values in columns.items() if any(value is not None for value in values)}
    head = "".join(f'<th scope="col" class="number">{title}</th>' for title in taken)
    body = "".join(
        f"<tr{attributes}><td>{n + 1}</td><td>{escape(text)}</td>"
        + "".join(f'<td class="number">{_cell(values[n])}</td>' for values in taken.values())
        + "</tr>"
        for n, (attributes, text) in enumerate(rows)
    )
    return f'<table><thead><tr><th></th><th scope="col">{name}</th>{head}</tr></thead><tbody>{body}</tbody></table>'


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
        mean = sum(found.controls) / len(found.controls)
        text += f" Removing others of them instead costs {mean:.3g} on average ({len(found.controls)} drawn)."
    return f"{text} {found.note}".strip()


def columns_sentence(found: Because) -> str:
    """What the numbers beside the interactions are, and what their signs say; nothing where there are none."""
    if not found.supports:
        return ""
    told = []
    if any(one.influence is not None for one in found.supports):
        told.append(
            "Influence is the estimated score without the interaction less the score: negative where the interaction "
            "supports the item, positive where it speaks against it."
        )
    again = "after solving again" if found.by == "solved again" else "with the same parameters"
    losses = f"what the score loses when it is deleted ({again})"
    if any(one.unlearned is not None for one in found.supports):
        losses += " and when the parameters are moved as if it had not been trained on (unlearned)"
    return " ".join([*told, f"The other numbers are losses, positive where it supports the item: {losses}."])


def _table(name: str, table: pd.DataFrame) -> str:
    """A table of the model's own, numbers on the right; what is beyond its first rows is folded away."""
    first, rest = _plain_table(table.iloc[:_ROWS]), table.iloc[_ROWS:]
    more = f"<details><summary>{len(rest)} more</summary>{scroll(f'{name}, the rest', _plain_table(rest))}</details>"
    return scroll(name, first) + (more if len(rest) else "")


def _plain_table(table: pd.DataFrame) -> str:
    numeric = [pd.api.types.is_numeric_dtype(table[column]) for column in table.columns]
    classes = [' class="number"' if right else "" for right in numeric]
    head = "".join(
        f'<th scope="col"{kind}>{escape(str(column))}</th>' for column, kind in zip(table.columns, classes, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td{kind}>{number(value) if right else escape(str(value))}</td>"
            for value, kind, right in zip(row, classes, numeric, strict=True)
        )
        + "</tr>"
        for row in table.itertuples(index=False)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _of(user: Node, item: Node) -> str:
    return f' data-user="{escape(str(user.id))}" data-item="{escape(str(item.id))}"'


def _cell(value: float | None) -> str:
    return "" if value is None else number(value)
