"""The text form of LightGCN, NGCF, KGAT, KGIN and their heirs.

``train.txt``, ``test.txt`` and, where there is one, ``valid.txt``: a line ``user item item …`` for each user. Beside
them, as far as they are there: ``kg_final.txt`` (``head relation tail``; the first entity ids are the items),
``ratings_final.txt`` (``user item label``), lists of names, ``items.tsv``, ``*_feat.npy``.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa

from graphrec.datasets.adapters.common import (
    add_features,
    check_linked,
    columns,
    feature_rows,
    item_table,
    name_list,
    pair_keys,
    replaced,
    universe,
)
from graphrec.datasets.adapters.lightgcn_names import add_names, original_entities, related_items
from graphrec.datasets.adapters.parsing import Ints, first_line, integers, ragged, read_bytes
from graphrec.datasets.builder import Builder
from graphrec.errors import InputError, MissingFileError

PARTS = {"train": ("train.txt",), "valid": ("valid.txt", "val.txt"), "test": ("test.txt",)}
_LINE = re.compile(r"\s*\d+([ \t]+\d+)*\s*")


def recognise(path: Path) -> bool:
    """A folder with lines of ids in ``train.txt``, or with ``ratings_final.txt`` and a knowledge graph."""
    if not path.is_dir():
        return False
    # A long first line comes cut, which leaves whole numbers all the same.
    if _LINE.fullmatch(first_line(path / "train.txt")):
        return True
    return _kg_file(path) is not None and bool(_LINE.fullmatch(first_line(path / "ratings_final.txt")))


def read(path: Path, builder: Builder, *, merge_related: bool = False, min_share: float = 0.01) -> None:
    """Read the folder into ``builder``.

    Args:
        path: the folder.
        builder: takes the data.
        merge_related: join entities that are items under another number (``original/related_product.txt.gz`` against
            ``original/product.txt.gz``); the published graph keeps them apart.
        min_share: refuse a knowledge graph that speaks of a smaller share of the items.
    """
    users: list[Ints] = []
    items: list[Ints] = _listed_items(path)
    parts: dict[str, tuple[Ints, Ints]] = {}
    for part, names in PARTS.items():
        file = next((path / name for name in names if (path / name).is_file()), None)
        if file is not None:
            lines = ragged(file)
            parts[part] = lines.pairs()
            users.append(lines.first)
            items.append(parts[part][1])
    ratings = path / "ratings_final.txt"
    labelled: list[Ints] | None = None
    if ratings.is_file():
        labelled = integers(ratings, ("user", "item", "label"), scale={"label": (0, 1)})
        users.append(labelled[0])
        items.append(labelled[1])
    elif "train" not in parts:
        raise MissingFileError(f"{path} has no train.txt. Expected train.txt and test.txt there.")
    all_items = universe(*items)
    builder.nodes("user", universe(*users))
    builder.nodes("item", all_items)
    _add_interactions(builder, parts, labelled)
    entities = _add_triples(path, builder, all_items, merge_related, min_share)
    add_names(path, builder, all_items, entities)
    add_features(builder, path, all_items)


def _listed_items(path: Path) -> list[Ints]:
    """Item ids that the side files speak of, interactions or not."""
    listed = []
    if (path / "item_list.txt").is_file():
        listed.append(name_list(path / "item_list.txt")[1])
    if (path / "item_index2entity_id.txt").is_file():
        listed.append(integers(path / "item_index2entity_id.txt", ("source id", "item"))[1])
    if (path / "items.tsv").is_file():
        listed.append(item_table(path / "items.tsv").column("itemID").to_numpy())
    return [*listed, np.arange(feature_rows(path))]


def _add_interactions(builder: Builder, parts: dict[str, tuple[Ints, Ints]], labelled: list[Ints] | None) -> None:
    """The parts; with labels, the pairs labelled 0, and those labelled 1 that no part holds, belong to no part."""
    for part, (users, items) in parts.items():
        pairs = columns(user=users, item=items)
        if labelled is None:
            builder.interactions(pairs, user="user", item="item", part=part)
        else:
            pairs = pairs.append_column("label", pa.array(np.ones(len(users), dtype=np.int8)))
            builder.interactions(pairs, user="user", item="item", label="label", part=part)
    if labelled is None:
        return
    user, item, label = labelled
    *known, keys = pair_keys(*parts.values(), (user, item))
    new = (label == 0) | ~np.isin(keys, np.concatenate([*known, np.empty(0, np.int64)]))
    pairs = columns(user=user[new], item=item[new], label=label[new].astype(np.int8))
    builder.interactions(pairs, user="user", item="item", label="label")


def _kg_file(path: Path) -> Path | None:
    return next((path / name for name in ("kg_final.txt", "kg_final.txt.gz") if (path / name).is_file()), None)


def relation_names(path: Path, head: Ints, relation: Ints, tail: Ints) -> dict[int, str]:
    """Relation names by id: from ``relation_list``, or from a ``kg.txt`` that holds the same triples line by line."""
    for name in ("relation_list.txt", "relation_list.tsv"):
        if (path / name).is_file():
            names, ids = name_list(path / name)
            return dict(zip(ids.tolist(), names, strict=True))
    if not (path / "kg.txt").is_file():
        return {}
    rows = [
        row.split("\t") for row in read_bytes(path / "kg.txt").decode("utf-8", "replace").split("\n") if row.strip()
    ]
    same = len(rows) == len(head) and all(len(row) == 3 for row in rows)
    if not same or [row[0] for row in rows] != [str(value) for value in head.tolist()]:
        return {}
    if [row[2] for row in rows] != [str(value) for value in tail.tolist()]:
        return {}
    return {number: row[1] for number, row in zip(relation.tolist(), rows, strict=True)}


def _check_listed(file: Path, relation: Ints, ends: Ints, listing: Path, entities: Ints, relations: Ints) -> None:
    """Refuse triples with numbers beyond the lists that say which relations and entities there are."""
    for what, used, listed in (("relation", relation, relations), ("entity", ends, entities)):
        if not len(listed):
            continue
        # Lists of entities may leave out some; a number beyond the last of them is another graph's.
        wrong = ~np.isin(used, listed) if what == "relation" else used > int(listed.max())
        if wrong.any():
            row = int(np.argmax(wrong)) % len(relation)
            raise InputError(
                f"{file}: {what} {used[int(np.argmax(wrong))]} of triple {row} (from 0) is out of range: "
                f"{listing.name if what == 'relation' else 'the list of entities'} has {int(listed.min())} to "
                f"{int(listed.max())}."
            )


def _add_triples(path: Path, builder: Builder, items: Ints, merge_related: bool, min_share: float) -> Ints:
    """Give the builder the knowledge graph; returns the entity ids it holds, items apart."""
    file = _kg_file(path)
    if file is None:
        return np.empty(0, np.int64)
    head, relation, tail = integers(file, ("head", "relation", "tail"))
    first = int(items[-1]) + 1 if len(items) else 0
    listed = [name_list(path / name)[1] for name in ("entity_list.txt", "entity_list.tsv") if (path / name).is_file()]
    related = [path / name for name in ("relation_list.txt", "relation_list.tsv") if (path / name).is_file()]
    known = name_list(related[0])[1] if related else np.empty(0, np.int64)
    every = np.concatenate([*listed, np.empty(0, np.int64)])
    _check_listed(file, relation, np.concatenate([head, tail]), related[0] if related else file, every, known)
    idle = np.setdiff1d(known, relation)
    if len(idle):
        builder.note(
            "left out", "relations", len(idle), f"no triple has them: {', '.join(map(str, idle[:5].tolist()))}"
        )
    entities = universe(head, tail, *listed, original_entities(path))
    entities = entities[entities >= first]
    if merge_related:
        entity, item = related_items(path)
        head, tail = replaced(head, entity, item), replaced(tail, entity, item)
        entities = np.setdiff1d(entities, entity)
    spoken = np.unique(np.concatenate([head, tail]))
    check_linked(builder, file, int(np.isin(items, spoken).sum()), len(items), min_share)
    builder.nodes("entity", entities)
    names = relation_names(path, head, relation, tail)
    for source in ("item", "entity"):
        for target in ("item", "entity"):
            rows = ((head < first) == (source == "item")) & ((tail < first) == (target == "item"))
            if rows.any():
                add_triples(builder, (source, head[rows]), relation[rows], (target, tail[rows]), names)
    return entities


def add_triples(
    builder: Builder, head: tuple[str, Ints], relation: Ints, tail: tuple[str, Ints], names: dict[int, str]
) -> None:
    """Triples between two kinds of node; relations by name when all of them have one."""
    ids, codes = np.unique(relation, return_inverse=True)
    if all(int(value) in names for value in ids):
        words: pa.Array = pa.array([names[int(value)] for value in ids], pa.string()).take(pa.array(codes))
    else:
        words = pa.array(relation)
    triples = pa.table({"head": head[1], "relation": words, "tail": tail[1]})
    builder.triples(triples, head=(head[0], "head"), relation="relation", tail=(tail[0], "tail"))
