"""Sparse matrices of edges: compressed rows with 32-bit indices that remember which edge each entry came
from.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.errors import InputError, unknown

EdgeType = tuple[str, str, str]
"""(source node type, relation, target node type), as in torch_geometric."""

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Adjacency:
    """A sparse (R, C) matrix in compressed rows, each stored entry one edge.

    Parallel edges are kept apart and add up in products. Within a row the columns ascend. Letters: R rows, C
    columns, E stored entries, L edges of the list it was built from (L = E unless rows were picked).

    Attributes:
        rowptr: (R + 1,) int32; the entries of row r are ``rowptr[r]:rowptr[r + 1]``.
        col: (E,) int32.
        shape: (R, C).
        values: (E,) float in stored order; None means that every entry is 1.
        edge: (E,) int64, position of each entry in the edge list; None where the stored order is that of the
            list.
        edge_id: (E,) int64 in stored order; None where the edges carry no ids.
        symmetric: whether the matrix equals its transpose (checked when it was built).
        num_edges: L.
        cache: what was made from this matrix and its values, by those who multiply with it.
    """

    rowptr: Tensor
    col: Tensor
    shape: tuple[int, int]
    values: Tensor | None = None
    edge: Tensor | None = None
    edge_id: Tensor | None = None
    symmetric: bool = False
    num_edges: int = -1
    # What depends on the pattern alone is shared by matrices that differ in their values.
    pattern_cache: dict[str, Any] = field(default_factory=dict, repr=False)
    cache: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.num_edges < 0:
            object.__setattr__(self, "num_edges", int(self.col.shape[0]))

    @classmethod
    def from_edges(
        cls,
        edge_index: Tensor,
        shape: tuple[int, int],
        *,
        values: Tensor | None = None,
        edge_id: Tensor | None = None,
        symmetric: bool = False,
    ) -> Adjacency:
        """The matrix of an edge list; edges that occur twice are two entries.

        Args:
            edge_index: (2, L) integers, rows then columns.
            shape: (R, C).
            values: (L,) float in the order of the list.
            edge_id: (L,) int64 in the order of the list.
            symmetric: says that the matrix equals its transpose, so that no transpose is stored; checked.

        Raises:
            InputError: an index lies outside ``shape``, lengths differ, or ``symmetric`` is not true.
        """
        rows, cols = _checked_edges(edge_index, shape)
        count = rows.shape[0]
        for name, given in (("values", values), ("edge_id", edge_id)):
            if given is not None and given.shape != (count,):
                raise InputError(f"{name} must have shape ({count},), one for each edge, found {tuple(given.shape)}.")
        keys = rows * shape[1] + cols
        edge = None
        if count > 1 and not bool((keys[1:] >= keys[:-1]).all()):
            edge = torch.argsort(keys, stable=True)
            rows, cols = rows[edge], cols[edge]
            values = None if values is None else values[edge]
            edge_id = None if edge_id is None else edge_id[edge]
        made = cls(_rowptr(rows, shape[0]), cols.to(torch.int32), shape, values, edge, edge_id)
        if not symmetric:
            return made
        if not made._is_symmetric():
            raise InputError("symmetric=True, but the edges and values are not those of a symmetric matrix.")
        return replace(made, symmetric=True)

    def __len__(self) -> int:
        """E, the number of stored entries."""
        return int(self.col.shape[0])

    @property
    def device(self) -> torch.device:
        """Where the matrix is."""
        return self.col.device

    @property
    def transposed(self) -> Adjacency:
        """The (C, R) matrix, made once; of a symmetric matrix it is the matrix itself."""
        if self.symmetric:
            return self
        if "transposed" not in self.cache:
            self.cache["transposed"] = self._transpose()
        made: Adjacency = self.cache["transposed"]
        return made

    def _transpose(self) -> Adjacency:
        """The transposed matrix with a pattern of its own, whether symmetric or not."""
        other, order = self._opposite()
        if "transposed_pattern" not in self.pattern_cache:
            # Tensors only: no cycle of references keeps a finished step's matrices alive.
            back = _Pattern(self.rowptr, self.col, self.edge, self.edge_id, None, order)
            self.pattern_cache["transposed_pattern"] = {"opposite": back}
        values = None if self.values is None else self.values.index_select(0, order)
        return Adjacency(
            other.rowptr,
            other.col,
            (self.shape[1], self.shape[0]),
            values,
            other.edge,
            other.edge_id,
            self.symmetric,
            self.num_edges,
            self.pattern_cache["transposed_pattern"],
        )

    def _opposite(self) -> tuple[_Pattern, Tensor]:
        """The pattern of the transpose, and the stored entry here that each of its entries comes from."""
        with torch.inference_mode(False):  # what is kept must serve training too
            known: _Pattern | None = self.pattern_cache.get("opposite")
            if known is None:
                rowptr, rows, order = _sorted_by_column(self)
                known = _Pattern(
                    rowptr,
                    rows,
                    order if self.edge is None else self.edge[order],
                    None if self.edge_id is None else self.edge_id[order],
                    order,
                    None,
                )
                self.pattern_cache["opposite"] = known
            if known.order is None:
                known.order = _inverse(known.inverse)
            return known, known.order

    def transposed_pattern(self) -> tuple[Adjacency, Tensor]:
        """The transposed matrix without values, and the stored entry (E,) that each of its entries comes
        from.

        Also for a symmetric matrix, where only the order differs: values given by a caller need not be
        symmetric.
        """
        if "bare" not in self.cache:
            self.cache["bare"] = replace(self, values=None, cache={})._transpose()
        bare: Adjacency = self.cache["bare"]
        return bare, self._opposite()[1]

    def _is_symmetric(self) -> bool:
        if self.shape[0] != self.shape[1]:
            return False
        other = self._transpose()
        if not (torch.equal(other.rowptr, self.rowptr) and torch.equal(other.col, self.col)):
            return False
        return self.values is None or (other.values is not None and torch.equal(self.values, other.values))

    def rows(self) -> Tensor:
        """Row of each stored entry, (E,) int32."""
        if "rows" not in self.pattern_cache:
            index = torch.arange(self.shape[0], dtype=torch.int32, device=self.device)
            self.pattern_cache["rows"] = torch.repeat_interleave(index, self.degrees(0), output_size=len(self))
        rows: Tensor = self.pattern_cache["rows"]
        return rows

    def edge_positions(self) -> Tensor:
        """Position of each stored entry in the edge list, (E,) int64, also where :attr:`edge` is None."""
        return torch.arange(len(self), device=self.device) if self.edge is None else self.edge

    def stored(self, values: Tensor) -> Tensor:
        """Values (L,) in edge-list order put into stored order, (E,); differentiable."""
        if values.shape != (self.num_edges,):
            raise InputError(
                f"values must have shape ({self.num_edges},), one for each edge of the list that the matrix was "
                f"built from, found {tuple(values.shape)}."
            )
        return values if self.edge is None else values.index_select(0, self.edge)

    def with_values(self, values: Tensor | None) -> Adjacency:
        """The same pattern with other values, given in edge-list order (L,); None: ones."""
        stored = None if values is None else self.stored(values)
        made = replace(self, values=stored, symmetric=False, cache={})
        if self.symmetric and made._is_symmetric():
            return replace(made, symmetric=True, cache={})
        return made

    def with_stored_values(self, values: Tensor | None) -> Adjacency:
        """The same pattern with other values, given in stored order (E,); None: ones. Never marked
        symmetric.
        """
        return replace(self, values=values, symmetric=False, cache={})

    def degrees(self, dim: int = 0) -> Tensor:
        """Entries of each index along dimension ``dim``: 0 for rows, (R,), 1 for columns, (C,); int64."""
        if dim == 0:
            return torch.diff(self.rowptr).long()
        if dim == 1:
            return torch.bincount(self.col, minlength=self.shape[1])
        raise InputError(f"dim must be 0 (rows) or 1 (columns), found {dim}.")

    def contains(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Whether there is an entry at (row, column), boolean of the shape that both broadcast to.

        By bisection within the row. Where rows are (B, 1) and columns (1, n), the B rows are looked up among
        the n columns instead, which takes the entries of those rows and no search.
        """
        if rows.dim() == 2 and cols.dim() == 2 and rows.shape[1] == 1 and cols.shape[0] == 1:
            return self._contains_grid(rows[:, 0], cols[0])
        rows, cols = torch.broadcast_tensors(rows, cols)
        shape = rows.shape
        rows, cols = rows.reshape(-1).long(), cols.reshape(-1).to(torch.int32)
        low, end = self.rowptr[rows], self.rowptr[rows + 1]
        high = end
        for _ in range(self._bisections()):
            # Finds the first entry that is not below the column.
            middle = (low + high) >> 1
            below = (middle < high) & (self.col[middle.clamp_max(max(len(self) - 1, 0))] < cols)
            low = torch.where(below, middle + 1, low)
            high = torch.where(below, high, middle)
        if len(self) == 0:
            return torch.zeros(shape, dtype=torch.bool, device=self.device)
        return ((low < end) & (self.col[low.clamp_max(len(self) - 1)] == cols)).reshape(shape)

    def _bisections(self) -> int:
        if "bisections" not in self.pattern_cache:
            longest = int(self.degrees(0).max()) if self.shape[0] and len(self) else 0
            self.pattern_cache["bisections"] = longest.bit_length()
        steps: int = self.pattern_cache["bisections"]
        return steps

    def _contains_grid(self, rows: Tensor, cols: Tensor) -> Tensor:
        distinct, inverse = torch.unique(cols, return_inverse=True)
        place = torch.full((self.shape[1],), -1, dtype=torch.int64, device=self.device)
        place[distinct] = torch.arange(len(distinct), device=self.device)
        picked = self.row_subset(rows)
        column = place[picked.col.long()]
        known = column >= 0
        found = torch.zeros(len(rows), len(distinct), dtype=torch.bool, device=self.device)
        found[picked.rows().long()[known], column[known]] = True
        return found if len(distinct) == 0 else found[:, inverse]

    def row_subset(self, rows: Tensor, edges: bool = True) -> Adjacency:
        """The (B, C) matrix of some rows, in the order given; a row may be named twice.

        Entries keep their edge ids and their positions in the whole edge list, so that values are still given as (L,).

        Args:
            rows: (B,) int64.
            edges: whether edges are kept track of; without, the picked entries are a list of their own.
        """
        shape = len(rows), self.shape[1]
        if not edges and len(rows) and (whole := _scipy(self)) is not None:
            part = whole[rows.numpy()]
            rowptr, col, values = (torch.from_numpy(x) for x in (part.indptr, part.indices, part.data))
            return Adjacency(rowptr, col, shape, values)
        rowptr, col, entry = _picked(self, rows)
        return Adjacency(
            rowptr,
            col,
            shape,
            None if self.values is None else self.values.index_select(0, entry),
            None if not edges else entry.long() if self.edge is None else self.edge[entry],
            None if not edges or self.edge_id is None else self.edge_id[entry],
            num_edges=self.num_edges if edges else -1,
        )

    def turned(self) -> Adjacency:
        """The transposed matrix as one that keeps no track of edges: quicker than :attr:`transposed` where it serves
        once.
        """
        whole = _scipy(self)
        if whole is None:
            return self.transposed
        other = whole.tocsc()
        rowptr, col, values = (torch.from_numpy(x) for x in (other.indptr, other.indices, other.data))
        return Adjacency(rowptr, col, (self.shape[1], self.shape[0]), values)

    def apply(self, function: Callable[[Tensor], Tensor]) -> Adjacency:
        """The same matrix with ``function`` applied to each tensor: a move to a device, a change of floating
        type.

        The function must leave integers as they are, as those that ``nn.Module`` passes along do.
        """

        def over(given: Tensor | None) -> Tensor | None:
            return None if given is None else function(given)

        return Adjacency(
            function(self.rowptr),
            function(self.col),
            self.shape,
            over(self.values),
            over(self.edge),
            over(self.edge_id),
            self.symmetric,
            self.num_edges,
        )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Adjacency:
        """The matrix on another device, or with values of another floating type."""
        return self.apply(lambda given: given.to(device, dtype if given.is_floating_point() else given.dtype))

    def __deepcopy__(self, memo: dict[int, Any]) -> Adjacency:
        """A copy of its own. What was made from this matrix is left behind: torch cannot copy sparse tensors."""
        return self.apply(torch.clone)

    def to_dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """The matrix as (R, C); parallel edges added up. For small graphs and tests."""
        values = torch.ones(len(self), device=self.device) if self.values is None else self.values
        values = values.to(dtype or values.dtype)
        dense = torch.zeros(self.shape, dtype=values.dtype, device=self.device)
        return dense.index_put((self.rows().long(), self.col.long()), values, accumulate=True)


