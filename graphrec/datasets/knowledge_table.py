"""A knowledge graph from a catalogue: the columns of an item table become triples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graphrec.datasets.arrow import missing_column, place_of
from graphrec.datasets.cells import LEVEL, binned, cells_of
from graphrec.datasets.columns import raw_ids
from graphrec.datasets.frames import from_table
from graphrec.datasets.knowledge import KnowledgeGraph
from graphrec.datasets.notes import Note
from graphrec.datasets.single_file import GUESSES
from graphrec.datasets.value_tree import BETWEEN, ColumnValues, forest, limited
from graphrec.datasets.vocabulary import Vocabulary
from graphrec.errors import InputError, unknown

_CALL = "kg_from_table"
_NUMBERS = ("bins", "min_count", "max_share")
DEFAULT_BINS = 10
MISSING = ("", "nan", "none", "null", "n/a", "na", "-", "unknown", "(no genres listed)")


@dataclass(frozen=True)
class Attribute:
    """How one column of a catalogue becomes triples.

    Attributes:
        relation: of the triples (item, relation, value).
        separator: between the values of a cell (``"|"``); None: a cell is one value. Lists need none.
        hierarchy: between the levels of a path (``">"`` for ``a > b > c``): the item is tied to the last level, each
            level to the one above it by ``parent``. Lists of lists are paths then.
        parent: the relation from a level to the one above.
        bins: of a column of numbers: how many, or the inner edges (``(10, 20)`` for three); None: the values as they
            are, unless the column holds decimal numbers (then 10).
        binning: ``quantile`` (as many items in each) or ``width``.
        kind: of the values, which makes them the same entities in several columns (actors and directors are a
            ``person``); None: the column's name.
        min_count: values of fewer items are dropped; None: as for all columns.
        max_share: values of a greater share of the items are dropped; None: as for all columns.
    """

    relation: str
    separator: str | None = None
    hierarchy: str | None = None
    parent: str = "part_of"
    bins: int | Sequence[float] | None = None
    binning: Literal["quantile", "width"] = "quantile"
    kind: str | None = None
    min_count: int | None = None
    max_share: float | None = None

    def __post_init__(self) -> None:
        if not self.relation or not self.parent:
            raise InputError("Attribute: an empty relation. Expected a word such as 'made_by'.")
        if self.separator == "" or self.hierarchy == "":
            raise InputError(f"Attribute({self.relation!r}): an empty separator. Expected one such as '|'.")
        if self.hierarchy is not None and self.bins is not None:
            raise InputError(f"Attribute({self.relation!r}): hierarchy and bins exclude each other.")
        if self.hierarchy is not None and self.hierarchy == self.separator:
            raise InputError(f"Attribute({self.relation!r}): values and levels are separated by {self.separator!r}.")
        if self.binning not in ("quantile", "width"):
            raise unknown("binning", str(self.binning), ("quantile", "width"))
        if isinstance(self.bins, int) and self.bins < 2:
            raise InputError(f"Attribute({self.relation!r}): {self.bins} bins. Expected at least 2.")
        if self.min_count is not None and self.min_count < 1:
            raise InputError(f"Attribute({self.relation!r}): min_count {self.min_count}. Expected at least 1.")
        if self.max_share is not None and not 0 < self.max_share <= 1:
            raise InputError(f"Attribute({self.relation!r}): max_share {self.max_share:g}. Expected above 0, up to 1.")


def kg_from_table(
    items: Any,
    columns: Mapping[str, str | Attribute | Mapping[str, Any]] | str,
    *,
    item: str | None = None,
    name: str | None = None,
    separator: str | None = None,
    header: bool = True,
    encoding: str = "utf-8",
    min_count: int = 2,
    max_share: float = 0.5,
    missing: Sequence[str] = MISSING,
) -> KnowledgeGraph:
    """A knowledge graph from a table of items, such as a shop's catalogue.

    Each cell gives triples (item, relation of the column, value). Values are written in many ways: spellings that
    differ only in case, white space, Unicode form or punctuation are one value, called what it is written most often.
    A value that a single item has ties nothing together, one that most items have ties everything together: both are
    dropped. In a hierarchy, an item of a level that is too rare is tied to the next level that is not. Everything
    merged or dropped is counted in ``.notes``.

    Example:
        >>> from graphrec.datasets import Attribute, Builder, kg_from_table
        >>> catalogue = {
        ...     "sku": ["a1", "a2", "a3", "a4"],
        ...     "brand": ["Acme", "ACME", "Zeta", "zeta "],
        ...     "tags": ["red|soft", "Red", "soft|blue", None],
        ...     "category": ["Home > Bath", "Home > Bath", "Home > Kitchen", "Home > Kitchen"],
        ...     "price": [1.0, 2.0, 10.0, 20.0],
        ... }
        >>> kg = kg_from_table(
        ...     catalogue,
        ...     columns={
        ...         "brand": "made_by",
        ...         "tags": Attribute("has_tag", separator="|"),
        ...         "category": Attribute("in_category", hierarchy=">", max_share=1.0),
        ...         "price": Attribute("priced", bins=2),
        ...     },
        ...     item="sku",
        ... )
        >>> kg
        KnowledgeGraph(18 triples, 13 entities, 5 relations)
        >>> for row in kg.frame()[["head", "relation", "tail"]].values.tolist()[:4]:
        ...     print(*row)
        a1 has_tag tags:Red
        a1 has_tag tags:soft
        a1 in_category category:Home > Bath
        a1 made_by brand:ACME
        >>> for note in kg.notes:
        ...     print(note)
        2 spellings of brand merged: 2 names are left, each the most frequent spelling
        without: 1 rows of tags, null, blank or a word for a missing value
        1 spellings of tags merged: 3 names are left, each the most frequent spelling
        1 rare values of tags removed: of fewer than 2 items (1 triples)
        4 values of price binned, 2 bins by quantile: below 6; 6 and above
        >>> rows = {"user": ["u", "u", "v", "v"], "item": ["a1", "a2", "a3", "a4"]}
        >>> data = Builder("shop").interactions(rows).build().with_knowledge(kg)
        >>> data.num_nodes["entity"], sorted(data.relations.raw)
        (9, ['has_tag', 'in_category', 'made_by', 'part_of', 'priced'])

    Args:
        items: a pandas, pyarrow or polars frame, a mapping of columns, or the path of a csv, tsv or parquet file.
        columns: column to its relation, or to an :class:`Attribute` (or a mapping of its fields) where more is to be
            said. As text: ``"brand=made_by,genres=has_genre:separator=|,category=in_category:hierarchy=>"``.
        item: the column of item ids, as they are in the interactions; None: found by its name (``itemID``, ``sku``,
            ``asin``, …).
        name: a column of names of the items; checked against those of the dataset when the graph is given to one.
        separator: between the fields of a text file; None: found from its first line.
        header: whether a text file's first line names the columns; without it they are ``"0"``, ``"1"``, …
        encoding: of a text file.
        min_count: fewest items of a value.
        max_share: largest share of the items (those of the table) that may have a value.
        missing: words that stand for no value, whatever their case.

    Raises:
        InputError: a column that is not there, an item without an id, cells that are neither texts, numbers nor lists
            of them, bins of a column without numbers, or no triple left; names column and row.
    """
    attributes = attributes_of(columns)
    if min_count < 1 or not 0 < max_share <= 1:
        raise InputError(f"{_CALL}: min_count {min_count}, max_share {max_share:g}: expected at least 1, above 0 to 1.")
    table = from_table(items, separator=separator, header=header, encoding=encoding)
    item = item if item is not None else _item_column(table.column_names)
    for wanted in (item, *attributes, *([name] if name else [])):
        if wanted not in table.column_names:
            raise missing_column(wanted, table.column_names, _CALL)
    ids = raw_ids(table[item], place_of(table, _CALL, item))
    if not len(ids):
        raise InputError(f"{_CALL}: the table has no rows.")
    known_items = Vocabulary.of([ids], "item")
    item_codes, raw = known_items.encode_raw(ids).astype(np.int64), known_items.raw
    labels = np.array([str(value) for value in raw.tolist()], dtype=object)
    notes: list[Note] = []
    if len(labels) < len(ids):
        notes.append(Note("joined", "rows of the catalogue", len(ids) - len(labels), "of items listed before"))
    kinds: dict[str, dict[str, Attribute]] = {}
    for column, attribute in attributes.items():
        kinds.setdefault(attribute.kind or column, {})[column] = attribute
    triples: list[tuple[Any, str, Any]] = []
    names: dict[str, str] = {}
    kind_of: dict[str, str] = dict.fromkeys(labels.tolist(), "item")
    for kind, of_kind in kinds.items():
        read = [_column(table, column, known, item_codes, missing, notes) for column, known in of_kind.items()]
        made = forest(read)
        if made.merged:
            told = f"{len(made.paths):,} names are left, each the most frequent spelling"
            notes.append(Note("merged", f"spellings of {kind}", made.merged, told))
        few = min(min_count if known.min_count is None else known.min_count for known in of_kind.values())
        share = max(_share(known, max_share) for known in of_kind.values())
        kept, said = limited(kind, made, len(labels), few, share)
        notes += said
        ends = np.array([f"{kind}:{BETWEEN.join(path)}" for path in made.paths], dtype=object)
        for column, pairs in kept.pairs.items():
            triples.append((labels[pairs[:, 0]], of_kind[column].relation, ends[pairs[:, 1]]))
        triples.append((ends[kept.edges[:, 0]], _parent(kind, of_kind), ends[kept.edges[:, 1]]))
        names |= {end: path[-1] for end, path in zip(ends.tolist(), made.paths, strict=True)}
        kind_of |= dict.fromkeys(ends.tolist(), kind)
    taken = sorted(set(labels.tolist()) & names.keys())
    if taken:
        raise InputError(f"{_CALL}: {taken[0]!r} is an item and a value; say another kind for the column.")
    if name is not None:
        titles = table[name].cast(pa.large_string()).to_pylist()
        titled = zip(labels[item_codes].tolist(), titles, strict=True)
        names |= {label: title for label, title in titled if title and title.strip()}
    return KnowledgeGraph.of(
        np.concatenate([head for head, _, _ in triples]).tolist(),
        np.repeat([relation for _, relation, _ in triples], [len(head) for head, _, _ in triples]).tolist(),
        np.concatenate([tail for _, _, tail in triples]).tolist(),
        items=dict(zip(labels.tolist(), raw.tolist(), strict=True)),
        names=names,
        kinds=kind_of,
        declared=sorted({attribute.relation for attribute in attributes.values()}),
        notes=notes,
    )


def _column(
    table: pa.Table,
    column: str,
    attribute: Attribute,
    item_codes: Any,
    missing: Sequence[str],
    notes: list[Note],
) -> ColumnValues:
    """The values of a column with their items; what has none, and how numbers were binned, goes into the notes."""
    place = place_of(table, _CALL, column)
    cells = cells_of(table[column], place, attribute.separator, missing, paths=attribute.hierarchy is not None)
    if cells.missing:
        told = "null, blank or a word for a missing value"
        notes.append(Note("without", f"rows of {column}", cells.missing, told))
    bins = DEFAULT_BINS if attribute.bins is None and cells.decimal and attribute.hierarchy is None else attribute.bins
    if bins is None:
        level = LEVEL if cells.nested else attribute.hierarchy
        notes += _unsaid(column, attribute, cells.value)
        return ColumnValues(column, item_codes[cells.row], cells.value, level)
    count = len(cells.value)
    cells, bin_names, wrong = binned(cells, bins, attribute.binning, place)
    how = f"by {attribute.binning}" if isinstance(bins, int) else "as stated"
    notes.append(
        Note("binned", f"values of {column}", count - wrong, f"{len(bin_names)} bins {how}: {'; '.join(bin_names)}")
    )
    if wrong:
        notes.append(Note("left out", f"values of {column}", wrong, "no numbers"))
    return ColumnValues(column, item_codes[cells.row], cells.value, exact=True)


def _unsaid(column: str, attribute: Attribute, values: pa.Array) -> list[Note]:
    """A note where many values look as if they were several, and nobody said so."""
    if attribute.separator is not None or attribute.hierarchy is not None or not len(values):
        return []
    for mark, option in (("|", "separator"), (" > ", "hierarchy")):
        count = pc.sum(pc.match_substring(values, mark)).as_py() or 0
        if count > 0.05 * len(values):
            return [
                Note("kept", f"values of {column}", count, f"they hold {mark!r}; {option}={mark.strip()!r} parts them")
            ]
    return []


def _share(attribute: Attribute, max_share: float) -> float:
    """The largest share of a column's values; bins are as large as they were asked to be."""
    if attribute.max_share is not None:
        return attribute.max_share
    return 1.0 if attribute.bins is not None else max_share


