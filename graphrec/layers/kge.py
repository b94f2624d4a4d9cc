r"""Scorers of triples: how plausible (head, relation, tail) is, by tables that belong to whoever calls.

Every scorer is a projection of nodes into the space of a relation, a move of the head there by the relation, and a
comparison with the tail; larger is more plausible:

=========  ==============================  =======================  ===========================
scorer     projection :math:`e^r`          move                     comparison
=========  ==============================  =======================  ===========================
TransE     :math:`e`                       :math:`h + \rho_r`       minus a distance
TransH     :math:`e - (\hat w_r e)\hat w`  :math:`h + \rho_r`       minus a distance
TransR     :math:`e W_r`                   :math:`h + \rho_r`       minus a distance
DistMult   :math:`e`                       :math:`h \odot \rho_r`   dot product
RotatE     :math:`e \in \mathbb C`         :math:`h e^{i\theta_r}`  minus a distance
=========  ==============================  =======================  ===========================

Matrices are not gathered for each triple: a batch is projected by one product for each relation that occurs in it. All
functions can be differentiated twice. Letters: B triples, n corrupted tails of each, N nodes, R relations, D width of
nodes, K width in a relation's space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from graphrec.errors import InputError, unknown
from graphrec.layers.spmm import MEMORY_BUDGET

Distance = Literal["l1", "l2", "squared", "dot", "modulus"]
Normalised = Literal["none", "nodes", "all"]
Tables = Mapping[str, Tensor]


def project_by_relation(x: Tensor, relations: Tensor, matrices: Tensor) -> Tensor:
    """``x[b] @ matrices[relations[b]]`` by one product for each relation that occurs; quickest where they ascend.

    Args:
        x: (B, D) or (B, m, D), m rows that share a relation.
        relations: (B,) int64.
        matrices: (R, D, K).

    Returns:
        (B, K) or (B, m, K).
    """
    if x.shape[0] != relations.shape[0] or matrices.dim() != 3 or x.shape[-1] != matrices.shape[1]:
        raise InputError(
            f"x must be (B, D) with a relation for each of its rows and matrices (R, D, K), found {tuple(x.shape)}, "
            f"{tuple(relations.shape)} and {tuple(matrices.shape)}."
        )
    if len(relations) == 0:
        return x.new_zeros(*x.shape[:-1], matrices.shape[2])
    together = bool((relations[1:] >= relations[:-1]).all())
    ascending, order = (relations, relations) if together else torch.sort(relations, stable=True)
    present, counts = torch.unique_consecutive(ascending, return_counts=True)
    # split, unbind and cat are each other's gradients; slices would fill a whole gradient for each relation.
    parts = (x if together else x.index_select(0, order)).split(counts.tolist())
    chosen = matrices.index_select(0, present).unbind(0)
    product = torch.cat([part @ matrix for part, matrix in zip(parts, chosen, strict=True)])
    if together:
        return product
    return product.index_select(0, torch.empty_like(order).index_put_((order,), torch.arange(len(order)).to(order)))


class Projected(NamedTuple):
    """A batch of triples in the spaces of their relations.

    Attributes:
        heads: (B, K).
        vectors: (B, K), the relations' own; of another width for some scorers.
        tails: (B, K).
        corrupted: (B, n, K), corrupted tails; None where there are none.
    """

    heads: Tensor
    vectors: Tensor
    tails: Tensor
    corrupted: Tensor | None


@dataclass(frozen=True)
class TripleScorer:
    """A scorer without parameters of its own; see the module for the equations.

    Attributes:
        distance: ``l1``, ``l2``, ``squared`` (of l2); ``dot``: no distance, but the dot product of the moved head and
            the tail (CFKG; DistMult always); ``modulus``, the sum of the moduli of complex numbers, for RotatE alone.
        normalised: ``nodes``: projected heads and tails are divided by their length (TransE as published); ``all``: and
            relation vectors too (CKE, KCAN); ``none``.
    """

    distance: Distance = "l2"
    normalised: Normalised = "none"
    vector_name: ClassVar[str] = "vectors"

    def __post_init__(self) -> None:
        distances = ("l1", "l2", "squared", "dot", *(["modulus"] if isinstance(self, RotatE) else []))
        if self.distance not in distances:
            raise unknown(f"distance of {type(self).__name__}", self.distance, distances)
        if self.normalised not in ("none", "nodes", "all"):
            raise unknown("what is normalised", self.normalised, ("none", "nodes", "all"))

    def shapes(self, num_relations: int, dim: int, relation_dim: int | None = None) -> dict[str, tuple[int, ...]]:
        """Shapes of the relation tables by name; ``relation_dim`` is K where it may differ from D (TransR)."""
        if relation_dim not in (None, dim):
            raise InputError(f"{type(self).__name__} has relation vectors as wide as nodes, {dim}, not {relation_dim}.")
        return {"vectors": (num_relations, dim)}

    def project(self, x: Tensor, relations: Tensor, tables: Tables) -> Tensor:
        """Nodes in the space of relations.

        Args:
            x: (B, D) or (B, m, D) with ``relations`` (B,); or (N, D) with one relation, ().
            relations: int64.
            tables: the relation tables.

        Returns:
            (B, K), (B, m, K) or (N, K).
        """
        projected = self._project(x, relations, tables)
        return projected if self.normalised == "none" else normalize(projected, dim=-1)

    def _project(self, x: Tensor, relations: Tensor, tables: Tables) -> Tensor:
        return x

    def vectors(self, relations: Tensor, tables: Tables) -> Tensor:
        """Vectors of relations, (B, K), or (K,) of one."""
        rows = tables[self.vector_name][relations]
        return normalize(rows, dim=-1) if self.normalised == "all" else rows

    def move(self, heads: Tensor, vectors: Tensor) -> Tensor:
        """Projected heads moved to where their tails should be; shapes broadcast."""
        return heads + vectors

    def compare(self, moved: Tensor, tails: Tensor) -> Tensor:
        """Scores of moved heads with projected tails, (..., K) each; shapes broadcast."""
        if self.distance == "dot":
            return (moved * tails).sum(-1)
        gap = moved - tails
        if self.distance == "squared":
            return -gap.square().sum(-1)
        return -torch.linalg.vector_norm(gap, 1 if self.distance == "l1" else 2, dim=-1)

    def compare_all(self, moved: Tensor, tails: Tensor) -> Tensor:
        """Scores of every moved head (B, K) with every tail (M, K), (B, M)."""
        if self.distance == "dot":
            return moved @ tails.T
        if self.distance == "squared":
            products = torch.addmm(tails.square().sum(1), moved, tails.T, beta=-1, alpha=2)
            return (products - moved.square().sum(1, keepdim=True)).clamp_max(0)
        return -torch.cdist(moved, tails, 1.0 if self.distance == "l1" else 2.0)

    def projected(
        self, heads: Tensor, relations: Tensor, tails: Tensor, corrupted: Tensor | None, tables: Tables
    ) -> Projected:
        """A batch in the spaces of its relations, all ends by one projection.

        Args:
            heads: (B, D), rows of nodes.
            relations: (B,) int64.
            tails: (B, D).
            corrupted: (B, n, D), or None.
            tables: the relation tables.
        """
        ends = [heads.unsqueeze(1), tails.unsqueeze(1), *([] if corrupted is None else [corrupted])]
        projected = self.projected_ends(torch.cat(ends, 1), relations, tables)
        return projected if corrupted is not None else projected._replace(corrupted=None)

    def projected_ends(self, ends: Tensor, relations: Tensor, tables: Tables) -> Projected:
        """:meth:`projected` of ends that lie beside each other, (B, 2 + n, D): head, tail, and n corrupted tails."""
        rows = self.project(ends, relations, tables)
        # The gradient of split is one cat; each slice would fill a whole one.
        heads, tails, corrupted = rows.split((1, 1, rows.shape[1] - 2), 1)
        return Projected(heads.squeeze(1), self.vectors(relations, tables), tails.squeeze(1), corrupted)

    def scores(self, batch: Projected) -> tuple[Tensor, Tensor]:
        """Scores of the triples (B,) and of the corrupted ones (B, n)."""
        if batch.corrupted is None:
            raise InputError("the batch has no corrupted tails.")
        moved = self.move(batch.heads, batch.vectors)
        return self.compare(moved, batch.tails), self.compare(moved.unsqueeze(1), batch.corrupted)

    def __call__(self, heads: Tensor, relations: Tensor, tails: Tensor, tables: Tables) -> Tensor:
        """Scores (B,) of triples given as rows of nodes, (B, D), and relations (B,)."""
        batch = self.projected(heads, relations, tails, None, tables)
        return self.compare(self.move(batch.heads, batch.vectors), batch.tails)

    def score(
        self, nodes: Tensor, heads: Tensor | None, relations: Tensor, tails: Tensor | None, tables: Tables
    ) -> Tensor:
        """Scores of triples, or of incomplete ones with every node in the place of what is missing.

        Args:
            nodes: (N, D).
            heads: (B,) int64, rows of ``nodes``; None: every node.
            relations: (B,) int64.
            tails: (B,) int64; None: every node.
            tables: the relation tables.

        Returns:
            (B,), or (B, N) where one end is missing.

        Raises:
            InputError: both ends are missing.
        """
        if heads is not None and tails is not None:
            return self(nodes[heads], relations, nodes[tails], tables)
        if heads is not None:
            return self.score_all(nodes[heads], relations, nodes, tables, missing="tail")
        if tails is not None:
            return self.score_all(nodes[tails], relations, nodes, tables, missing="head")
        raise InputError("triples need heads, tails or both.")

    def score_all(
        self, rows: Tensor, relations: Tensor, nodes: Tensor, tables: Tables, *, missing: Literal["tail", "head"]
    ) -> Tensor:
        """Scores of incomplete triples with every node in the missing place.

        Nodes are projected once for each relation that occurs: give triples of one relation together.

        Args:
            rows: (B, D), the known ends.
            relations: (B,) int64.
            nodes: (N, D).
            tables: the relation tables.
            missing: the end that is asked for.

        Returns:
            (B, N).
        """
        scores = rows.new_empty(len(rows), len(nodes))
        for relation in torch.unique(relations):
            mine = torch.nonzero(relations == relation)[:, 0]
            known = self.project(rows[mine], relation, tables)
            every = self.project(nodes, relation, tables)
            vector = self.vectors(relation, tables)
            if missing == "tail":
                scores[mine] = self.compare_all(self.move(known, vector), every)
            else:
                scores[mine] = self.compare_all(self.move(every, vector), known).T
        return scores


def _beside(rows: Tensor, x: Tensor) -> Tensor:
    """One row for each of ``x``'s first dimension, or one for all, so that it broadcasts over those between."""
    return rows.unsqueeze(1) if rows.dim() == 2 and x.dim() == 3 else rows


