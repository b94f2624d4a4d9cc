"""Pieces of HTML that the sections of a report share."""

from __future__ import annotations

from html import escape


def section(name: str, body: str) -> str:
    """A section with its heading; nothing where the body is empty."""
    return f"<section>\n<h2>{escape(name)}</h2>\n{body}\n</section>\n" if body else ""


def scroll(label: str, table: str) -> str:
    """A table that scrolls sideways where the screen is narrow, reachable by keyboard."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{table}</div>'


def figure(chart: str, caption: str) -> str:
    """A chart with its caption; nothing where there is no chart."""
    return f'<figure class="card">{chart}<figcaption>{caption}</figcaption></figure>' if chart else ""
