"""CiteULike-a: ``users.dat`` and ``item-tag.dat`` with ``count id id …`` on the line of each user or article."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from graphrec.datasets.adapters.common import columns, universe
from graphrec.datasets.adapters.parsing import Ints, first_line, ragged, read_bytes
from graphrec.datasets.builder import Builder
from graphrec.errors import InputError

_LINE = re.compile(r"\s*\d+([ \t]+\d+)*\s*")


def recognise(path: Path) -> bool:
    """A folder with ``users.dat`` and ``item-tag.dat``, lines of whole numbers."""
    return path.is_dir() and all(_LINE.fullmatch(first_line(path / name)) for name in ("users.dat", "item-tag.dat"))


def read(path: Path, builder: Builder) -> None:
    """Read libraries, tags with their words, and citations into ``builder``; nothing is split.

    The line number, from 0, is the user or the article. ``vocabulary.dat`` belongs to word counts that are not part
    of the files, and is not read.
    """
    user, item, users = _counted(path / "users.dat")
    article, tag, articles = _counted(path / "item-tag.dat")
    words = read_bytes(path / "tags.dat").decode("utf-8", "replace").removesuffix("\n").split("\n")
    citing, cited, citers = np.empty(0, np.int64), np.empty(0, np.int64), 0
    if (path / "citations.dat").is_file():
        citing, cited, citers = _counted(path / "citations.dat")
    if len(tag) and int(tag.max()) >= len(words):
        raise InputError(f"{path / 'item-tag.dat'}: tag {tag.max()}, but {path / 'tags.dat'} has {len(words)} lines.")
    items = universe(item, cited, np.arange(max(articles, citers)))
    builder.nodes("user", np.arange(users))
    builder.nodes("item", items)
    builder.nodes("tag", np.arange(len(words)))
    builder.interactions(columns(user=user, item=item), user="user", item="item")
    builder.tags(columns(item=article, tag=tag), item="item", tag="tag")
    builder.names("tag", np.arange(len(words)), words)
    if len(citing):
        links = columns(source=citing, target=cited)
        builder.links(links, source=("item", "source"), relation="cites", target=("item", "target"))


def _counted(path: Path) -> tuple[Ints, Ints, int]:
    """(line number from 0, id) of every id of lines ``count id id …``, and how many lines there are."""
    lines = ragged(path, blank=True, what="count id id …")
    counts = lines.counts
    empty = counts == 0
    promised = np.zeros(len(lines), dtype=np.int64)
    promised[~empty] = lines.values[lines.indptr[:-1][~empty]]
    wrong = np.flatnonzero(promised != np.maximum(counts - 1, 0))
    if len(wrong):
        raise InputError(
            f"{path}, line {wrong[0] + 1}: the count says {promised[wrong[0]]}, "
            f"{max(counts[wrong[0]] - 1, 0)} ids follow."
        )
    owner = np.repeat(np.arange(len(lines)), counts)
    keep = np.ones(len(lines.values), dtype=bool)
    keep[lines.indptr[:-1][~empty]] = False
    return owner[keep], lines.values[keep], len(lines)
