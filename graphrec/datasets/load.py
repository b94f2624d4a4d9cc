"""``load``: a dataset by its name, or whatever lies at a path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from graphrec.datasets import adapters, registry
from graphrec.datasets.archives import extract, is_archive, only_folder
from graphrec.datasets.builder import Builder
from graphrec.datasets.cache import cache_key, cache_root, cached, is_saved, open_dataset
from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.download import download
from graphrec.datasets.knowledge_source import KnowledgeSource
from graphrec.datasets.leaks import leak_notes
from graphrec.datasets.roles import as_mapping
from graphrec.datasets.single_file import add_table, check_table, is_table
from graphrec.datasets.tables import DUPLICATES, Duplicates
from graphrec.errors import InputError, MissingFileError, unknown

if TYPE_CHECKING:
    from graphrec.datasets.splits import Split

WORLDS = ("world", "seeded-world")
# What load itself may be asked, whatever the format.
_ASKED = ("format", "columns", "split", "seed", "min_rating", "drawn_negatives", "duplicates", "cold", "kg", "cache")


@dataclass(frozen=True)
class Located:
    """Where a dataset lies and what it is called; ``fetched``: it has just been downloaded."""

    name: str
    path: Path
    fetched: bool = False


def load(
    name_or_path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | str | None = None,
    split: str | Split | None = None,
    seed: int | None = None,
    cold: Literal["keep", "drop"] = "keep",
    min_rating: float | None = None,
    drawn_negatives: int | None = None,
    duplicates: Duplicates | None = None,
    kg: str | os.PathLike[str] | None = None,
    kg_columns: Mapping[str, Any] | str | None = None,
    kg_options: Mapping[str, Any] | str | None = None,
    kg_filter: Mapping[str, Any] | str | None = None,
    cache: bool = True,
    **options: Any,
) -> RecDataset:
    """Load a dataset.

    Args:
        name_or_path: a known name (:func:`graphrec.datasets.registry.table`), the name of any folder under ``root``,
            the path of a folder or file, or ``world`` for the seeded world. Options may follow a name:
            ``ml-100k:fold=u1``, ``world:users=500,seed=7``.
        root: the folder that holds the dataset's own folder (``ROOT/gowalla/train.txt``); None: $GRAPHREC_DATA, then
            the user's cache, then a download where the owner allows one.
        format: how to read it, one of :data:`graphrec.datasets.adapters.ADAPTERS` for folders or of ``csv``, ``tsv``,
            ``parquet``, ``arrow`` for files; None: recognised by its content.
        columns: for a single file, which column is what: ``"user=uid,item=sku,time=ts"`` or the same as a mapping.
        split: how to split, such as ``random:.8,.1,.1``; None: as the files say.
        seed: of the split and of drawn negatives, or of the seeded world.
        cold: keep or drop valid and test interactions of users and items without a training interaction; counted.
        min_rating: keep interactions rated at least this.
        drawn_negatives: for click prediction, pairs labelled 0 that are drawn for each positive of a user, among items
            the user has not rated at all (:func:`graphrec.datasets.labelling.draw_negatives`).
        duplicates: of rows with the same user, item and part: ``error``, ``first``, ``last`` (the default), ``sum``.
        kg: a file of knowledge about the items: a table of them (with ``kg_columns``) or triples
            (:func:`graphrec.datasets.read_triples`); a path, or one below the dataset's own folder.
        kg_columns: of a table, column to relation: ``"brand=made_by,genres=has_genre:separator=|"``, or as for
            :func:`graphrec.datasets.kg_from_table`.
        kg_options: of reading ``kg`` and of matching its items: ``"item=sku,link=ids.tsv,min_share=.2"``, or a mapping.
        kg_filter: what of the knowledge graph is kept (:meth:`RecDataset.filter_knowledge`):
            ``"drop=also_bought|also_viewed,core=2"``, or a mapping.
        cache: keep a converted copy in the user's cache, and use it as long as the files are the same.
        **options: of the format (:func:`graphrec.datasets.adapters.check_options`) or of the seeded world.

    Raises:
        InputError: an unknown name, a format that nobody recognises, an option that does not exist, or a faulty file.
        MissingFileError: the files are not at hand; says which to put where.
    """
    if cold not in ("keep", "drop"):
        raise unknown("policy for cold users and items", str(cold), ("keep", "drop"))
    if duplicates is not None and duplicates not in DUPLICATES:
        raise unknown("policy for duplicates", str(duplicates), DUPLICATES)
    knowledge = KnowledgeSource(None if kg is None else os.fspath(kg), kg_columns, kg_options, kg_filter)
    knowledge.check()
    text, given = _with_options(os.fspath(name_or_path), options)
    asked_split = split
    folder: Path | None = None
    if text in WORLDS:
        data = _world(given, split, seed)
        split = None
    else:
        located = locate(text, root)
        folder = located.path if located.path.is_dir() else located.path.absolute().parent
        if format is None and located.path.is_dir() and is_saved(located.path):
            data = open_dataset(located.path)
        else:
            data = _from_files(located, format, columns, duplicates, cache, given)
    if min_rating is not None:
        data = data.filter_rating(min_rating, as_label=drawn_negatives is not None)
    if drawn_negatives is not None:
        # What was rated too low is no click, and nothing to draw either.
        low: Literal["keep", "drop"] = "keep" if min_rating is None else "drop"
        data = data.draw_negatives(drawn_negatives, labelled=low, seed=seed or 0)
    if split is not None:
        data = data.split(split, seed=seed)
    if cold == "drop":
        data = data.filter_cold("drop")
    if knowledge:
        data = knowledge.attach(data, folder)
    if "test" in data.parts:
        data = data.changed(leak_notes(data))
    asked = {
        "format": format,
        "columns": columns if columns is None or isinstance(columns, str) else dict(columns),
        "split": asked_split,
        "seed": seed,
        "min_rating": min_rating,
        "drawn_negatives": drawn_negatives,
        "cold": None if cold == "keep" else cold,
        "duplicates": duplicates,
        **knowledge.noted(folder),
        **options,
    }
    if not (asked_split is None or isinstance(asked_split, str)):
        return data
    source = os.fspath(name_or_path)
    if root is None and Path(source).exists() and text not in (*WORLDS, *registry.entries()):
        source = os.path.abspath(source)
    where = {"source": source} if root is None else {"source": source, "root": os.path.abspath(root)}
    return data.changed(loaded={**where, **{name: value for name, value in asked.items() if value is not None}})


def load_again(loaded: Mapping[str, Any], root: str | os.PathLike[str] | None = None) -> RecDataset:
    """The dataset of :attr:`RecDataset.loaded`.

    Args:
        loaded: as the dataset noted it.
        root: where to look instead of where it was.
    """
    spec = dict(loaded)
    noted = spec.pop("root", None)
    return load(spec.pop("source"), root=noted if root is None else root, **spec)


def _with_options(text: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A name and the options behind it (``world:users=500``) put together with those given by keyword."""
    name, mark, rest = text.partition(":")
    if not mark or not (name in WORLDS or name in registry.entries()):
        return text, dict(options)
    found: dict[str, Any] = {}
    for entry in rest.split(","):
        key, equals, value = entry.partition("=")
        if not equals or not key.strip():
            raise InputError(f"dataset {text!r}: expected NAME:option=value,option=value, got {entry!r}.")
        found[key.strip()] = _value(value.strip())
    return name, {**found, **options}


