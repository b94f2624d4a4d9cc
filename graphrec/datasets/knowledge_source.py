"""The knowledge graph that ``load`` and the command line are told of: a catalogue or a file of triples, and filters."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.knowledge import KnowledgeGraph
from graphrec.datasets.knowledge_table import Attribute, attributes_of, kg_from_table
from graphrec.datasets.triple_files import read_link, read_triples
from graphrec.errors import InputError, MissingFileError, unknown

_MARKS = {"tab": "\t", "comma": ",", "space": " "}


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def _mark(text: str) -> str:
    return _MARKS.get(text, text)


def _several(text: str) -> list[str]:
    return [word for word in text.split("|") if word]


_Kind = Callable[[str], Any]
TABLE: Mapping[str, _Kind] = MappingProxyType(
    {
        "item": str,
        "name": str,
        "separator": _mark,
        "header": _flag,
        "encoding": str,
        "min_count": int,
        "max_share": float,
        "missing": _several,
    }
)
TRIPLES: Mapping[str, _Kind] = MappingProxyType({"format": str, "item_prefix": str, "self_loops": str})
JOIN: Mapping[str, _Kind] = MappingProxyType({"min_share": float, "unknown_items": str, "existing": str})
FILTERS: Mapping[str, _Kind] = MappingProxyType(
    {"keep": _several, "drop": _several, "max_degree": int, "hops": int, "core": int, "self_loops": _flag}
)


@dataclass(frozen=True)
class KnowledgeSource:
    """What a person said about the knowledge graph of a dataset.

    Attributes:
        path: a table of items or a file of triples; as given, or below the dataset's own folder; None: the dataset's
            own knowledge graph.
        columns: of a table, as for :func:`graphrec.datasets.kg_from_table`; None: the file holds triples.
        options: of reading and matching; as text ``item=sku,name=title,link=ids.tsv,min_share=.2``.
        cuts: of :func:`graphrec.datasets.knowledge_filters.filter_knowledge`; as text ``drop=also_bought,core=2``.
    """

    path: str | None = None
    columns: Mapping[str, Any] | str | None = None
    options: Mapping[str, Any] | str | None = None
    cuts: Mapping[str, Any] | str | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.path, self.columns, self.options, self.cuts))

    def check(self) -> None:
        """Refuse what cannot be, before any file is read.

        Raises:
            InputError: an unknown option, a value of another kind, columns without a file.
        """
        if self.path is None and (self.columns is not None or self.options is not None):
            raise InputError("kg_columns and kg_options are about a file of knowledge: say kg=FILE too.")
        if self.columns is not None:
            attributes_of(_parsed(self.columns))
        _settings(self.options, self._known(), "kg_options")
        _settings(self.cuts, FILTERS, "kg_filter")

    def attach(self, data: RecDataset, folder: Path | None = None) -> RecDataset:
        """The dataset with this knowledge.

        Args:
            data: the dataset.
            folder: the dataset's own folder, where a path that is not there as given is looked for.

        Raises:
            InputError: see :meth:`check`, and what reading and matching refuse.
        """
        self.check()
        if self.path is not None:
            settings = _settings(self.options, self._known(), "kg_options")
            joining = {name: settings.pop(name) for name in JOIN if name in settings}
            link = settings.pop("link", None)
            graph = self._graph(_found(self.path, folder), settings)
            if link is not None:
                graph = graph.with_items(link if isinstance(link, Mapping) else read_link(_found(link, folder)))
            data = data.with_knowledge(graph, **joining)
        cuts = _settings(self.cuts, FILTERS, "kg_filter")
        return data.filter_knowledge(**cuts) if cuts else data

    def _known(self) -> dict[str, _Kind]:
        """The options of the file at hand."""
        return {**(TRIPLES if self.columns is None else TABLE), **JOIN, "link": str}

    def _graph(self, path: Path, settings: dict[str, Any]) -> KnowledgeGraph:
        if self.columns is None:
            if path.name.lower().removesuffix(".gz").endswith(".csv"):
                raise InputError(
                    f"{path}: a csv holds a table of items; say which of its columns become relations "
                    "(kg_columns='brand=made_by', or --kg-columns). Triples come as tsv, nt or parquet."
                )
            return read_triples(path, **settings)
        return kg_from_table(path, _parsed(self.columns), **settings)

    def noted(self, folder: Path | None = None) -> dict[str, str]:
        """The arguments of ``load`` that say the same, as texts; paths below the dataset's folder relative to it."""
        made: dict[str, str] = {}
        if self.path is not None:
            made["kg"] = _portable(self.path, folder)
        for name, value in (("kg_columns", self.columns), ("kg_options", self.options), ("kg_filter", self.cuts)):
            if value is None:
                continue
            if name == "kg_options":
                value = _settings(value, self._known(), name)
                if isinstance(value.get("link"), (str, os.PathLike)):
                    value["link"] = _portable(value["link"], folder)
            made[name] = value if isinstance(value, str) else json.dumps(_plain(value))
        return made


def _plain(value: Any) -> Any:
    """A mapping as JSON can hold it."""
    if isinstance(value, Attribute):
        return {name: entry for name, entry in asdict(value).items() if entry != getattr(Attribute, name, None)}
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    return list(value) if isinstance(value, (tuple, set, frozenset)) else value


def _parsed(value: Mapping[str, Any] | str) -> Mapping[str, Any] | str:
    """A mapping that was written as JSON, other texts as they are."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return dict(json.loads(value))
        except ValueError as error:
            raise InputError(f"{value!r} begins like JSON and is none: {error}.") from None
    return value


def _settings(value: Mapping[str, Any] | str | None, known: Mapping[str, _Kind], what: str) -> dict[str, Any]:
    """Options by name with values of their kinds.

    Raises:
        InputError: an option that does not exist (names the nearest), or a value of another kind.
    """
    if value is None:
        return {}
    given = _parsed(value)
    if isinstance(given, str):
        pairs = [entry.partition("=") for entry in given.split(",")]
        if any(not (name.strip() and equals and text) for name, equals, text in pairs):
            raise InputError(f"{what} {given!r}: expected option=value pairs separated by commas.")
        given = {name.strip(): text for name, _, text in pairs}
    made = {}
    for name, entry in given.items():
        if name not in known:
            raise unknown(f"option of {what}", str(name), known)
        try:
            made[name] = known[name](entry) if isinstance(entry, str) else entry
        except ValueError:
            raise InputError(f"{what}: {name}={entry!r}: expected {_told(known[name])}.") from None
    return made


def _told(kind: _Kind) -> str:
    return {int: "a whole number", float: "a number", _flag: "true or false"}.get(kind, "a word")


def _found(path: str | os.PathLike[str], folder: Path | None) -> Path:
    """A path as given, or below the dataset's folder."""
    given = Path(path).expanduser()
    if given.exists():
        return given
    if folder is not None and not given.is_absolute() and (folder / given).exists():
        return folder / given
    tried = f" (nor {folder / given})" if folder is not None and not given.is_absolute() else ""
    raise MissingFileError(f"{given} is not there{tried}.")


def _portable(path: str | os.PathLike[str], folder: Path | None) -> str:
    """The path relative to the dataset's folder where it lies in it, else from the root."""
    full = _found(path, folder).resolve()
    if folder is not None and full.is_relative_to(folder.resolve()):
        return str(full.relative_to(folder.resolve()))
    return str(full)
