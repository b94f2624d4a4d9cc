"""What a scan looks for: the edges, nodes, rows and words of a request, and what has to be left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.tables import PARTS, EdgeTable, EdgeType
from graphrec.datasets.vocabulary import Vocabulary
from graphrec.models.base import GraphRecommender
from graphrec.runs import Run
from graphrec.runs.tensors import read_tensors
from graphrec.unlearning.identifiers import Identifiers
from graphrec.unlearning.resolve import Resolved, compacted, remaining

Codes = NDArray[np.int64]

# Vectors shorter than this repeat by chance.
_TELLING_WIDTH = 3


def training_rows(table: EdgeTable) -> EdgeTable:
    """The edges of a table that a model is trained on: positives of the training part."""
    mask = table.positive.copy()
    if table.part is not None:
        mask &= table.part == PARTS["train"]
    return table.select(mask)


def pair_keys(table: EdgeTable, width: int) -> Codes:
    """(source, target) of each edge as one number."""
    return table.source.astype(np.int64) * width + table.target


@dataclass(frozen=True, eq=False)
class Sought:
    """A request met with the dataset it names something of.

    Attributes:
        data: with what was to be forgotten.
        resolved: the request.
    """

    data: RecDataset
    resolved: Resolved

    @cached_property
    def kept(self) -> RecDataset:
        """What has to be left, on the id tables of ``data``."""
        return remaining(self.data, self.resolved)

    @cached_property
    def fingerprints(self) -> frozenset[str]:
        """Fingerprints that the new run may name: of what remains, with and without the rows of nodes that are gone."""
        return frozenset({self.kept.fingerprint, compacted(self.data, self.resolved).fingerprint})

    @cached_property
    def identifiers(self) -> Identifiers:
        """Words that must not be said."""
        return Identifiers.of(self.data, self.resolved)

    @cached_property
    def old_degrees(self) -> dict[str, list[Codes]]:
        """Training degrees before and after, ``[before, after, …]`` a pair for each edge type, by node type."""
        out: dict[str, list[Codes]] = {}
        for edge_type, table in self.data.tables.items():
            pairs = training_rows(table), training_rows(self.kept.tables[edge_type])
            for column, node_type in (("source", edge_type[0]), ("target", edge_type[2])):
                size = self.data.num_nodes[node_type]
                out.setdefault(node_type, []).extend(np.bincount(t.columns[column], minlength=size) for t in pairs)
        return out

    @cached_property
    def emptied(self) -> dict[str, Codes]:
        """Nodes whose learned rows have to go: those named wholly, and users that keep none of their training edges."""
        out = {node_type: codes for node_type, codes in self.resolved.nodes.items() if len(codes)}
        user_type = self.data.target[0]
        had, has = self._ranked_degrees
        lost = np.flatnonzero((had > 0) & (has == 0))
        if len(lost):
            out[user_type] = np.union1d(out.get(user_type, lost[:0]), lost)
        return out

    @property
    def _ranked_degrees(self) -> tuple[Codes, Codes]:
        size = self.data.num_users
        had, has = (
            np.bincount(training_rows(d.tables[d.target]).source, minlength=size) for d in (self.data, self.kept)
        )
        return had, has

    def gone_pairs(self, edge_type: EdgeType) -> Codes:
        """Keys of the pairs that no edge of the type connects any more."""
        width = self.data.num_nodes[edge_type[2]]
        before, after = (pair_keys(d.tables[edge_type], width) for d in (self.data, self.kept))
        return np.setdiff1d(before, after)

    def codes_of(self, vocabulary: Vocabulary, node_type: str) -> Codes:
        """The code in ``data`` of each entry of another id table, -1 for ids that ``data`` does not have."""
        own = self.data.vocabularies.get(node_type)
        if own is None or len(vocabulary) == 0:
            return np.full(len(vocabulary), -1, np.int64)
        return own.encode(vocabulary.arrow.to_pylist(), unknown="mark")

    def is_old_degree(self, tensor: Tensor, codes: Mapping[str, Codes]) -> bool:
        """Whether a tensor holds, for every node whose degree has changed, the degree before.

        Args:
            tensor: any.
            codes: of each row of the run's tables, by node type.
        """
        if tensor.dim() != 1 or not len(tensor) or tensor.is_complex():
            return False
        values = tensor.double().numpy()
        for node_type, pairs in self.old_degrees.items():
            rows = codes.get(node_type, np.empty(0, np.int64))
            if len(values) == self.data.num_nodes[node_type]:
                rows = np.arange(len(values))
            elif len(values) != len(rows):
                continue
            known = rows >= 0
            for before, after in zip(pairs[::2], pairs[1::2], strict=True):
                old, new = before[rows[known]], after[rows[known]]
                changed = old != new
                if changed.any() and (values[known][changed] == old[changed]).all():
                    return True
        return False


@dataclass(frozen=True, eq=False)
class OldRows:
    """Learned rows of the run before that belonged to nodes which are gone, found again by their bits.

    Attributes:
        rows: by width, the distinct rows as bytes, in 32 and in 16 bits.
    """

    rows: Mapping[tuple[int, str], NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, before: Run, sought: Sought) -> OldRows:
        """Rows of every table of the model, of its state for later requests, and of the final vectors."""
        if not sought.emptied:
            return cls()
        codes = {name: sought.codes_of(ids, name) for name, ids in before.vocabularies.items()}
        model = before.model()
        tables = [(tensor, model.row_parameters.get(name)) for name, tensor in before.weights().items()]
        for name in before.files:
            if name.startswith("state/") and name.endswith(".safetensors"):
                tables += [(tensor, None) for tensor in read_tensors(before.path / name)[0].values()]
        if model.encodes():
            encoded = model.encoded()
            user_type, _, item_type = model.graph_inputs.target
            tables += [(encoded.users, user_type), (encoded.items, item_type)]
        found: dict[tuple[int, str], list[NDArray[Any]]] = {}
        for tensor, node_type in tables:
            for key, rows in _telling_rows(tensor, node_type, codes, sought.emptied):
                found.setdefault(key, []).append(rows)
        # The values of an untrained model tell nothing of anybody.
        inputs = model.inputs_on(sought.kept, rows=codes)
        untrained = type(model)(inputs, **model.hparams) if found and model.phases() else None
        known: dict[tuple[int, str], NDArray[Any]] = {}
        for key, parts in found.items():
            rows = np.unique(np.concatenate(parts))
            if untrained is not None:
                for tensor in untrained.state_dict().values():
                    if tensor.dim() == 2 and tensor.shape[1] == key[0] and tensor.is_floating_point():
                        rows = np.setdiff1d(rows, _bits(tensor, key[1]))
            known[key] = rows
        return cls(known)

    def found_in(self, tensor: Tensor) -> int:
        """How many rows of a tensor are such rows."""
        if tensor.dim() < 2 or not tensor.is_floating_point() or not tensor.numel():
            return 0
        flat = tensor.detach().cpu().reshape(-1, tensor.shape[-1])
        kind = "f4" if flat.dtype in (torch.float32, torch.float64) else "f2"
        rows = self.rows.get((flat.shape[1], kind))
        return 0 if rows is None or not len(rows) else int(np.isin(_bits(flat, kind), rows).sum())

    def found_normalised(self, tensor: Tensor) -> int:
        """As :meth:`found_in`, for vectors that may have been scaled to unit length (an index for cosines)."""
        wide = tensor.detach().double()
        found = 0
        for (width, kind), rows in self.rows.items():
            if kind == "f4" and len(rows) and wide.dim() == 2 and wide.shape[1] == width:
                old = torch.from_numpy(rows.view(np.float32).reshape(-1, width).astype(np.float64))
                cosine = torch.nn.functional.normalize(wide, dim=1) @ torch.nn.functional.normalize(old, dim=1).T
                found += int((cosine > 1 - 1e-9).any(1).sum())
        return found


def _telling_rows(
    tensor: Tensor, node_type: str | None, codes: Mapping[str, Codes], emptied: Mapping[str, Codes]
) -> Iterator[tuple[tuple[int, str], NDArray[Any]]]:
    """Rows of a table that belong to emptied nodes and to no other, in 32 and 16 bits."""
    tensor = tensor.detach().cpu()
    if tensor.dim() != 2 or tensor.shape[1] < _TELLING_WIDTH or not tensor.is_floating_point():
        return
    for owner, gone in emptied.items():
        if node_type not in (None, owner) or len(codes.get(owner, ())) != len(tensor):
            continue
        mask = np.isin(codes[owner], gone)
        distinct = torch.from_numpy(mask) & (tensor != tensor[:, :1]).any(1)
        for kind in ("f4", "f2"):
            rows = np.setdiff1d(_bits(tensor[distinct], kind), _bits(tensor[~torch.from_numpy(mask)], kind))
            if len(rows):
                yield (tensor.shape[1], kind), rows


def _bits(tensor: Tensor, kind: str) -> NDArray[Any]:
    """Rows as opaque values that are equal when their bits are."""
    wide = np.ascontiguousarray(tensor.detach().float().cpu().numpy().astype(f"<{kind}"))
    return wide.view(np.dtype((np.void, wide.dtype.itemsize * wide.shape[1]))).reshape(-1)


@dataclass(eq=False)
class Subject:
    """A run that is scanned, with what its readers share.

    Attributes:
        run: the run.
        sought: what to look for; None: only what the run can tell by itself is checked.
        old: rows of the run before; None where that was not given.
    """

    run: Run
    sought: Sought | None = None
    old: OldRows | None = None
    _model: GraphRecommender | None = field(default=None, init=False, repr=False)

    @property
    def model(self) -> GraphRecommender:
        """The run's model."""
        if self._model is None:
            self._model = self.run.model()
        return self._model

    @cached_property
    def codes(self) -> dict[str, Codes]:
        """The code in the dataset before of each row of the run's id tables, by node type; empty without a request."""
        if self.sought is None:
            return {}
        return {name: self.sought.codes_of(ids, name) for name, ids in self.run.vocabularies.items()}

    @property
    def partly(self) -> bool:
        """Whether the request is not known."""
        return self.sought is None
