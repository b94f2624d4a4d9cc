"""The knowledge graph of a dataset: which of its tables belong to it, and what its relations are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graphrec.datasets.tables import EdgeTable, EdgeType
from graphrec.errors import InputError, unknown

if TYPE_CHECKING:
    from graphrec.datasets.dataset import RecDataset

ENDS = ("item", "entity")


def is_knowledge(edge_type: EdgeType) -> bool:
    """Whether edges of a type belong to the knowledge graph: both ends are items or entities."""
    return edge_type[0] in ENDS and edge_type[2] in ENDS


def knowledge_tables(data: RecDataset) -> dict[EdgeType, EdgeTable]:
    """The tables of the knowledge graph.

    Raises:
        InputError: the dataset has none.
    """
    tables = {edge_type: table for edge_type, table in data.tables.items() if is_knowledge(edge_type)}
    if not tables:
        raise InputError(
            f"{data.name} has no knowledge graph; kg_from_table makes one from a table of the items, read_triples "
            "reads one from a file, and with_knowledge puts it here."
        )
    return tables


def relation_names(data: RecDataset) -> pa.Array:
    """(R,) arrow strings: the name of each relation, its raw id where it has none."""
    raw = data.relations.arrow.cast(pa.large_string())
    names = data.names.arrow.get("relation")
    return raw if names is None else pc.coalesce(names.cast(pa.large_string()), raw)


def edge_relations(data: RecDataset, table: EdgeTable) -> tuple[NDArray[np.int64], list[str]]:
    """The relation of each edge as a number, and what the numbers mean; links without one have their type's name."""
    names = [*relation_names(data).to_pylist(), table.edge_type[1]]
    if table.relation is None:
        return np.zeros(len(table), np.int64), [table.edge_type[1]]
    codes = table.relation.astype(np.int64)
    return np.where(codes >= 0, codes, len(names) - 1), names


def relation_counts(data: RecDataset) -> Mapping[str, int]:
    """Edges of each relation of the knowledge graph, by name; relations without an edge too."""
    counts: dict[str, int] = dict.fromkeys(relation_names(data).to_pylist(), 0)
    for table in knowledge_tables(data).values():
        codes, names = edge_relations(data, table)
        for code, count in enumerate(np.bincount(codes, minlength=len(names)).tolist()):
            if count:
                counts[names[code]] = counts.get(names[code], 0) + count
    return counts


def known_relations(data: RecDataset, wanted: Iterable[str], what: str = "relation") -> set[str]:
    """Names of relations, each checked; a raw id stands for the relation's name.

    Raises:
        InputError: a relation that does not exist; names the nearest.
    """
    counts = relation_counts(data)
    raw = data.relations.arrow.cast(pa.large_string()).to_pylist()
    by_id = dict(zip(raw, relation_names(data).to_pylist(), strict=True))
    found = set()
    for name in wanted:
        if name not in counts and str(name) not in by_id:
            raise unknown(what, str(name), counts)
        found.add(name if name in counts else by_id[str(name)])
    return found
