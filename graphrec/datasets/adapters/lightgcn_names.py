"""Names and texts that lie beside LightGCN/KGAT text files, in the forms that the published folders use."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from graphrec.datasets.adapters.common import add_user_map, item_table, joined, name_list, table_columns
from graphrec.datasets.adapters.delimited import Column, table
from graphrec.datasets.adapters.parsing import Ints, fault_of_id, integers, read_bytes
from graphrec.datasets.archives import safe_name
from graphrec.datasets.builder import Builder
from graphrec.errors import InputError

BLOCKS = ("product", "related_product", "brand", "category")
PICTURES = (".jpg", ".jpeg", ".png")
TEXT_COLUMNS = ("title", "genres", "brand", "overview", "description")


def add_names(path: Path, builder: Builder, items: Ints, entities: Ints) -> None:
    """Give the builder every name and text of a folder.

    Original ids (``user_list.txt``, ``item_list.txt``) are names; titles are names where there are any.
    """
    for kind in ("user", "item"):
        if (path / f"{kind}_list.txt").is_file():
            names, ids = name_list(path / f"{kind}_list.txt")
            builder.names(kind, ids, names)
    add_user_map(builder, path / "user_map.tsv")
    if (path / "items.tsv").is_file():
        add_item_table(builder, path / "items.tsv")
    elif (path / "item_index2entity_id.txt").is_file():
        _add_source_ids(builder, path)
    _add_entity_names(builder, path, entities)
    for archive in sorted(path.glob("posters*.zip")):
        builder.note(
            "available", f"pictures of items in {archive.name}", len(pictures(archive)), "<item>.jpg, not loaded"
        )
    if all((path / "original" / f"{block}.txt.gz").is_file() for block in BLOCKS):
        _add_original(builder, path, items, entities)


def add_item_table(builder: Builder, path: Path) -> None:
    """``items.tsv``: the title is the name; title, genres, brand, overview and description are the text."""
    read = item_table(path)
    ids = read.column("itemID").to_numpy()
    if "title" in read.column_names:
        builder.names("item", ids, [title or None for title in read.column("title").to_pylist()])
    builder.texts("item", ids, joined(read, TEXT_COLUMNS))


def _add_source_ids(builder: Builder, path: Path) -> None:
    """``item_index2entity_id.txt`` (source id, item): titles of ``movies.dat``, else the source id is the name."""
    source, item = integers(path / "item_index2entity_id.txt", ("source id", "item"))
    if not (path / "movies.dat").is_file():
        builder.names("item", item, [str(value) for value in source.tolist()])
        return
    movies = table(
        path / "movies.dat",
        [Column("movie", "id"), Column("title"), Column("genres")],
        separator="::",
        header=False,
        encoding="latin-1",
    )
    rows = zip(movies.column("title").to_pylist(), movies.column("genres").to_pylist(), strict=True)
    by_id = dict(zip(movies.column("movie").to_pylist(), rows, strict=True))
    known = [by_id.get(value) for value in source.tolist()]
    builder.names("item", item, [row and row[0] for row in known])
    builder.texts("item", item, [row and f"{row[0]}. {row[1]}" for row in known])


def _add_entity_names(builder: Builder, path: Path, entities: Ints) -> None:
    for file in (path / "entity_list.txt", path / "entity_list.tsv"):
        if file.is_file():
            names, ids = name_list(file)
            there = np.isin(ids, entities)
            builder.names("entity", ids[there], [name for name, keep in zip(names, there, strict=True) if keep])
            if "type" in table_columns(file):
                read = table(file, [Column("entityID", "id"), Column("type")])
                there = np.isin(read.column("entityID").to_numpy(), entities)
                kept = read.filter(pa.array(there))
                builder.kinds("entity", kept.column("entityID"), kept.column("type"))


def pictures(archive: Path) -> dict[int, str]:
    """Pictures of items in a zip, by item id: members named ``<item>.jpg`` (or png), whatever folder they are in."""
    found = {}
    try:
        with zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{archive}: damaged or cut short ({error}). Copy or download it again.") from error
    for name in names:
        member = safe_name(archive, name)
        if member.suffix.lower() in PICTURES and fault_of_id(member.stem) is None:
            found[int(member.stem)] = name
    return found


def _lines(path: Path) -> list[str]:
    """One name a line, the line number being the id."""
    return read_bytes(path).decode("utf-8", "replace").removesuffix("\n").split("\n")


def original_entities(path: Path) -> Ints:
    """All entity numbers of ``original/``: products, related products, brands and categories one after the other."""
    files = [path / "original" / f"{block}.txt.gz" for block in BLOCKS]
    return np.arange(sum(len(_lines(file)) for file in files) if all(file.is_file() for file in files) else 0)


def _add_original(builder: Builder, path: Path, items: Ints, entities: Ints) -> None:
    products, *others = (_lines(path / "original" / f"{block}.txt.gz") for block in BLOCKS)
    if len(products) != len(items):
        raise InputError(f"{path / 'original' / 'product.txt.gz'}: {len(products)} products for {len(items)} items.")
    builder.names("item", items, products)
    names = np.array([name for block in others for name in block], dtype=object)
    kinds = np.repeat(np.array(BLOCKS[1:], dtype=object), [len(block) for block in others])
    builder.names("entity", entities, names[entities - len(products)].tolist())
    builder.kinds("entity", entities, kinds[entities - len(products)].tolist())
    users = path / "original" / "users.txt.gz"
    if users.is_file():
        known = _lines(users)
        builder.names("user", np.arange(len(known)), known)


def related_items(path: Path) -> tuple[Ints, Ints]:
    """Related products that are products too, told by their name: (entity number ascending, item number)."""
    files = [path / "original" / f"{block}.txt.gz" for block in BLOCKS[:2]]
    if not all(file.is_file() for file in files):
        raise InputError(f"merge_related needs {' and '.join(map(str, files))}, which say who is the same.")
    products, related = (_lines(file) for file in files)
    number = {name: item for item, name in enumerate(products)}
    pairs = [(len(products) + row, number[name]) for row, name in enumerate(related) if name in number]
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]
