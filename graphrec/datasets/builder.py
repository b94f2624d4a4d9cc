"""The builder: the one way from frames to a :class:`~graphrec.datasets.dataset.RecDataset`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from graphrec.datasets.arrow import Place, as_table, column_names, missing_column, place_of
from graphrec.datasets.assembly import Ids, Piece, isolated_notes, merge
from graphrec.datasets.columns import RawIds, raw_ids, singles, times
from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.given import Collected, Rows, given_features, given_strings, is_strict
from graphrec.datasets.notes import Note
from graphrec.datasets.roles import labels, parts, words
from graphrec.datasets.tables import DUPLICATES, PARTS, Duplicates, EdgeTable, EdgeType, Provenance
from graphrec.errors import InputError, unknown

INTERACTS: EdgeType = ("user", "interacts", "item")


class Builder:
    """Collects frames, then builds a dataset: ids become integers, rows become edges with numbers.

    Every method takes pandas, pyarrow or polars frames, anything with the Arrow C stream interface, or a mapping of
    columns, and checks what it is given at once. Ids of all calls are put together in :meth:`build`, sorted, so that
    the order of calls and of rows does not matter for them.

    Example::

        b = Builder("shop")
        b.interactions({"uid": ["a", "b"], "sku": [1, 2]}, user="uid", item="sku")
        data = b.build()

    Args:
        name: of the dataset.
    """

    def __init__(self, name: str = "dataset") -> None:
        self.name = name
        self._given = Collected()
        self._counts: dict[str, int] = {}
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
            duplicates: of rows with the same user, item and part: ``error``, keep the ``first`` or ``last`` (in time,
                then in the input), or ``sum`` the weights. Merged rows are counted in the notes.
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
        table = as_table(frame, _present(user, item, behaviour_column, rating, label, weight, time, part_column), call)
        rows = self._start(
            call, table, ("user", user), ("item", item), behaviour if behaviour_column is None else "", duplicates
        )
        if behaviour is None:
            rows.name = INTERACTS[1]
        if behaviour_column is not None:
            rows.behaviour = words(table[behaviour_column], place_of(table, call, behaviour_column))
        if rating is not None:
            low, high = scale if scale is not None else (None, None)
            place = place_of(table, call, rating)
            rows.columns["rating"] = singles(table[rating], place, low=low, high=high)
        if label is not None:
            rows.columns["label"] = labels(table[label], place_of(table, call, label))
        if part_column is not None:
            rows.columns["part"] = parts(table[part_column], place_of(table, call, part_column))
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
            head: node type and column of the heads, such as ``("item", "sku")``; a bare column holds entities.
                Entities that are items by :meth:`same` become item nodes.
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
        if relation == "relation" and relation not in known:
            raise missing_column(relation, known, call)
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
        self._given.nodes.append((node_type, raw_ids(ids, Place("nodes", node_type), strict=is_strict(node_type))))
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
        right = raw_ids(other_ids, Place("same", other_type), strict=is_strict(other_type))
        if len(left) != len(right):
            raise InputError(f"same: {len(left)} ids of {node_type} but {len(right)} of {other_type}.")
        if any(known[0] == node_type and known[2] != other_type for known in self._given.same):
            raise InputError(f"same: {node_type} is already matched with another node type.")
        self._given.same.append((node_type, left, other_type, right))
        self._given.nodes.append((other_type, right))
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
            unknown: what to do with ids that occur nowhere else: ``skip`` leaves them out and counts them, ``add``
                makes them nodes.
        """
        self._given.features.append(given_features(node_type, ids, array, name, unknown))
        return self

    def texts(self, node_type: str, ids: Any, values: Any, unknown: Literal["skip", "add"] = "skip") -> Builder:
        """Add a text for each of some nodes (see :meth:`features` for ``unknown``)."""
        self._given.strings.append(given_strings("texts", node_type, ids, values, unknown))
        return self

    def names(self, node_type: str, ids: Any, values: Any, unknown: Literal["skip", "add"] = "skip") -> Builder:
        """Add a name for each of some nodes, or, with ``"relation"``, of some relations."""
        self._given.strings.append(given_strings("names", node_type, ids, values, unknown))
        return self

    def kinds(self, node_type: str, ids: Any, values: Any, unknown: Literal["skip", "add"] = "skip") -> Builder:
        """Say of which kind some nodes are (brands and genres among the entities)."""
        self._given.strings.append(given_strings("kinds", node_type, ids, values, unknown))
        return self

    def target(self, behaviour: str | EdgeType) -> Builder:
        """Choose the behaviour that is ranked; needed where there are several and none is ``interacts``."""
        self._target = behaviour
        return self

    def note(self, action: str, subject: str, count: int, detail: str = "") -> Builder:
        """Put down something that was done to the data before it came here; shown by ``summary()``."""
        self._notes.append(Note(action, subject, count, detail))
        return self

    def _start(
        self,
        call: str,
        table: pa.Table,
        source: tuple[str, str],
        target: tuple[str, str],
        name: str | None,
        duplicates: Duplicates,
    ) -> Rows:
        if duplicates not in DUPLICATES:
            raise unknown("policy for duplicates", str(duplicates), DUPLICATES)
        ends = [
            (node_type, raw_ids(table[column], place_of(table, call, column), strict=is_strict(node_type)))
            for node_type, column in (source, target)
        ]
        rows = Rows(
            ends[0], ends[1], name or "", duplicates, self._counts.get(call, 0), place_of(table, call, source[1])
        )
        self._counts[call] = rows.first_row + len(table)
        self._given.rows.append(rows)
        return rows

    def _common(self, rows: Rows, table: pa.Table, call: str, weight: str | None, time: str | None) -> None:
        if weight is not None:
            rows.columns["weight"] = singles(table[weight], place_of(table, call, weight))
        if time is not None:
            rows.columns["time"] = times(table[time], place_of(table, call, time))

    # -- building ------------------------------------------------------------------------------------------------------

    def build(self) -> RecDataset:
        """The dataset of all that was added.

        Raises:
            InputError: nothing was added, duplicates where they are errors, or no behaviour to rank.
        """
        if not any(rows.place.call == "interactions" for rows in self._given.rows):
            raise InputError("Builder.build: no interactions were added (Builder.interactions).")
        ids = Ids(self._given)
        notes = [*self._notes, *ids.notes]
        pieces: dict[EdgeType, list[Piece]] = {}
        for rows in self._given.rows:
            for edge_type, piece in ids.pieces(rows):
                pieces.setdefault(edge_type, []).append(piece)
        target = self._choose_target(pieces)
        tables: dict[EdgeType, EdgeTable] = {}
        provenance: dict[EdgeType, Provenance] = {}
        for edge_type in sorted(pieces, key=lambda known: (known != target, known)):
            merged, said = merge(edge_type, pieces.pop(edge_type), ids)
            tables[edge_type], provenance[edge_type] = merged
            notes += said
        notes += isolated_notes(tables[target], ids)
        features, masks = ids.features(self._given.features, notes)
        texts = {call: ids.texts(call, self._given.strings, notes) for call in ("texts", "names", "kinds")}
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
        behaviours = {
            edge_type[1]: edge_type for edge_type in pieces if (edge_type[0], edge_type[2]) == ("user", "item")
        }
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


def _present(*names: str | None) -> list[str]:
    return [name for name in names if name is not None]


def _end(end: tuple[str, str] | str, node_type: str) -> tuple[str, str]:
    return (node_type, end) if isinstance(end, str) else (end[0], end[1])


def _not_misspelt(word: str, columns: list[str], call: str, argument: str) -> None:
    """Refuse a literal that looks like a misspelt column."""
    near = difflib.get_close_matches(word, columns, n=1, cutoff=0.75)
    if near:
        raise InputError(f"{call}: {argument} {word!r} is no column. Did you mean {near[0]!r}?")