def _value(text: str) -> int | float | bool | str:
    """An option's value as written on a command line."""
    if text in ("true", "false"):
        return text == "true"
    kinds: tuple[Callable[[str], int | float], ...] = (int, float)
    for kind in kinds:
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _world(options: dict[str, Any], split: str | Split | None, seed: int | None) -> RecDataset:
    import inspect

    from graphrec.datasets.world import world

    if split is not None:
        options["split"] = split
    if seed is not None:
        options["seed"] = seed
    known = list(inspect.signature(world).parameters)
    for option in options:
        if option not in known:
            raise unknown("option of the seeded world", option, known)
    return world(**options)


def locate(text: str, root: str | os.PathLike[str] | None = None) -> Located:
    """Where a dataset lies: a path that exists, a folder under ``root``, or what a download brings.

    Raises:
        InputError: the name is unknown; shows the nearest.
        MissingFileError: a known dataset is not at hand and cannot be downloaded.
    """
    is_name = Path(text).name == text and text not in (".", "..")
    if is_name:
        for place in registry.roots(None if root is None else Path(root)):
            if (place / text).is_dir():
                return Located(text, place / text)
    if root is not None and (Path(root) / text).exists():
        return Located(Path(text).name, Path(root) / text)
    path = Path(text).expanduser()
    if path.exists() and not (is_name and text in registry.entries()):
        return Located(path.resolve().name, path)
    if is_name and text in registry.entries():
        entry = registry.get(text)
        place = registry.user_folder() if root is None else Path(root)
        return Located(text, download(entry, place / text), fetched=True)
    if not is_name or path.suffix:
        raise MissingFileError(f"{path} is not there.")
    folders = _folders(registry.roots(None if root is None else Path(root)))
    raise unknown("dataset", text, {*registry.entries(), *WORLDS, *folders})


def _folders(roots: Iterable[Path]) -> list[str]:
    return [child.name for place in roots if place.is_dir() for child in place.iterdir() if child.is_dir()]


def _from_files(
    located: Located,
    format: str | None,
    columns: Mapping[str, str] | str | None,
    duplicates: Duplicates | None,
    cache: bool,
    options: dict[str, Any],
) -> RecDataset:
    plan = _plan(located, format, columns, duplicates, options)

    def build() -> RecDataset:
        builder = Builder(located.name) if duplicates is None else _OnePolicy(located.name, duplicates)
        plan.read(builder)
        return builder.build()

    data = cached(plan.key(), build) if cache else build()
    if located.fetched:
        _check_content(located, data)
    return data


