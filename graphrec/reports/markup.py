"""Pieces of HTML that the sections of a report share."""

from __future__ import annotations

from html import escape
from importlib.resources import files

# Nothing but the page's own style: even a name that slipped through unescaped could not fetch or run anything.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def document(title: str, *, header: str, main: str, footer: str, style: str = "") -> str:
    """A whole page in one file that fetches nothing and runs nothing.

    Args:
        title: of the window, and of the page's first heading; plain text.
        header: markup below the heading.
        main: the sections.
        footer: markup at the end.
        style: rules beside those that all pages share.
    """
    shared = (files("graphrec.reports") / "style.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{shared}{style}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escape(title)}</h1>\n{header}\n</header>\n<main>\n{main}</main>\n"
        f"<footer>{footer}</footer>\n</body>\n</html>\n"
    )


def section(name: str, body: str) -> str:
    """A section with its heading; nothing where the body is empty."""
    return f"<section>\n<h2>{escape(name)}</h2>\n{body}\n</section>\n" if body else ""


def scroll(label: str, table: str) -> str:
    """A table that scrolls sideways where the screen is narrow, reachable by keyboard; nothing where there is none."""
    if not table:
        return ""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{table}</div>'


def figure(chart: str, caption: str) -> str:
    """A chart with its caption; nothing where there is no chart."""
    return f'<figure class="card">{chart}<figcaption>{caption}</figcaption></figure>' if chart else ""
