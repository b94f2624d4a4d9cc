"""A knowledge graph by names, before it is part of a dataset: what every format is read into and written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graphrec.datasets.arrow import Place, as_array, as_table, contiguous
from graphrec.datasets.notes import Note
from graphrec.datasets.tables import PART_NAMES, PARTS
from graphrec.errors import InputError, unknown

if TYPE_CHECKING:
    import networkx
    import pandas as pd

    from graphrec.datasets.builder import Builder
    from graphrec.datasets.knowledge_items import UnknownItems

Ints = NDArray[np.int64]
SelfLoops = Literal["drop", "keep"]


@dataclass(frozen=True, eq=False)
class KnowledgeGraph:
    """T triples (head, relation, tail) over N entities and R relations with names; immutable.

    Made by :func:`graphrec.datasets.kg_from_table` from a catalogue, by :func:`graphrec.datasets.read_triples` from a
    file, or by :meth:`of` from columns. Given to a dataset by :meth:`graphrec.datasets.RecDataset.with_knowledge`, or
    to a builder by :meth:`add_to`.

    Attributes:
        entities: (N,) arrow strings, distinct, sorted: the ids of the entities, items among them.
        relations: (R,) arrow strings, distinct, sorted.
        triples: (T, 3) int64 codes (head, relation, tail), distinct, sorted.
        items: entity id to the raw id of the item it stands for (None: an item that no dataset has); without any, an
            entity whose id is the raw id of an item of the dataset is that item.
        names: (N,) arrow strings, null where an entity has no name but its id; None: none has.
        kinds: (N,) arrow strings ("brand"), or None.
        part: (T,) int8 of a split of the triples for completion (0 train, 1 valid, 2 test), or None.
        notes: what was read, merged and dropped on the way.
    """

    entities: pa.Array
    relations: pa.Array
    triples: Ints
    items: Mapping[str, Any] | None = None
    names: pa.Array | None = None
    kinds: pa.Array | None = None
    part: NDArray[np.int8] | None = None
    notes: tuple[Note, ...] = field(default=())

    @classmethod
    def of(
        cls,
        head: Any,
        relation: Any,
        tail: Any,
        *,
        items: Mapping[str, Any] | None = None,
        names: Mapping[str, str] | None = None,
        kinds: Mapping[str, str] | None = None,
        part: Any = None,
        self_loops: SelfLoops = "drop",
        declared: Sequence[str] = (),
        notes: Sequence[Note] = (),
    ) -> KnowledgeGraph:
        """The knowledge graph of three columns of strings; duplicates and self-loops are counted in the notes.

        Args:
            head: (T,) ids of entities.
            relation: (T,) names of relations, or one name for all.
            tail: (T,) ids of entities.
            items: entity id to the raw id of an item.
            names: entity id to its name.
            kinds: entity id to its kind.
            part: (T,) part of each triple, as a code or a word; a triple stays in the first of its parts.
            self_loops: ``drop`` or ``keep`` triples whose head is their tail; counted either way.
            declared: relations that are known to exist; those without a triple are counted.
            notes: what happened before.

        Raises:
            InputError: no triple at all, columns of unequal lengths, a null or an empty id.
        """
        if self_loops not in ("drop", "keep"):
            raise unknown("policy for self-loops", str(self_loops), ("drop", "keep"))
        heads, tails = _words(head, "head"), _words(tail, "tail")
        size = len(heads)
        relations = _words([relation] * size if isinstance(relation, str) else relation, "relation")
        if not len(heads) == len(relations) == len(tails):
            raise InputError(
                f"triples: {len(heads)} heads, {len(relations)} relations and {len(tails)} tails; expected as many."
            )
        if not size:
            said = f"no triple is left ({'; '.join(map(str, notes))})" if notes else "no triple was given"
            raise InputError(f"the knowledge graph is empty: {said}.")
        said_notes = list(notes)
        parts = None if part is None else _part_codes(part, size)
        entities, ends = _encoded(pa.concat_arrays([heads, tails]))
        relation_names, relation_codes = _encoded(relations)
        rows = np.stack([ends[:size], relation_codes, ends[size:]], axis=1)
        loops = rows[:, 0] == rows[:, 2]
        if loops.any():
            action = "removed" if self_loops == "drop" else "kept"
            said_notes.append(Note(action, "self-loops", int(loops.sum()), "triples whose head is their tail"))
            if self_loops == "drop":
                rows, parts = rows[~loops], None if parts is None else parts[~loops]
                if not len(rows):
                    raise InputError(f"the knowledge graph is empty: all {size} triples are self-loops.")
        keys = [rows[:, 2], rows[:, 1], rows[:, 0]]
        order = np.lexsort(keys if parts is None else [parts, *keys])
        rows = rows[order]
        first = np.ones(len(rows), bool)
        first[1:] = (rows[1:] != rows[:-1]).any(axis=1)
        if not first.all():
            said_notes.append(Note("merged", "triples", int((~first).sum()), "the same triple was stated again"))
        rows, parts = rows[first], None if parts is None else parts[order][first]
        idle = set(declared) - set(relation_names.to_pylist())
        if idle:
            shown = ", ".join(sorted(idle)[:5]) + (" …" if len(idle) > 5 else "")
            said_notes.append(Note("left out", "relations", len(idle), f"no triple has them: {shown}"))
        made = cls(
            entities,
            relation_names,
            rows,
            None if items is None else dict(items),
            _aligned(names, entities),
            _aligned(kinds, entities),
            parts,
            tuple(said_notes),
        )
        return made._trimmed() if loops.any() and self_loops == "drop" else made

    @classmethod
    def from_frame(
        cls, frame: Any, head: str = "head", relation: str = "relation", tail: str = "tail", **settings: Any
    ) -> KnowledgeGraph:
        """The knowledge graph of three columns of a frame (see :meth:`of` for ``settings``)."""
        table = as_table(frame, [head, relation, tail], "triples")
        return cls.of(table[head], table[relation], table[tail], **settings)

    # -- what it holds -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.triples)

    def __repr__(self) -> str:
        return (
            f"KnowledgeGraph({len(self):,} triples, {len(self.entities):,} entities, {len(self.relations):,} relations)"
        )

    def columns(self) -> tuple[pa.Array, pa.Array, pa.Array]:
        """Heads, relations and tails as arrow strings, one row a triple."""
        head, relation, tail = (pa.array(self.triples[:, place]) for place in range(3))
        return self.entities.take(head), self.relations.take(relation), self.entities.take(tail)

    def frame(self) -> pd.DataFrame:
        """The triples with ids and names: ``head``, ``relation``, ``tail``, ``head_name``, ``tail_name``."""
        head, relation, tail = self.columns()
        labels = self.labels()
        named = {
            "head_name": labels.take(pa.array(self.triples[:, 0])),
            "tail_name": labels.take(pa.array(self.triples[:, 2])),
        }
        table = pa.table({"head": head, "relation": relation, "tail": tail, **named})
        if self.part is not None:
            table = table.append_column("part", pa.array(PART_NAMES).take(pa.array(self.part)))
        return table.to_pandas()

    def labels(self) -> pa.Array:
        """(N,) the name of each entity, its id where it has none."""
        return self.entities if self.names is None else pc.coalesce(self.names, self.entities)

    def statistics(self) -> pd.DataFrame:
        """One row a relation: ``triples``, distinct ``heads`` and ``tails``, the most frequent tail (``top``) and how
        many triples have it (``top_count``)."""
        import pandas as pd

        labels = self.labels()
        rows = []
        for code, name in enumerate(self.relations.to_pylist()):
            mine = self.triples[self.triples[:, 1] == code]
            tails, counts = np.unique(mine[:, 2], return_counts=True)
            top = int(np.argmax(counts)) if len(counts) else -1
            rows.append(
                {
                    "relation": name,
                    "triples": len(mine),
                    "heads": len(np.unique(mine[:, 0])),
                    "tails": len(tails),
                    "top": labels[int(tails[top])].as_py() if top >= 0 else None,
                    "top_count": int(counts[top]) if top >= 0 else 0,
                }
            )
        return pd.DataFrame(rows)

    def preview(self, heads: int = 3) -> str:
        """What a person wants to see before training on it: sizes, relations, all that some entities have, the notes.

        Args:
            heads: how many heads are shown with all their triples.
        """
        items = "" if self.items is None else f", {len(self.item_codes()):,} of them items"
        lines = [
            f"{len(self):,} triples, {len(self.entities):,} entities{items}, {len(self.relations):,} relations",
        ]
        for row in self.statistics().to_dict("records"):
            lines.append(
                f"  {row['relation']}: {row['triples']:,} triples, {row['heads']:,} heads, {row['tails']:,} tails, "
                f"most often {row['top']!r} ({row['top_count']:,})"
            )
        labels = self.labels()
        starts = np.unique(self.triples[:, 0], return_index=True)
        wanted = np.isin(starts[0], self.item_codes()) if self.items is not None else np.ones(len(starts[0]), bool)
        for code in starts[0][wanted if wanted.any() else ~wanted][:heads].tolist():
            mine = self.triples[self.triples[:, 0] == code]
            said = ", ".join(f"{self.relations[int(r)].as_py()} {labels[int(t)].as_py()!r}" for _, r, t in mine[:12])
            name, entity = labels[code].as_py(), self.entities[code].as_py()
            lines.append(f"  {name if name == entity else f'{entity} ({name})'}: {said}" + " …" * (len(mine) > 12))
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def item_codes(self) -> Ints:
        """Codes of the entities that :attr:`items` says are items, ascending."""
        if not self.items:
            return np.empty(0, np.int64)
        found = pc.index_in(pa.array(list(self.items), pa.large_string()), value_set=self.entities).drop_null()
        return np.sort(np.asarray(found.to_numpy(zero_copy_only=False), np.int64))

    # -- changing ------------------------------------------------------------------------------------------------------

    def select(self, mask: NDArray[Any], *notes: Note) -> KnowledgeGraph:
        """The triples of a mask, with the entities and relations that they still have.

        Raises:
            InputError: nothing is left.
        """
        if not mask.any():
            raise InputError(f"the knowledge graph is empty: none of its {len(self):,} triples is left.")
        part = None if self.part is None else self.part[mask]
        return replace(self, triples=self.triples[mask], part=part, notes=(*self.notes, *notes))._trimmed()

    def with_items(self, items: Mapping[str, Any]) -> KnowledgeGraph:
        """The same with another word on which entities are items.

        Args:
            items: entity id (of a catalogue: the item's id there) to the raw id of an item of the dataset. What was an
                item before and is not among them stays one, that no dataset has.

        Raises:
            InputError: none of the entities is in the graph.
        """
        said = {str(entity): item for entity, item in items.items()}
        made = replace(self, items={**dict.fromkeys(self.items or {}), **said})
        if not pc.any(pc.is_in(self.entities, value_set=pa.array(list(said), pa.large_string()))).as_py():
            shown, own = (", ".join(map(repr, some)) for some in (list(items)[:3], self.entities[:3].to_pylist()))
            raise InputError(
                f"none of the {len(items):,} linked entities (such as {shown}) is in the graph, whose entities are "
                f"such as {own}."
            )
        return made

    def _trimmed(self) -> KnowledgeGraph:
        """The same without entities and relations that no triple has."""
        used, ends = np.unique(self.triples[:, [0, 2]], return_inverse=True)
        relations, codes = np.unique(self.triples[:, 1], return_inverse=True)
        ends = ends.reshape(-1, 2)
        keep = pa.array(used)
        return replace(
            self,
            entities=self.entities.take(keep),
            relations=self.relations.take(pa.array(relations)),
            triples=np.stack([ends[:, 0], codes.reshape(-1), ends[:, 1]], axis=1).astype(np.int64),
            names=None if self.names is None else self.names.take(keep),
            kinds=None if self.kinds is None else self.kinds.take(keep),
        )

    # -- giving it away ------------------------------------------------------------------------------------------------

    def add_to(self, builder: Builder, *, min_share: float = 0.1, unknown_items: UnknownItems = "drop") -> Builder:
        """Add the triples to a builder that has its interactions already (see :mod:`.knowledge_join` for the rest)."""
        from graphrec.datasets.knowledge_join import add_to

        return add_to(self, builder, min_share=min_share, unknown_items=unknown_items)

    def to_networkx(self) -> networkx.MultiDiGraph:
        """A directed multigraph of entity ids whose edge keys are the relations; nodes have ``name``, ``kind`` and, for
        items, ``item``."""
        from graphrec.graphs.networkx import triples_to_networkx

        nodes: dict[str, dict[str, Any]] = {entity: {} for entity in self.entities.to_pylist()}
        for word, values in (("name", self.names), ("kind", self.kinds)):
            if values is not None:
                for entity, value in zip(nodes, values.to_pylist(), strict=True):
                    if value is not None:
                        nodes[entity][word] = value
        for entity, item in (self.items or {}).items():
            if entity in nodes:
                nodes[entity]["item"] = item
        head, relation, tail = (column.to_pylist() for column in self.columns())
        return triples_to_networkx(head, relation, tail, nodes=nodes)

    @classmethod
    def from_networkx(cls, graph: Any, **settings: Any) -> KnowledgeGraph:
        """The knowledge graph of a directed multigraph: edge keys (or the edges' ``relation``) are the relations.

        Args:
            graph: nodes are ids; their ``name``, ``kind`` and ``item`` are taken over.
            **settings: of :meth:`of`.

        Raises:
            InputError: an undirected graph, an edge without a relation, or two nodes that read the same.
        """
        from graphrec.graphs.networkx import triples_from_networkx

        head, relation, tail, nodes = triples_from_networkx(graph)
        about: dict[str, dict[str, Any]] = {"name": {}, "kind": {}, "item": {}}
        for node, values in nodes.items():
            for word, found in about.items():
                if word in values:
                    found[node] = values[word]
        said = {"names": about["name"] or None, "kinds": about["kind"] or None, "items": about["item"] or None}
        return cls.of(head, relation, tail, **{**said, **settings})


def _words(values: Any, column: str) -> pa.Array:
    """A column of ids as strings."""
    place = Place("triples", column)
    array = contiguous(as_array(values, place))
    if array.null_count:
        raise InputError(f"{place.row(int(np.argmax(array.is_null())))}: no value (null or NaN).")
    if pa.types.is_floating(array.type):
        raise InputError(f"{place}: decimal numbers. Expected whole numbers or strings.")
    try:
        words = array.cast(pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{place}: values of type {array.type}. Expected strings or whole numbers.") from error
    empty = np.asarray(pc.equal(words, ""))
    if empty.any():
        raise InputError(f"{place.row(int(np.argmax(empty)))}: an empty string. Expected an id.")
    return words


def _encoded(words: pa.Array) -> tuple[pa.Array, Ints]:
    """The sorted distinct strings, and the place of each row's among them."""
    encoded = words.dictionary_encode()
    order = pc.array_sort_indices(encoded.dictionary).to_numpy(zero_copy_only=False)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return encoded.dictionary.take(pa.array(order)), rank[encoded.indices.to_numpy(zero_copy_only=False)]


def _aligned(values: Mapping[str, str] | None, entities: pa.Array) -> pa.Array | None:
    if not values:
        return None
    keys = pa.array(list(values), pa.large_string())
    found = pc.index_in(entities, value_set=keys)
    return pa.array(list(values.values()), pa.large_string()).take(found)


def _part_codes(part: Any, size: int) -> NDArray[np.int8]:
    codes = np.asarray([PARTS.get(word, word) for word in part] if _has_words(part) else part)
    if codes.shape != (size,) or not np.isin(codes, list(PARTS.values())).all():
        raise InputError(f"triples: part: expected one of {', '.join(PARTS)} (or 0, 1, 2) for each of {size} triples.")
    return codes.astype(np.int8)


def _has_words(part: Any) -> bool:
    return len(part) > 0 and isinstance(part[0], str)