@dataclass(frozen=True)
class TransE(TripleScorer):
    r"""TransE (Bordes et al., NIPS 2013), :math:`-\|e_h + \rho_r - e_t\|`; table ``vectors`` (R, D)."""


@dataclass(frozen=True)
class TransH(TripleScorer):
    r"""TransH (Wang et al., AAAI 2014), equation 1: nodes fall on the relation's hyperplane before they are compared.

    .. math:: e^\perp = e - (\hat w_r \cdot e)\, \hat w_r, \qquad \hat w_r = w_r / \|w_r\|

    Tables ``vectors`` and ``normals`` (R, D); a normal of zero leaves nodes as they are.
    """

    def shapes(self, num_relations: int, dim: int, relation_dim: int | None = None) -> dict[str, tuple[int, ...]]:
        """As in the base, with ``normals``."""
        return {**super().shapes(num_relations, dim, relation_dim), "normals": (num_relations, dim)}

    def _project(self, x: Tensor, relations: Tensor, tables: Tables) -> Tensor:
        unit = _beside(normalize(tables["normals"][relations], dim=-1), x)
        return x - (x * unit).sum(-1, keepdim=True) * unit


@dataclass(frozen=True)
class TransR(TripleScorer):
    r"""TransR (Lin et al., AAAI 2015), equation 8: :math:`-\|e_h W_r + \rho_r - e_t W_r\|^2`.

    Tables ``vectors`` (R, K) and ``matrices`` (R, D, K). The distance is squared, as in that paper.
    """

    distance: Distance = "squared"

    def shapes(self, num_relations: int, dim: int, relation_dim: int | None = None) -> dict[str, tuple[int, ...]]:
        """Vectors (R, K) and matrices (R, D, K)."""
        width = relation_dim or dim
        return {"vectors": (num_relations, width), "matrices": (num_relations, dim, width)}

    def _project(self, x: Tensor, relations: Tensor, tables: Tables) -> Tensor:
        matrices = tables["matrices"]
        return x @ matrices[relations] if relations.dim() == 0 else project_by_relation(x, relations, matrices)


