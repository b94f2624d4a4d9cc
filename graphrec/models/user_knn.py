"""UserKNN: what people with a similar history have."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.neighbourhood import Rescale, largest_of_product, row_sums, sparse_times_sparse
from graphrec.layers.spmm import spmm
from graphrec.models.base import GraphInputs
from graphrec.models.closed_form import ClosedForm
from graphrec.models.item_knn import Similarity, check_neighbours, similarity_of_counts


class UserKNN(ClosedForm):
    r"""User-based nearest neighbours (Herlocker et al., SIGIR 1999), a function of the history row.

    .. math:: y_{uj} = \sum_{v \in N(r_u)} s(r_u, r_v) \, R_{vj}

    with the similarities of :class:`~graphrec.models.item_knn.ItemKNN` between rows. The usual N(r) holds the k users
    most like r (``neighbours_of='target'``: Gowalla Recall@20 .1656 with cosine and k 146). The code of the study
    behind the published .1685 has each user v lend to the k users most like v; so N(r) holds the v whose similarity
    with r reaches that of their k-th nearest user. That is the default (.1693).

    A training row equal to the history is no neighbour: it could only recommend what is in the history. So a known user
    is not their own neighbour, and somebody new with the same history gets the same scores. Of equal similarities at
    the k-th place ``source`` keeps all, ``target`` those of lower user number.

    Only degrees and thresholds are kept; neighbours are found when scores are asked for.

    Args:
        inputs: the dataset or the inputs taken from it.
        k: neighbours of each user.
        similarity: ``dot``, ``cosine``, ``jaccard`` or ``pearson``.
        shrink: added to the denominator of the similarity; larger values favour users with many items in common.
        neighbours_of: whose k nearest count: ``source``, those of the users who recommend, or ``target``.
    """

    solution = ("degrees", "threshold")
    degrees: Tensor
    threshold: Tensor

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        k: int = 146,
        similarity: Similarity = "cosine",
        shrink: float = 0.0,
        neighbours_of: Literal["source", "target"] = "source",
    ) -> None:
        check_neighbours(k, similarity, shrink, neighbours_of)
        super().__init__(inputs, k=k, similarity=similarity, shrink=shrink, neighbours_of=neighbours_of)
        self.k = k
        self.similarity: Similarity = similarity
        self.shrink = shrink
        self.neighbours_of = neighbours_of

    def solve(self) -> None:
        """Count the items of each user, and find how like their k-th nearest user is."""
        users = self.interactions()
        self.degrees = users.degrees(0).float()
        self.threshold = torch.zeros_like(self.degrees)
        if self.neighbours_of == "source":
            nearest = self._nearest(users, self.k)
            assert nearest.values is not None
            full = nearest.degrees(0) == self.k
            weakest = torch.full_like(self.degrees, torch.inf)
            weakest.scatter_reduce_(0, nearest.rows().long(), nearest.values, "amin")
            # 1/sqrt(7) and 2/sqrt(28) are one similarity: what rounding tells apart counts as equal.
            self.threshold = torch.where(full, weakest * (1 - 1e-6), 0.0)

    def score_rows(self, history: Adjacency) -> Tensor:
        """Neighbours' rows added up with their similarities."""
        return sparse_times_sparse(self._neighbours(history), self.interactions())

    def score_dense(self, history: Tensor) -> Tensor:
        """The same by dense products; the choice of neighbours is fixed, their similarities are differentiable."""
        known, rows = self.interactions(), history.T.float()
        common = spmm(known, rows.T).T
        with torch.no_grad():
            entries = rows.nonzero().T
            values = rows[entries[0], entries[1]]
            chosen = self._neighbours(Adjacency.from_edges(entries, (rows.shape[0], rows.shape[1]), values=values))
        row, col = chosen.rows().long(), chosen.col.long()
        similar = common[row, col]
        rescale = self._rescale(rows.square().sum(1))
        if rescale is not None:
            similar = rescale(row, col, similar)
        table = torch.zeros_like(common).index_put((row, col), similar)
        return spmm(known.transposed, table.T)

    def _neighbours(self, history: Adjacency) -> Adjacency:
        """Similarities with the neighbours of each row of the history, (B, U)."""
        return self._nearest(history, self.k if self.neighbours_of == "target" else self.num_users)

    def _nearest(self, history: Adjacency, k: int) -> Adjacency:
        """The k training rows most like each row of the history, of those that reach their threshold."""
        values = None if history.values is None else history.values.float()
        own = row_sums(history.with_stored_values(None if values is None else values.square())).float()
        similarity = self._rescale(own)

        def rescale(row: Tensor, col: Tensor, common: Tensor) -> Tensor:
            similar = common if similarity is None else similarity(row, col, common)
            # |r - r_v|² = 0 only for the row itself and its twins.
            equal = own[row] + self.degrees[col] - 2 * common <= 0
            return similar.masked_fill(equal | (similar < self.threshold[col]), 0.0)

        return largest_of_product(history, self.interactions().transposed, k, rescale=rescale)

    def _rescale(self, own: Tensor) -> Rescale | None:
        return similarity_of_counts(self.similarity, self.shrink, own, self.degrees, self.num_items)
