"""The known datasets: what they are, where they come from, under which terms, how large, and whether they are at hand.

The entries lie in ``registry.json``, which :mod:`graphrec.datasets.registry_make` writes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from graphrec.datasets.cache import cache_root
from graphrec.errors import unknown


@dataclass(frozen=True)
class Source:
    """A public repository that a dataset was taken from: its address, the commit, the paths in it."""

    repository: str
    commit: str
    paths: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f" ({', '.join(self.paths)})" if self.paths else ""
        return f"{self.repository} at {self.commit[:12]}{where}"


@dataclass(frozen=True)
class File:
    """One file of a dataset.

    Attributes:
        name: its path within the folder of the dataset.
        bytes: its size.
        sha256: of its bytes.
        addresses: where these bytes can be had, tried in turn; an address of an archive ends in ``#member``.
        blob: the git blob id of other bytes with the same content (items in another order) that are as good.
    """

    name: str
    bytes: int
    sha256: str
    addresses: tuple[str, ...] = ()
    blob: str = ""


@dataclass(frozen=True)
class Entry:
    """A known dataset.

    Attributes:
        name: of its folder and for :func:`graphrec.datasets.load`.
        title: what it is.
        adapter: the format that reads it.
        licence: the terms, as its owner or publisher states them.
        citation: what to cite.
        split: how it is split, or that it is not.
        sources: where it was taken from.
        files: what its folder holds.
        sizes: nodes of each type, rows of each part, edges of each edge type.
        digests: sha256 of the canonical content (sorted rows of each part), see :meth:`RecDataset.digests`.
        fingerprint: of the dataset as loaded without options.
    """

    name: str
    title: str
    adapter: str
    licence: str
    citation: str
    split: str
    sources: tuple[Source, ...]
    files: tuple[File, ...]
    sizes: Mapping[str, int]
    digests: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def interactions(self) -> int:
        """Ranked interactions of all parts, labelled negatives left out."""
        return sum(self.sizes.get(part, 0) for part in ("interactions", "train", "valid", "test"))

    @property
    def downloadable(self) -> bool:
        """Whether its owner allows a download and every file has an address."""
        return bool(self.files) and all(file.addresses for file in self.files)

    def manual(self, folder: Path) -> str:
        """Which files to put where, and where they come from, as a message says it."""
        names = ", ".join(file.name for file in self.files)
        came = "; ".join(str(source) for source in self.sources)
        return f"Put {names} into {folder}. Origin: {came}. Terms: {self.licence}"


@dataclass(frozen=True)
class Row:
    """A line of the table: an entry and where it lies.

    Attributes:
        entry: the dataset.
        folder: where it was found; None where it was not.
        missing: files that a found folder lacks.
    """

    entry: Entry
    folder: Path | None
    missing: tuple[str, ...] = ()

    @property
    def present(self) -> bool:
        """Whether it can be loaded without a download."""
        return self.folder is not None and not self.missing

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and for a frame."""
        return {
            "name": self.entry.name,
            "title": self.entry.title,
            **self.entry.sizes,
            "interactions": self.entry.interactions,
            "present": self.present,
            "folder": None if self.folder is None else str(self.folder),
            "missing": list(self.missing),
            "downloadable": self.entry.downloadable,
            "format": self.entry.adapter,
            "split": self.entry.split,
            "licence": self.entry.licence,
            "citation": self.entry.citation,
            "sources": [str(source) for source in self.entry.sources],
        }


def _file(raw: Mapping[str, Any]) -> File:
    return File(raw["name"], raw["bytes"], raw["sha256"], tuple(raw.get("addresses", ())), raw.get("blob", ""))


def entry_from(raw: Mapping[str, Any]) -> Entry:
    """An entry out of its JSON object."""
    plain = {name: value for name, value in raw.items() if name not in ("sources", "files", "sizes", "digests")}
    return Entry(
        **plain,
        sources=tuple(Source(s["repository"], s["commit"], tuple(s.get("paths", ()))) for s in raw["sources"]),
        files=tuple(_file(about) for about in raw["files"]),
        sizes=MappingProxyType(dict(raw["sizes"])),
        digests=MappingProxyType(dict(raw.get("digests", {}))),
    )


@cache
def entries() -> Mapping[str, Entry]:
    """All entries by name."""
    text = package_files("graphrec.datasets").joinpath("registry.json").read_text("utf-8")
    return MappingProxyType({raw["name"]: entry_from(raw) for raw in json.loads(text)})


def get(name: str) -> Entry:
    """The entry of a name.

    Raises:
        InputError: there is none; shows the nearest name.
    """
    if name not in entries():
        raise unknown("dataset", name, entries())
    return entries()[name]


def user_folder() -> Path:
    """Where downloaded datasets lie: ``downloads`` in the cache."""
    return cache_root() / "downloads"


def roots(root: str | Path | None = None) -> tuple[Path, ...]:
    """Where a dataset's own folder is looked for: ``root`` alone, or $GRAPHREC_DATA and the user's cache."""
    if root is not None:
        return (Path(root),)
    named = os.environ.get("GRAPHREC_DATA")
    return ((Path(named),) if named else ()) + (user_folder(),)


def find(name: str, root: str | Path | None = None) -> Row:
    """Where a known dataset lies."""
    entry = get(name)
    for place in roots(root):
        folder = place / name
        if folder.is_dir():
            wrong = [f.name for f in entry.files if not (folder / f.name).is_file()]
            return Row(entry, folder, tuple(wrong))
    return Row(entry, None)


def table(root: str | Path | None = None) -> list[Row]:
    """All known datasets with their sizes, and which of them are at hand.

    Args:
        root: the folder that holds the datasets' folders; None: $GRAPHREC_DATA, then the user's cache.
    """
    return [find(name, root) for name in sorted(entries())]
