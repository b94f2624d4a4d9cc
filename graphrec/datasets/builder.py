"""The builder: the one way from frames to a :class:`~graphrec.datasets.dataset.RecDataset`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graphrec.datasets.columns import (
    Place,
    RawIds,
    as_array,
    as_table,
    column_names,
    numbers,
    place_of,
    raw_ids,
    strings,
    times,
)
from graphrec.datasets.dataset import Note, RecDataset, Texts, edge_type_name
from graphrec.datasets.tables import (
    DUPLICATES,
    PART_NAMES,
    PARTS,
    DuplicateError,
    Duplicates,
    EdgeTable,
    EdgeType,
    Provenance,
    canonical,
)
from graphrec.datasets.vocabulary import Vocabulary
from graphrec.errors import InputError, unknown

INTERACTS: EdgeType = ("user", "interacts", "item")
_PART_WORDS = {**PARTS, "validation": 1, "val": 1, "dev": 1, "training": 0, "testing": 2}


@dataclass
class _Rows:
    """The rows of one call that go to one family of edge types."""

    source: tuple[str, RawIds]
    target: tuple[str, RawIds]
    name: str
    duplicates: Duplicates
    first_row: int
    place: Place
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    raw: dict[str, RawIds] = field(default_factory=dict)
    behaviour: tuple[NDArray[np.int32], list[str]] | None = None

    def __len__(self) -> int:
        return len(self.source[1])


class Builder:
    """Collects frames, then builds a dataset: ids become integers, rows become edges with numbers.

    Every method takes pandas, pyarrow or polars frames, anything with the Arrow C stream interface, or a mapping of
    columns, and checks what it is given at once. Ids of all calls are put together in :meth:`build`, sorted, so that the
    order of calls and of rows does not matter for them.

    Example::

        b = Builder("shop")
        b.interactions({"uid": ["a", "b"], "sku": [1, 2]}, user="uid", item="sku")
        data = b.build()

    Args:
        name: of the dataset.
    """

    def __init__(self, name: str = "dataset") -> None:
        self.name = name
        self._rows: list[_Rows] = []
        self._counts: dict[str, int] = {}
        self._nodes: list[tuple[str, RawIds]] = []
        self._same: list[tuple[str, RawIds, str, RawIds]] = []
        self._features: list[tuple[str, str, RawIds, NDArray[np.float32], str]] = []
        self._strings: list[tuple[str, str, RawIds, pa.Array, str]] = []
        self._target: str | EdgeType | None = None
        self._notes: list[Note] = []

    # -- edges ---------------------------------------------------------------------------------------------------------

    def interactions(
        self,
        frame: Any,
        user: str = "user",
        item: str = "item",
        behaviour: str | None = None,
        rating: str | None = None,
        label: str | None = None,
        weight: str | None = None,
        time: str | None = None,
        part: str | None = None,
        duplicates: Duplicates = "last",
        scale: tuple[float, float] | None = None,
    ) -> Builder:
        """Add interactions of users with items.

        Args:
            frame: the rows.
            user: column of user ids.
            item: column of item ids.
            behaviour: a column with the behaviour of each row, or one behaviour for all; the edge type is
                ``("user", behaviour, "item")``. Default: ``interacts``.
            rating: column of ratings.
            label: column of 1 (positive) and 0 (labelled negative, never an edge of a graph).
            weight: column of weights.
            time: column of times: numbers, dates or timestamps (these become Unix seconds).
            part: a column with the part of each row (train, valid, test, or 0, 1, 2), or one part for all.
            duplicates: of rows with the same user, item and part: ``error``, keep the ``first`` or ``last`` (in time, then
                in the input), or ``sum`` the weights. Merged rows are counted in the notes.
            scale: smallest and largest rating allowed.

        Raises:
            InputError: a missing column, an impossible id, a NaN, a rating outside the scale; names column and row.
        """
        call = "interactions"
        known = column_names(frame)
        behaviour_column = behaviour if behaviour in known else None
        if behaviour is not None and behaviour_column is None:
            _not_misspelt(behaviour, known, call, "behaviour")
        part_column = part if part in known else None
        if part is not None and part_column is None and part not in PARTS:
            raise InputError(
                f"{call}: part {part!r} is neither a column nor one of {', '.join(PARTS)}. "
                f"Columns found: {', '.join(map(repr, known))}."
            )
        table = as_table(
            frame, _present(user, item, behaviour_column, rating, label, weight, time, part_column), call
        )
        rows = self._start(
            call, table, ("user", user), ("item", item), behaviour if behaviour_column is None else "", duplicates
        )
        if behaviour is None:
            rows.name = INTERACTS[1]
        if behaviour_column is not None:
            rows.behaviour = _words(table[behaviour_column], place_of(table, call, behaviour_column))
        if rating is not None:
            low, high = scale if scale is not None else (None, None)
            place = place_of(table, call, rating)
            rows.columns["rating"] = numbers(table[rating], place, low=low, high=high).astype(np.float32)
        if label is not None:
            rows.columns["label"] = _labels(table[label], place_of(table, call, label))
        if part_column is not None:
            rows.columns["part"] = _parts(table[part_column], place_of(table, call, part_column))
        elif part is not None:
            rows.columns["part"] = np.full(len(table), PARTS[part], np.int8)
        self._common(rows, table, call, weight, time)
        return self

    def triples(
        self,
        frame: Any,
        head: tuple[str, str] | str = "head",
        relation: str = "relation",
        tail: tuple[str, str] | str = "tail",
        weight: str | None = None,
        source: str | None = None,
        time: str | None = None,
        duplicates: Duplicates = "last",
    ) -> Builder:
        """Add triples of a knowledge graph; they lie in edge types by their ends, with a relation each.

        Args:
            frame: the rows.
            head: node type and column of the heads, such as ``("item", "sku")``; a bare column holds entities. Entities that
                are items by :meth:`same` become item nodes.
            relation: a column of relations, or one relation for all rows.
            tail: node type and column of the tails.
            weight: column of weights.
            source: a column naming who stated each triple, or one name for all rows.
            time: column of times.
            duplicates: of rows with the same head, relation and tail (see :meth:`interactions`).
        """
        call = "triples"
        known = column_names(frame)
        head_end, tail_end = _end(head, "entity"), _end(tail, "entity")
        literals = {}
        for word, value in (("relation", relation), ("source", source)):
            if value is not None and value not in known:
                _not_misspelt(value, known, call, word)
                literals[word] = value
        named = [value for word, value in (("relation", relation), ("source", source)) if word not in literals]
        table = as_table(frame, _present(head_end[1], tail_end[1], *named, weight, time), call)
        rows = self._start(call, table, head_end, tail_end, "related", duplicates)
        for word, column, value in (("relation", "relation", relation), ("source", "origin", source)):
            if value is None:
                continue
            place = place_of(table, call, value)
            if word in literals:
                zeros = np.zeros(len(table), np.int32)
                rows.raw[column] = RawIds(None, pa.array([value], pa.large_string()), zeros, place)
            else:
                rows.raw[column] = raw_ids(table[value], place, strict=False)
        self._common(rows, table, call, weight, time)
        return self

    def tags(
        self,
        frame: Any,
        item: str = "item",
        tag: str = "tag",
        user: str | None = None,
        weight: str | None = None,
        time: str | None = None,
        duplicates: Duplicates = "last",
    ) -> Builder:
        """Add tag assignments as edges ``("item", "tagged", "tag")``, one for each (item, tag, user).

        Args:
            frame: the rows.
            item: column of item ids.
            tag: column of tags.
            user: column of the users who assigned them; kept as the edge's ``user``.
            weight: column of weights.
            time: column of times.
            duplicates: of rows with the same item, tag and user.
        """
        call = "tags"
        table = as_table(frame, _present(item, tag, user, weight, time), call)
        rows = self._start(call, table, ("item", item), ("tag", tag), "tagged", duplicates)
        if user is not None:
            rows.raw["user"] = raw_ids(table[user], place_of(table, call, user))
        self._common(rows, table, call, weight, time)
        return self

    def links(
        self,
        frame: Any,
        source: tuple[str, str] | str = ("user", "source"),
        relation: str = "trusts",
        target: tuple[str, str] | str = ("user", "target"),
        weight: str | None = None,
        time: str | None = None,
        duplicates: Duplicates = "last",
    ) -> Builder:
        """Add links between nodes as edges ``(source type, relation, target type)``, such as trust between users.

        Args:
            frame: the rows.
            source: node type and column; a bare column holds users.
            relation: the name of the edge type.
            target: node type and column.
            weight: column of weights.
            time: column of times.
            duplicates: of rows with the same ends.
        """
        call = "links"
        source_end, target_end = _end(source, "user"), _end(target, "user")
        table = as_table(frame, _present(source_end[1], target_end[1], weight, time), call)
        rows = self._start(call, table, source_end, target_end, relation, duplicates)
        self._common(rows, table, call, weight, time)
        return self

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def nodes(self, node_type: str, ids: Any) -> Builder:
        """Declare nodes that may have no edges (a catalogue)."""
        self._nodes.append((node_type, raw_ids(ids, Place("nodes", node_type), strict=_strict(node_type))))
        return self

    def same(self, ids: Any, other_ids: Any, node_type: str = "entity", other_type: str = "item") -> Builder:
        """Say which entities are items: wherever such an entity occurs, the item's node stands.

        For a knowledge graph whose first entities are the items: ``b.same(range(num_items), range(num_items))``.

        Args:
            ids: ids of ``node_type``.
            other_ids: ids of ``other_type``, in the same order.
            node_type: what is replaced.
            other_type: what it is replaced by; these nodes are declared.
        """
        left = raw_ids(ids, Place("same", node_type), strict=False)
        right = raw_ids(other_ids, Place("same", other_type), strict=_strict(other_type))
        if len(left) != len(right):
            raise InputError(f"same: {len(left)} ids of {node_type} but {len(right)} of {other_type}.")
        if any(known[0] == node_type and known[2] != other_type for known in self._same):
            raise InputError(f"same: {node_type} is already matched with another node type.")
        self._same.append((node_type, left, other_type, right))
        self._nodes.append((other_type, right))
        return self

    def features(
        self, node_type: str, ids: Any, array: Any, name: str, unknown: Literal["skip", "add"] = "skip"
    ) -> Builder:
        """Add a feature vector for each of some nodes.

        Args:
            node_type: of the nodes.
            ids: (N,) raw ids; None: the whole numbers 0 to N - 1.
            array: (N, D) finite numbers; kept as float32.
            name: of the feature ("image").
            unknown: what to do with ids that occur nowhere else: ``skip`` leaves them out and counts them, ``add`` makes
                them nodes.
        """
        call = f"features({name!r})"
        matrix = np.asarray(array)
        if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.number) or np.iscomplexobj(matrix):
            raise InputError(f"{call}: expected (N, D) numbers, got shape {matrix.shape} of {matrix.dtype}.")
        matrix = matrix.astype(np.float32)
        bad = ~np.isfinite(matrix).all(axis=1)
        if bad.any():
            raise InputError(f"{call}: row {int(np.argmax(bad))} has NaN or an infinite number.")
        given = raw_ids(np.arange(len(matrix)) if ids is None else ids, Place(call, "ids"), strict=_strict(node_type))
        if len(given) != len(matrix):
            raise InputError(f"{call}: {len(given)} ids but {len(matrix)} rows.")
        self._features.append((node_type, name, given, matrix, _policy(unknown)))
        return self

    def texts(self, node_type: str, ids: Any, values: Any, unknown: Literal["skip", "add"] = "skip") -> Builder:
        """Add a text for each of some nodes (see :meth:`features` for ``unknown``)."""
        return self._add_strings("texts", node_type, ids, values, unknown)

    def names(self, node_type: str, ids: Any, values: Any, unknown: Literal["skip", "add"] = "skip") -> Builder:
        """Add a name for each of some nodes, or, with ``"relation"``, of some relations."""
        return self._add_strings("names", node_type, ids, values, unknown)

    def kinds(self, node_type: str, ids: Any, values: Any, unknown: Literal["skip", "add"] = "skip") -> Builder:
        """Say of which kind some nodes are (brands and genres among the entities)."""
        return self._add_strings("kinds", node_type, ids, values, unknown)

    def target(self, behaviour: str | EdgeType) -> Builder:
        """Choose the behaviour that is ranked; needed where there are several and none is ``interacts``."""
        self._target = behaviour
        return self

    def note(self, action: str, subject: str, count: int, detail: str = "") -> Builder:
        """Put down something that was done to the data before it came here; shown by ``summary()``."""
        self._notes.append(Note(action, subject, count, detail))
        return self

    def _add_strings(self, call: str, node_type: str, ids: Any, values: Any, policy: str) -> Builder:
        given = raw_ids(ids, Place(call, "ids"), strict=_strict(node_type))
        texts = strings(values, Place(call, "values"))
        if len(given) != len(texts):
            raise InputError(f"{call}: {len(given)} ids of {node_type} but {len(texts)} values.")
        self._strings.append((call, node_type, given, texts, _policy(policy)))
        return self

    def _start(
        self,
        call: str,
        table: pa.Table,
        source: tuple[str, str],
        target: tuple[str, str],
        name: str | None,
        duplicates: Duplicates,
    ) -> _Rows:
        if duplicates not in DUPLICATES:
            raise unknown("policy for duplicates", str(duplicates), DUPLICATES)
        ends = [
            (node_type, raw_ids(table[column], place_of(table, call, column), strict=_strict(node_type)))
            for node_type, column in (source, target)
        ]
        rows = _Rows(
            ends[0], ends[1], name or "", duplicates, self._counts.get(call, 0), place_of(table, call, source[1])
        )
        self._counts[call] = rows.first_row + len(table)
        self._rows.append(rows)
        return rows

    def _common(self, rows: _Rows, table: pa.Table, call: str, weight: str | None, time: str | None) -> None:
        if weight is not None:
            rows.columns["weight"] = numbers(table[weight], place_of(table, call, weight)).astype(np.float32)
        if time is not None:
            rows.columns["time"] = times(table[time], place_of(table, call, time))

    # -- building ------------------------------------------------------------------------------------------------------

    def build(self) -> RecDataset:
        """The dataset of all that was added.

        Raises:
            InputError: nothing was added, duplicates where they are errors, or no behaviour to rank.
        """
        if not any(rows.place.call == "interactions" for rows in self._rows):
            raise InputError("Builder.build: no interactions were added (Builder.interactions).")
        ids = _Ids(self)
        notes = [*self._notes, *ids.notes]
        pieces: dict[EdgeType, list[_Piece]] = {}
        for rows in self._rows:
            for edge_type, piece in ids.pieces(rows):
                pieces.setdefault(edge_type, []).append(piece)
        self._rows = []
        target = self._choose_target(pieces)
        tables: dict[EdgeType, EdgeTable] = {}
        provenance: dict[EdgeType, Provenance] = {}
        for edge_type in sorted(pieces, key=lambda known: (known != target, known)):
            merged, said = _merge(edge_type, pieces.pop(edge_type), ids)
            tables[edge_type], provenance[edge_type] = merged
            notes += said
        notes += _isolated_notes(tables[target], ids)
        features, masks = ids.features(self._features, notes)
        texts = {call: ids.texts(call, self._strings, notes) for call in ("texts", "names", "kinds")}
        return RecDataset(
            name=self.name,
            vocabularies=ids.vocabularies,
            tables=tables,
            target=target,
            relations=ids.relations,
            origins=ids.origins,
            features=features,
            feature_masks=masks,
            notes=tuple(notes),
            provenance=provenance,
            **texts,
        )

    def _choose_target(self, pieces: Iterable[EdgeType]) -> EdgeType:
        behaviours = {edge_type[1]: edge_type for edge_type in pieces if (edge_type[0], edge_type[2]) == ("user", "item")}
        if self._target is not None:
            name = self._target if isinstance(self._target, str) else self._target[1]
            if name not in behaviours:
                raise unknown("behaviour", name, behaviours)
            return behaviours[name]
        if INTERACTS[1] in behaviours:
            return INTERACTS
        if len(behaviours) == 1:
            return next(iter(behaviours.values()))
        raise InputError(
            f"several behaviours ({', '.join(sorted(behaviours))}): say which one is ranked with Builder.target(…)."
        )


@dataclass
class _Piece:
    """Encoded rows of one call and one edge type."""

    columns: dict[str, NDArray[Any]]
    row: NDArray[np.int64]
    duplicates: Duplicates
    place: Place
    first_row: int


class _Ids:
    """All ids of a builder, put together."""

    def __init__(self, builder: Builder) -> None:
        self.notes: list[Note] = []
        self._same = self._matches(builder)
        columns: dict[str, list[RawIds]] = {"user": [], "item": []}
        relations, origins = [], []
        for rows in builder._rows:
            for node_type, ids in (rows.source, rows.target):
                columns.setdefault(node_type, []).append(ids)
            if "user" in rows.raw:
                columns["user"].append(rows.raw["user"])
            relations += [rows.raw["relation"]] if "relation" in rows.raw else []
            origins += [rows.raw["origin"]] if "origin" in rows.raw else []
        for node_type, ids in builder._nodes:
            columns.setdefault(node_type, []).append(ids)
        added = [(entry[0], entry[2]) for entry in builder._features if entry[4] == "add"]
        added += [(entry[1], entry[2]) for entry in builder._strings if entry[4] == "add" and entry[1] != "relation"]
        for node_type, ids in added:
            columns.setdefault(node_type, []).append(ids)
        self.vocabularies = {
            node_type: Vocabulary.of(found, node_type) for node_type, found in columns.items()
        }
        self.relations = Vocabulary.of(relations, "relation")
        self.origins = Vocabulary.of(origins, "origin")
        # What stands for each id of a matched type: a node of the other type (-1: none), and its own code without those.
        self._other: dict[str, tuple[str, NDArray[np.int32], NDArray[np.int32]]] = {}
        for node_type, (left, other_type, right) in self._same.items():
            self._resolve(node_type, left, other_type, right)

    def _matches(self, builder: Builder) -> dict[str, tuple[list[RawIds], str, list[RawIds]]]:
        matches: dict[str, tuple[list[RawIds], str, list[RawIds]]] = {}
        for node_type, left, other_type, right in builder._same:
            entry = matches.setdefault(node_type, ([], other_type, []))
            entry[0].append(left)
            entry[2].append(right)
        return matches

    def _resolve(self, node_type: str, left: list[RawIds], other_type: str, right: list[RawIds]) -> None:
        full = self.vocabularies.get(node_type)
        if full is None:
            return
        other = np.full(len(full), -1, np.int32)
        own = np.concatenate([full.encode_raw(ids) for ids in left])
        theirs = np.concatenate([self.vocabularies[other_type].encode_raw(ids) for ids in right])
        own, theirs = own[own >= 0], theirs[own >= 0]
        order = np.lexsort((theirs, own))
        own, theirs = own[order], theirs[order]
        first = np.concatenate([[True], own[1:] != own[:-1]]) if len(own) else np.zeros(0, bool)
        other[own[first]] = theirs[first]
        several = int((~first & np.concatenate([[False], theirs[1:] != theirs[:-1]])).sum()) if len(own) else 0
        if several:
            self.notes.append(
                Note("ignored", f"matches of {node_type} with {other_type}", several,
                     f"the {node_type} is another {other_type} already; the smallest id was taken")
            )
        rest = other < 0
        self.notes.append(
            Note("matched", node_type, int((~rest).sum()), f"they are nodes of type {other_type}")
        )
        renumbered = np.where(rest, np.cumsum(rest) - 1, -1).astype(np.int32)
        self.vocabularies[node_type] = full.take(np.flatnonzero(rest))
        self._other[node_type] = (other_type, other, renumbered)
        self._full = {**getattr(self, "_full", {}), node_type: full}

    def codes(self, node_type: str, ids: RawIds) -> list[tuple[str, NDArray[np.int32], NDArray[np.bool_] | None]]:
        """The nodes of a column by type: (node type, codes, mask of the rows that are of this type or None for all)."""
        if node_type not in self._other:
            return [(node_type, self.vocabularies[node_type].encode_raw(ids), None)]
        other_type, other, own = self._other[node_type]
        full = self._full[node_type].encode_raw(ids)
        matched = other[full] >= 0
        if not matched.any():
            return [(node_type, own[full], None)]
        if matched.all():
            return [(other_type, other[full], None)]
        return [(other_type, other[full], matched), (node_type, own[full], ~matched)]

    def pieces(self, rows: _Rows) -> list[tuple[EdgeType, _Piece]]:
        """The rows of a call by edge type, encoded."""
        columns = dict(rows.columns)
        for name, vocabulary in (("relation", self.relations), ("origin", self.origins)):
            if name in rows.raw:
                columns[name] = vocabulary.encode_raw(rows.raw[name])
        if "user" in rows.raw:
            columns["user"] = self.vocabularies["user"].encode_raw(rows.raw["user"])
        number = np.arange(len(rows), dtype=np.int64) + rows.first_row
        made = []
        names: list[tuple[str, NDArray[np.bool_] | None]] = [(rows.name, None)]
        if rows.behaviour is not None:
            codes, words = rows.behaviour
            names = [(word, codes == code if len(words) > 1 else None) for code, word in enumerate(words)]
        for source_type, source, source_mask in self.codes(*rows.source):
            for target_type, target, target_mask in self.codes(*rows.target):
                for name, name_mask in names:
                    masks = [mask for mask in (source_mask, target_mask, name_mask) if mask is not None]
                    mask = np.logical_and.reduce(masks) if masks else None
                    if mask is not None and not mask.any():
                        continue
                    every = {"source": source, "target": target, **columns}
                    if mask is not None:
                        every = {key: column[mask] for key, column in every.items()}
                    piece = _Piece(
                        every, number if mask is None else number[mask], rows.duplicates, rows.place, rows.first_row
                    )
                    made.append(((source_type, name, target_type), piece))
        return made

    def place(self, node_type: str, ids: RawIds) -> list[tuple[str, NDArray[np.int32], NDArray[np.bool_]]]:
        """As :meth:`codes` for ids that may be unknown: masks leave those out."""
        if node_type == "relation":
            codes = self.relations.encode_raw(ids)
            return [(node_type, codes, codes >= 0)]
        if node_type not in self.vocabularies:
            return []
        if node_type not in self._other:
            codes = self.vocabularies[node_type].encode_raw(ids)
            return [(node_type, codes, codes >= 0)]
        other_type, other, own = self._other[node_type]
        full = self._full[node_type].encode_raw(ids)
        theirs = np.where(full >= 0, other[full], -1)
        mine = np.where(full >= 0, own[full], -1)
        return [(other_type, theirs, theirs >= 0), (node_type, mine, mine >= 0)]

    def features(
        self, given: list[tuple[str, str, RawIds, NDArray[np.float32], str]], notes: list[Note]
    ) -> tuple[dict[tuple[str, str], NDArray[np.float32]], dict[tuple[str, str], NDArray[np.bool_]]]:
        """Feature matrices in the order of the nodes, and which nodes have them."""
        matrices: dict[tuple[str, str], NDArray[np.float32]] = {}
        masks: dict[tuple[str, str], NDArray[np.bool_]] = {}
        for node_type, name, ids, matrix, _ in given:
            known = 0
            for found_type, codes, mask in self.place(node_type, ids):
                if not mask.any():
                    continue
                key = (found_type, name)
                size = len(self.vocabularies[found_type])
                if key not in matrices:
                    matrices[key] = np.zeros((size, matrix.shape[1]), np.float32)
                    masks[key] = np.zeros(size, bool)
                if matrices[key].shape[1] != matrix.shape[1]:
                    raise InputError(
                        f"features({name!r}): {matrix.shape[1]} columns here, {matrices[key].shape[1]} before."
                    )
                again = masks[key][codes[mask]].sum() + mask.sum() - len(np.unique(codes[mask]))
                if again:
                    notes.append(Note("replaced", f"rows of feature {name!r}", int(again), "ids given twice; the last counts"))
                matrices[key][codes[mask]] = matrix[mask]
                masks[key][codes[mask]] = True
                known += int(mask.sum())
            if known < len(ids):
                notes.append(Note("left out", f"rows of feature {name!r}", len(ids) - known, f"no such {node_type}"))
        for (node_type, name), mask in masks.items():
            if not mask.all():
                notes.append(Note("zero", f"rows of feature {name!r}", int((~mask).sum()), f"{node_type} nodes without it"))
        return matrices, masks

    def texts(
        self, call: str, given: list[tuple[str, str, RawIds, pa.Array, str]], notes: list[Note]
    ) -> Texts:
        """Strings in the order of the nodes."""
        rows: dict[str, tuple[list[NDArray[np.int64]], list[pa.Array]]] = {}
        for known_call, node_type, ids, values, _ in given:
            if known_call != call:
                continue
            known = 0
            for found_type, codes, mask in self.place(node_type, ids):
                entry = rows.setdefault(found_type, ([], []))
                entry[0].append(codes[mask].astype(np.int64))
                entry[1].append(values.filter(pa.array(mask)))
                known += int(mask.sum())
            if known < len(ids):
                notes.append(Note("left out", f"{call} of {node_type}", len(ids) - known, f"no such {node_type}"))
        arrays = {}
        for node_type, (codes_of, values_of) in rows.items():
            codes = np.concatenate(codes_of)
            if not len(codes):
                continue
            size = len(self.relations) if node_type == "relation" else len(self.vocabularies[node_type])
            index = np.full(size, -1, np.int64)
            index[codes] = np.arange(len(codes))
            arrays[node_type] = pa.concat_arrays(values_of).take(pa.array(index, mask=index < 0))
        return Texts(arrays)


def _merge(edge_type: EdgeType, pieces: list[_Piece], ids: _Ids) -> tuple[tuple[EdgeTable, Provenance], list[Note]]:
    subject = edge_type_name(edge_type)
    policies = {piece.duplicates for piece in pieces}
    if len(policies) > 1:
        raise InputError(f"{subject}: different policies for duplicates ({', '.join(sorted(policies))}).")
    names = sorted({name for piece in pieces for name in piece.columns})
    columns: dict[str, NDArray[Any]] = {}
    notes: list[Note] = []
    for name in names:
        column = [_column(piece, name) for piece in pieces]
        lacking = sum(len(piece.row) for piece in pieces if name not in piece.columns)
        if lacking and name in ("rating", "time", "part"):
            told = {"part": "counted as train", "rating": "without a rating (NaN)", "time": "without a time (NaN)"}
            notes.append(Note("kept", subject, lacking, told[name]))
        columns[name] = column[0] if len(column) == 1 else np.concatenate(column)
    if "part" in columns:
        unassigned = columns["part"] < 0
        if unassigned.all():
            del columns["part"]
        elif unassigned.any():
            notes.append(Note("kept", subject, int(unassigned.sum()), "without a part, counted as train"))
            columns["part"] = np.where(unassigned, 0, columns["part"]).astype(np.int8)
    row = pieces[0].row if len(pieces) == 1 else np.concatenate([piece.row for piece in pieces])
    if not len(row) or int(row.max()) < 2**31:
        row = row.astype(np.int32)
    try:
        merged = canonical(edge_type, columns, pieces[0].duplicates, row)
    except DuplicateError as error:
        raise _duplicate(edge_type, pieces, error, ids) from error
    if merged.num_merged:
        detail = {"first": "kept the first row", "last": "kept the last row", "sum": "added up their weights"}
        notes.append(Note("merged", subject, merged.num_merged, f"duplicate rows, {detail[pieces[0].duplicates]}"))
    if merged.num_shared:
        notes.append(Note("kept", subject, merged.num_shared, "pairs that occur in more than one part"))
    return (merged.table, merged.provenance), notes


def _column(piece: _Piece, name: str) -> NDArray[Any]:
    """A column of a piece, or what stands for it where the piece has none."""
    if name in piece.columns:
        return piece.columns[name]
    size = len(piece.row)
    if name in ("relation", "user", "origin"):
        return np.full(size, -1, np.int32)
    if name == "part":
        return np.zeros(size, np.int8)
    if name in ("rating", "time"):
        return np.full(size, np.nan, np.float32 if name == "rating" else np.float64)
    return np.ones(size, np.int8 if name == "label" else np.float32)


def _duplicate(edge_type: EdgeType, pieces: list[_Piece], error: DuplicateError, ids: _Ids) -> InputError:
    ends = None
    shown = []
    for row in (error.first, error.second):
        for piece in pieces:
            hit = np.flatnonzero(piece.row == row)
            if len(hit):
                shown.append(piece.place.row(row - piece.first_row))
                ends = piece.columns["source"][hit[0]], piece.columns["target"][hit[0]]
    assert ends is not None
    raw = [ids.vocabularies[kind].decode([code]).tolist()[0] for kind, code in zip((edge_type[0], edge_type[2]), ends, strict=True)]
    return InputError(
        f"{edge_type_name(edge_type)}: {edge_type[0]} {raw[0]!r} and {edge_type[2]} {raw[1]!r} occur twice "
        f"({'; '.join(shown)}). Say duplicates='first', 'last' or 'sum' to merge them."
    )


def _isolated_notes(table: EdgeTable, ids: _Ids) -> list[Note]:
    """How many users and items have no ranked interaction, and how many only outside the training part."""
    notes = []
    for node_type, codes in (("user", table.source), ("item", table.target)):
        size = len(ids.vocabularies[node_type])
        seen = np.zeros(size, bool)
        seen[codes] = True
        if not seen.all():
            notes.append(Note("kept", node_type, int((~seen).sum()), "isolated: no ranked interaction"))
        if table.part is not None:
            trained = np.zeros(size, bool)
            trained[codes[table.part == PARTS["train"]]] = True
            cold = int((seen & ~trained).sum())
            if cold:
                notes.append(Note("kept", node_type, cold, "cold: valid or test interactions but none in train"))
    return notes


def _present(*names: str | None) -> list[str]:
    return [name for name in names if name is not None]


def _end(end: tuple[str, str] | str, node_type: str) -> tuple[str, str]:
    return (node_type, end) if isinstance(end, str) else (end[0], end[1])


def _strict(node_type: str) -> bool:
    return node_type in ("user", "item")


def _policy(policy: str) -> str:
    if policy not in ("skip", "add"):
        raise unknown("policy for unknown ids", policy, ("skip", "add"))
    return policy


def _not_misspelt(word: str, columns: list[str], call: str, argument: str) -> None:
    """Refuse a literal that looks like a misspelt column."""
    near = difflib.get_close_matches(word, columns, n=1, cutoff=0.75)
    if near:
        raise InputError(f"{call}: {argument} {word!r} is no column. Did you mean {near[0]!r}?")


def _words(values: Any, place: Place) -> tuple[NDArray[np.int32], list[str]]:
    """A column of few words as codes and words."""
    column = strings(values, place)
    if column.null_count:
        row = int(np.argmax(pc.is_null(column).to_numpy(False)))
        raise InputError(f"{place.row(row)}: no behaviour (null).")
    encoded = column.dictionary_encode()
    words = encoded.dictionary.to_pylist()
    if len(words) > 64:
        raise InputError(f"{place}: {len(words)} different behaviours; expected a few words such as 'view' or 'buy'.")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32), words


def _labels(values: Any, place: Place) -> NDArray[np.int8]:
    label = numbers(values, place)
    wrong = (label != 0) & (label != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{place.row(row)}: label {label[row]:g}. Expected 1 (positive) or 0 (negative).")
    return label.astype(np.int8)


def _parts(values: Any, place: Place) -> NDArray[np.int8]:
    """A column of parts as codes, -1 where none is given."""
    array = as_array(values, place)
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        filled = pc.fill_null(array.cast(pa.float64()), -1)
        codes = np.asarray(filled.to_numpy())
        wrong = ~np.isin(codes, (-1, 0, 1, 2))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InputError(f"{place.row(row)}: part {codes[row]:g}. Expected 0 (train), 1 (valid) or 2 (test).")
        return codes.astype(np.int8)
    column = strings(array, place).dictionary_encode()
    words = column.dictionary.to_pylist()
    index = pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False)
    meaning = np.array([_part_of(word) for word in words] + [-1], np.int8)
    codes = meaning[index]
    wrong = codes == -2
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{place.row(row)}: part {words[index[row]]!r}. Expected one of {', '.join(PART_NAMES)}.")
    return codes


def _part_of(word: str) -> int:
    text = word.strip().lower()
    return int(text) if text in ("0", "1", "2") else _PART_WORDS.get(text, -2)


def as_mapping(columns: Mapping[str, str] | str | None) -> dict[str, str]:
    """``"user=uid,item=sku"`` as ``{"user": "uid", "item": "sku"}``.

    Raises:
        InputError: something without ``=``.
    """
    if columns is None:
        return {}
    if not isinstance(columns, str):
        return dict(columns)
    pairs = [entry.split("=", 1) for entry in columns.split(",") if entry.strip()]
    for pair in pairs:
        if len(pair) != 2 or not pair[0].strip() or not pair[1].strip():
            raise InputError(f"columns {columns!r}: expected role=column pairs such as user=uid,item=sku.")
    return {role.strip(): column.strip() for role, column in pairs}