def _checked_edges(edge_index: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    if edge_index.dim() != 2 or edge_index.shape[0] != 2 or edge_index.is_floating_point():
        raise InputError(
            f"edge_index must be (2, E) integers, found {edge_index.dtype}, shape {tuple(edge_index.shape)}."
        )
    if edge_index.shape[1] > _INT32_MAX or max(shape) > _INT32_MAX:
        raise InputError(
            f"a matrix holds at most {_INT32_MAX} edges, rows and columns (32-bit indices), found "
            f"{edge_index.shape[1]} edges and shape {shape}."
        )
    edge_index = edge_index.long()
    for name, ends, size in zip(("row", "column"), edge_index, shape, strict=True):
        if len(ends) and not (int(ends.min()) >= 0 and int(ends.max()) < size):
            at = int(torch.nonzero((ends < 0) | (ends >= size))[0])
            raise InputError(f"edge {at} has {name} {int(ends[at])}, expected 0 to {size - 1}.")
    return edge_index[0], edge_index[1]


def _rowptr(rows: Tensor, size: int) -> Tensor:
    rowptr = torch.zeros(size + 1, dtype=torch.int32, device=rows.device)
    rowptr[1:] = torch.cumsum(torch.bincount(rows, minlength=size), 0)
    return rowptr


@dataclass
class _Pattern:
    rowptr: Tensor
    col: Tensor
    edge: Tensor | None
    edge_id: Tensor | None
    order: Tensor | None  # the entry of the opposite pattern that each entry comes from; or else
    inverse: Tensor | None  # the entry of this pattern that each entry of the opposite one comes from


def _inverse(order: Tensor | None) -> Tensor:
    assert order is not None  # a pattern knows one of the two
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    return inverse


def _positions(adj: Adjacency) -> scipy.sparse.csr_matrix:
    """On the CPU: scipy's view of the pattern whose values are the positions of the entries."""
    if "positions" not in adj.pattern_cache:
        indices, rowptr = adj.col.numpy(), adj.rowptr.numpy()
        data = np.arange(len(adj), dtype=np.int32)
        adj.pattern_cache["positions"] = scipy.sparse.csr_matrix((data, indices, rowptr), shape=adj.shape, copy=False)
    return adj.pattern_cache["positions"]


def _scipy(adj: Adjacency) -> scipy.sparse.csr_matrix | None:
    """On the CPU: scipy's view of a matrix that has values, of a type that scipy knows."""
    values = adj.values
    if values is None or adj.device.type != "cpu" or len(adj) == 0 or values.requires_grad:
        return None
    if values.dtype not in (torch.float32, torch.float64):
        return None
    if "scipy" not in adj.cache:
        parts = values.numpy(), adj.col.numpy(), adj.rowptr.numpy()
        adj.cache["scipy"] = scipy.sparse.csr_matrix(parts, shape=adj.shape, copy=False)
    return adj.cache["scipy"]


def _sorted_by_column(adj: Adjacency) -> tuple[Tensor, Tensor, Tensor]:
    """The transposed pattern: row pointers, columns, and the entry each of its entries comes from (int64)."""
    if adj.device.type == "cpu" and len(adj):
        # Counting sort in one pass, an order of magnitude faster than sorting keys.
        turned = _positions(adj).tocsc()
        rowptr, rows, order = (torch.from_numpy(x) for x in (turned.indptr, turned.indices, turned.data))
        return rowptr, rows, order.long()
    order = torch.argsort(adj.col, stable=True)
    return _rowptr(adj.col, adj.shape[1]), adj.rows()[order], order


def _picked(adj: Adjacency, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row pointers, columns and stored entries of some rows."""
    if adj.device.type == "cpu" and len(adj) and len(rows):
        found = _positions(adj)[rows.numpy()]
        rowptr, col, entry = (torch.from_numpy(x) for x in (found.indptr, found.indices, found.data))
        return rowptr, col, entry
    rows = rows.long()
    start = adj.rowptr[rows].long()
    counts = adj.rowptr[rows + 1].long() - start
    ends = torch.cumsum(counts, 0)
    total = int(ends[-1]) if len(rows) else 0
    rowptr = torch.zeros(len(rows) + 1, dtype=torch.int32, device=adj.device)
    rowptr[1:] = ends
    shift = torch.repeat_interleave(start - (ends - counts), counts, output_size=total)
    entry = shift.add_(torch.arange(total, device=adj.device))
    return rowptr, adj.col[entry], entry


@dataclass
class _Entry:
    edge_index: Tensor
    edge_id: Tensor | None
    key: tuple[Any, ...]
    adjacency: Adjacency


class _Matrices:
    """The matrices made of one graph. A copy or a pickle of the graph starts without any."""

    def __init__(self, owner: HeteroData) -> None:
        self.owner = weakref.ref(owner)
        self.entries: dict[EdgeType, _Entry] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return (_no_matrices, ())


def _no_matrices() -> None:
    return None


def adjacency(graph: HeteroData, edge_type: EdgeType) -> Adjacency:
    """The (source x target) matrix of one edge type with ``edge_id`` and without values, kept on the graph.

    It is made anew when ``edge_index`` or ``edge_id`` was replaced or changed in place, or a node count
    changed.

    Raises:
        InputError: the graph lacks the edge type or a node count, or an index lies outside.
    """
    if edge_type not in graph.edge_types:
        raise unknown("edge type", "__".join(edge_type), ["__".join(known) for known in graph.edge_types])
    store = graph[edge_type]
    sizes = tuple(graph[node_type].num_nodes for node_type in (edge_type[0], edge_type[2]))
    if None in sizes:
        raise InputError(f"the graph has no num_nodes for {edge_type[0]!r} or {edge_type[2]!r}.")
    edge_index, edge_id = store.edge_index, store.get("edge_id")
    if edge_index.is_inference() or (edge_id is not None and edge_id.is_inference()):
        return Adjacency.from_edges(edge_index, sizes, edge_id=edge_id)
    key = (sizes, edge_index._version, None if edge_id is None else edge_id._version)
    kept = graph.__dict__.get("_graphrec_matrices")
    if kept is None or kept.owner() is not graph:
        kept = graph.__dict__["_graphrec_matrices"] = _Matrices(graph)
    entry = kept.entries.get(edge_type)
    if entry is None or entry.edge_index is not edge_index or entry.edge_id is not edge_id or entry.key != key:
        made = Adjacency.from_edges(edge_index, sizes, edge_id=edge_id)
        kept.entries[edge_type] = entry = _Entry(edge_index, edge_id, key, made)
    return entry.adjacency