@dataclass(frozen=True)
class DistMult(TripleScorer):
    r"""DistMult (Yang et al., ICLR 2015), :math:`\sum_d e_h \rho_r e_t`; table ``vectors`` (R, D)."""

    distance: Distance = "dot"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distance != "dot":
            raise InputError(f"DistMult compares by a dot product, not by distance={self.distance!r}.")

    def move(self, heads: Tensor, vectors: Tensor) -> Tensor:
        """Heads times the relation, entry by entry."""
        return heads * vectors


@dataclass(frozen=True)
class RotatE(TripleScorer):
    r"""RotatE (Sun et al., ICLR 2019): the relation turns each complex number of the head, :math:`h_d e^{i\theta_d}`.

    A row of D numbers holds D/2 real parts and then D/2 imaginary ones; table ``phases`` (R, D/2), θ. The distance is
    the sum of the moduli, as in the paper's code; torch_geometric's is ``l2``.
    """

    distance: Distance = "modulus"
    vector_name: ClassVar[str] = "phases"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalised == "all":
            raise InputError("RotatE's relations are angles, which have no length to normalise: use 'nodes' or 'none'.")

    def shapes(self, num_relations: int, dim: int, relation_dim: int | None = None) -> dict[str, tuple[int, ...]]:
        """Phases (R, D/2)."""
        if dim % 2:
            raise InputError(f"RotatE needs an even width, real and imaginary parts, found {dim}.")
        super().shapes(num_relations, dim, relation_dim)
        return {"phases": (num_relations, dim // 2)}

    def move(self, heads: Tensor, vectors: Tensor) -> Tensor:
        """Heads turned by the phases."""
        real, imaginary = heads.chunk(2, -1)
        cosine, sine = torch.cos(vectors), torch.sin(vectors)
        return torch.cat([cosine * real - sine * imaginary, cosine * imaginary + sine * real], -1)

    def compare(self, moved: Tensor, tails: Tensor) -> Tensor:
        """Minus the distance."""
        if self.distance != "modulus":
            return super().compare(moved, tails)
        gap = (moved - tails).unflatten(-1, (2, -1))
        return -torch.linalg.vector_norm(gap, dim=-2).sum(-1)

    def compare_all(self, moved: Tensor, tails: Tensor) -> Tensor:
        """Minus the distances of all to all, moduli in blocks of tails."""
        if self.distance != "modulus":
            return super().compare_all(moved, tails)
        step = max(1, MEMORY_BUDGET // max(1, 2 * moved.numel() * moved.element_size()))
        return torch.cat([self.compare(moved.unsqueeze(1), part) for part in tails.split(step)], 1)


SCORERS: Mapping[str, type[TripleScorer]] = {
    "transe": TransE,
    "transh": TransH,
    "transr": TransR,
    "distmult": DistMult,
    "rotate": RotatE,
}
"""Scorers by the names that hyper-parameters use."""
