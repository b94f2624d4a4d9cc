"""From what a builder was given to codes, edge tables and aligned features: the second half of the builder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graphrec.datasets.arrow import Place
from graphrec.datasets.columns import RawIds
from graphrec.datasets.given import Collected, Features, Rows, Strings
from graphrec.datasets.notes import Note
from graphrec.datasets.tables import (
    PARTS,
    DuplicateError,
    Duplicates,
    EdgeTable,
    EdgeType,
    Provenance,
    canonical,
    edge_type_name,
)
from graphrec.datasets.texts import Texts
from graphrec.datasets.vocabulary import Vocabulary
from graphrec.errors import InputError


@dataclass
class Piece:
    """Encoded rows of one call and one edge type."""

    columns: dict[str, NDArray[Any]]
    row: NDArray[np.int64]
    duplicates: Duplicates
    place: Place
    first_row: int


class Ids:
    """All ids of a builder, put together."""

    def __init__(self, given: Collected) -> None:
        self.notes: list[Note] = []
        self._same = self._matches(given)
        columns: dict[str, list[RawIds]] = {"user": [], "item": []}
        relations, origins = [], []
        for rows in given.rows:
            for node_type, ids in (rows.source, rows.target):
                columns.setdefault(node_type, []).append(ids)
            if "user" in rows.raw:
                columns["user"].append(rows.raw["user"])
            relations += [rows.raw["relation"]] if "relation" in rows.raw else []
            origins += [rows.raw["origin"]] if "origin" in rows.raw else []
        for node_type, ids in given.nodes:
            columns.setdefault(node_type, []).append(ids)
        described: list[Features | Strings] = [*given.features, *given.strings]
        for entry in described:
            if entry.policy == "add" and entry.node_type != "relation":
                columns.setdefault(entry.node_type, []).append(entry.ids)
        self.vocabularies = {node_type: Vocabulary.of(found, node_type) for node_type, found in columns.items()}
        self.relations = Vocabulary.of(relations, "relation")
        self.origins = Vocabulary.of(origins, "origin")
        # What stands for each id of a matched type: a node of the other type (-1: none), or its own code.
        self._other: dict[str, tuple[str, NDArray[np.int32], NDArray[np.int32]]] = {}
        self._full: dict[str, Vocabulary] = {}
        for node_type, (left, other_type, right) in self._same.items():
            self._resolve(node_type, left, other_type, right)

    def _matches(self, given: Collected) -> dict[str, tuple[list[RawIds], str, list[RawIds]]]:
        matches: dict[str, tuple[list[RawIds], str, list[RawIds]]] = {}
        for node_type, left, other_type, right in given.same:
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
                Note(
                    "ignored",
                    f"matches of {node_type} with {other_type}",
                    several,
                    f"the {node_type} is another {other_type} already; the smallest id was taken",
                )
            )
        rest = other < 0
        self.notes.append(Note("matched", node_type, int((~rest).sum()), f"they are nodes of type {other_type}"))
        renumbered = np.where(rest, np.cumsum(rest) - 1, -1).astype(np.int32)
        self.vocabularies[node_type] = full.take(np.flatnonzero(rest))
        self._other[node_type] = (other_type, other, renumbered)
        self._full[node_type] = full

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

    def pieces(self, rows: Rows) -> list[tuple[EdgeType, Piece]]:
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
                    piece = Piece(
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
        self, given: Sequence[Features], notes: list[Note]
    ) -> tuple[dict[tuple[str, str], NDArray[np.float32]], dict[tuple[str, str], NDArray[np.bool_]]]:
        """Feature matrices in the order of the nodes, and which nodes have them."""
        matrices: dict[tuple[str, str], NDArray[np.float32]] = {}
        masks: dict[tuple[str, str], NDArray[np.bool_]] = {}
        for entry in given:
            node_type, name, ids, matrix = entry.node_type, entry.name, entry.ids, entry.matrix
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
                    notes.append(
                        Note("replaced", f"rows of feature {name!r}", int(again), "ids given twice; the last counts")
                    )
                matrices[key][codes[mask]] = matrix[mask]
                masks[key][codes[mask]] = True
                known += int(mask.sum())
            if known < len(ids):
                notes.append(Note("left out", f"rows of feature {name!r}", len(ids) - known, f"no such {node_type}"))
        for (node_type, name), mask in masks.items():
            if not mask.all():
                notes.append(
                    Note("zero", f"rows of feature {name!r}", int((~mask).sum()), f"{node_type} nodes without it")
                )
        return matrices, masks

    def texts(self, call: str, given: Sequence[Strings], notes: list[Note]) -> Texts:
        """Strings in the order of the nodes."""
        rows: dict[str, tuple[list[NDArray[np.int64]], list[pa.Array]]] = {}
        for entry in given:
            if entry.call != call:
                continue
            node_type, ids = entry.node_type, entry.ids
            known = 0
            for found_type, codes, mask in self.place(node_type, ids):
                so_far = rows.setdefault(found_type, ([], []))
                so_far[0].append(codes[mask].astype(np.int64))
                so_far[1].append(entry.values.filter(pa.array(mask)))
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


def merge(edge_type: EdgeType, pieces: list[Piece], ids: Ids) -> tuple[tuple[EdgeTable, Provenance], list[Note]]:
    """The rows of one edge type as its table, with what there is to say about them.

    Raises:
        InputError: duplicates where they are errors, or calls that disagree about them.
    """
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
            told = {
                "part": ("kept as train", "no part is named for them"),
                "rating": ("kept", "without a rating (NaN)"),
                "time": ("kept", "without a time (NaN)"),
            }
            notes.append(Note(told[name][0], subject, lacking, told[name][1]))
        columns[name] = column[0] if len(column) == 1 else np.concatenate(column)
    if "part" in columns:
        unassigned = columns["part"] < 0
        if unassigned.all():
            del columns["part"]
        elif unassigned.any():
            notes.append(Note("kept as train", subject, int(unassigned.sum()), "no part is named for them"))
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
    loops = int((merged.table.source == merged.table.target).sum()) if edge_type[0] == edge_type[2] else 0
    if loops:
        notes.append(Note("kept", subject, loops, "self-loops: edges from a node to itself"))
    if merged.num_shared:
        notes.append(Note("kept", subject, merged.num_shared, "pairs that occur in more than one part"))
    return (merged.table, merged.provenance), notes


def _column(piece: Piece, name: str) -> NDArray[Any]:
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


def _duplicate(edge_type: EdgeType, pieces: list[Piece], error: DuplicateError, ids: Ids) -> InputError:
    ends = None
    shown = []
    for row in (error.first, error.second):
        for piece in pieces:
            hit = np.flatnonzero(piece.row == row)
            if len(hit):
                shown.append(piece.place.row(row - piece.first_row))
                ends = piece.columns["source"][hit[0]], piece.columns["target"][hit[0]]
    assert ends is not None
    raw = [
        ids.vocabularies[kind].decode([code]).tolist()[0]
        for kind, code in zip((edge_type[0], edge_type[2]), ends, strict=True)
    ]
    return InputError(
        f"{edge_type_name(edge_type)}: {edge_type[0]} {raw[0]!r} and {edge_type[2]} {raw[1]!r} occur twice "
        f"({'; '.join(shown)}). Say duplicates='first', 'last' or 'sum' to merge them."
    )


def isolated_notes(table: EdgeTable, ids: Ids) -> list[Note]:
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