def _parent(kind: str, attributes: Mapping[str, Attribute]) -> str:
    found = {known.parent for known in attributes.values() if known.hierarchy is not None}
    if len(found) > 1:
        raise InputError(
            f"{_CALL}: kind {kind!r} has several relations to the level above: {', '.join(sorted(found))}."
        )
    return found.pop() if found else Attribute.parent


def _item_column(names: Sequence[str]) -> str:
    """The column of item ids, by its name."""
    plain = {name: "".join(mark for mark in name.casefold() if mark.isalnum()) for name in names}
    found = [name for name in names if plain[name] in (*GUESSES["item"], "id")]
    if len(found) != 1:
        what = f"{', '.join(map(repr, found))} could each be" if found else "no column has a known name for"
        raise InputError(f"{_CALL}: {what} the item. Columns found: {', '.join(map(repr, names))}. Say item=COLUMN.")
    return found[0]


def attributes_of(columns: Mapping[str, str | Attribute | Mapping[str, Any]] | str) -> dict[str, Attribute]:
    """What a person said about the columns, as an :class:`Attribute` each.

    Args:
        columns: as for :func:`kg_from_table`; as text, ``column=relation`` pairs separated by commas, options of
            :class:`Attribute` behind the relation: ``genres=has_genre:separator=|``.

    Raises:
        InputError: nothing was said, or an option that does not exist.
    """
    if isinstance(columns, str):
        columns = dict(_worded(entry, columns) for entry in columns.split(","))
    if not columns:
        raise InputError(f"{_CALL}: no columns. Expected such as {{'brand': 'made_by'}}.")
    made = {}
    for column, said in columns.items():
        if isinstance(said, Attribute):
            made[column] = said
        elif isinstance(said, str):
            made[column] = Attribute(said)
        elif isinstance(said, Mapping):
            known = [entry.name for entry in fields(Attribute)]
            for option in said:
                if option not in known:
                    raise unknown(f"option of column {column!r}", str(option), known)
            if "relation" not in said:
                raise InputError(f"{_CALL}: column {column!r}: no relation in {dict(said)}.")
            made[column] = Attribute(**said)
        else:
            raise InputError(f"{_CALL}: column {column!r}: {said!r}. Expected a relation or an Attribute.")
    return made


def _worded(entry: str, text: str) -> tuple[str, dict[str, Any]]:
    """``genres=has_genre:separator=|`` as ``("genres", {"relation": "has_genre", "separator": "|"})``."""
    column, equals, rest = entry.partition("=")
    relation, *options = rest.split(":")
    if not equals or not column.strip() or not relation.strip():
        raise InputError(f"columns {text!r}: {entry!r}: expected column=relation, such as brand=made_by.")
    said: dict[str, Any] = {"relation": relation.strip()}
    for option in options:
        word, equals, value = option.partition("=")
        if not equals or not value:
            raise InputError(f"columns {text!r}: {option!r}: expected option=value, such as separator=|.")
        said[word.strip()] = _numeric(option, value) if word.strip() in _NUMBERS else value
    return column.strip(), said


def _numeric(option: str, value: str) -> float | int:
    try:
        return int(value) if value.strip().isdigit() else float(value)
    except ValueError:
        raise InputError(f"{option!r}: expected a number.") from None