@dataclass(frozen=True)
class _Plan:
    """How a dataset's files are read, and what names the result."""

    kind: str
    files: list[Path]
    made_of: Mapping[str, Any]
    read: Callable[[Builder], None]

    def key(self) -> str:
        """The name of its entry in the cache."""
        return cache_key(self.files, self.kind, adapters.VERSION, self.made_of)


def _plan(
    located: Located,
    format: str | None,
    columns: Mapping[str, str] | str | None,
    duplicates: Duplicates | None,
    options: dict[str, Any],
) -> _Plan:
    path = _unpacked(located.path) if is_archive(located.path) else located.path
    if path.is_file() and not is_table(path, format, columns):
        path = path.absolute().parent
    if path.is_dir():
        kind = _format_of(path, located.name, format)
        adapters.check_options(kind, options, also=_ASKED)
        if columns is not None:
            raise InputError(f"{path}: columns= is for a single csv, tsv or parquet file; this is in format {kind!r}.")
        files = _all_files(path)
        module = adapters.adapter(kind)

        def read(builder: Builder) -> None:
            module.read(path, builder, **options)
    else:
        kind, files = "table", [path]
        roles = as_mapping(columns)
        settings = check_table(path, format, roles, options)

        def read(builder: Builder) -> None:
            add_table(builder, path, roles, settings)

    made_of = {"name": located.name, "columns": as_mapping(columns), "duplicates": duplicates, **options}
    return _Plan(f"{kind} {format or ''}", files, made_of, read)


def cache_folder(loaded: Mapping[str, Any]) -> Path | None:
    """The folder of the cache that holds the converted copy of a dataset's source, None where there is none.

    Args:
        loaded: as the dataset noted it (:attr:`RecDataset.loaded`).
    """
    ours = ("split", "seed", "cold", "min_rating", "drawn_negatives", "kg", "kg_columns", "kg_options", "kg_filter")
    spec = {name: value for name, value in loaded.items() if name not in ours}
    text, options = _with_options(str(spec.pop("source")), {})
    if text in WORLDS:
        return None
    located = locate(text, spec.pop("root", None))
    named = {name: spec.pop(name, None) for name in ("format", "columns", "duplicates")}
    plan = _plan(located, named["format"], named["columns"], named["duplicates"], {**options, **spec})
    folder = cache_root() / "datasets" / plan.key()
    return folder if folder.is_dir() else None


class _OnePolicy(Builder):
    """A builder whose interactions all have the same policy for duplicates, whatever the adapter would choose."""

    def __init__(self, name: str, duplicates: Duplicates) -> None:
        super().__init__(name)
        self._policy = duplicates

    def interactions(self, frame: Any, *arguments: Any, **named: Any) -> Builder:
        """As :meth:`Builder.interactions`."""
        return super().interactions(frame, *arguments, **{**named, "duplicates": self._policy})


def _unpacked(archive: Path) -> Path:
    """The folder of an archive's content, unpacked once."""
    stamp = archive.stat()
    folder = registry.user_folder() / f"{archive.name}-{stamp.st_size}-{stamp.st_mtime_ns}"
    if not folder.is_dir():
        return extract(archive, folder)
    return only_folder(folder)


def _all_files(folder: Path) -> list[Path]:
    """Every file of a folder that is not hidden, by name: what decides whether a cached copy is still right."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]


def _format_of(path: Path, name: str, format: str | None) -> str:
    """The format of a folder, as given or as recognised."""
    if format is not None:
        adapters.adapter(format)
        return format
    found = adapters.recognise(path)
    if found is not None:
        return found
    if name in registry.entries():
        entry = registry.get(name)
        missing = [file.name for file in entry.files if not (path / file.name).is_file()]
        if missing:
            raise MissingFileError(f"{path} lacks {', '.join(missing)}. {entry.manual(path)}")
    files = sorted(child.name for child in path.iterdir())
    shown = ", ".join(files[:12]) + (f" and {len(files) - 12} more" if len(files) > 12 else "")
    raise InputError(
        f"{path} is in no known format. It holds {shown or 'no files'}. Formats: {', '.join(adapters.ADAPTERS)}; "
        "say format=… to read it as one of them, or give the path of a single csv, tsv or parquet file."
    )


def _check_content(located: Located, data: RecDataset) -> None:
    """Compare what was just downloaded with the registry's digests."""
    wanted = registry.get(located.name).digests
    wrong = [name for name, digest in data.digests().items() if wanted.get(name) != digest]
    if wrong:
        raise InputError(
            f"{located.path}: the downloaded content differs from the registry's in {', '.join(wrong)}. "
            "Delete the folder and try again."
        )
