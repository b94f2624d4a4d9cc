"""ItemKNN: items like those in the history."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.layers.neighbourhood import Rescale, largest_of_product, transposed
from graphrec.models.base import GraphInputs
from graphrec.models.closed_form import ItemWeights

Similarity = Literal["dot", "cosine", "jaccard", "pearson"]
SIMILARITIES = ("dot", "cosine", "jaccard", "pearson")


class ItemKNN(ItemWeights):
    r"""Item-based nearest neighbours (Sarwar et al., WWW 2001; Deshpande and Karypis, TOIS 2004).

    .. math:: y_{uj} = \sum_{i \in r_u} W_{ij}, \qquad W_{ij} = s_{ij} \, [i \in \text{the } k \text{ nearest of } j]

    With c_ij the users that have both, d_i those that have i, n users in all and λ the shrinkage, s_ij is

    - ``dot``: c_ij;
    - ``cosine``: c_ij / (sqrt(d_i d_j) + λ);
    - ``jaccard``: c_ij / (d_i + d_j - c_ij + λ);
    - ``pearson``: (n c_ij - d_i d_j) / (sqrt(d_i (n - d_i) d_j (n - d_j)) + λ), of pairs that some user has.

    The diagonal is 0 and only positive similarities count. Equal ones, which counts often are, are taken by lower item
    number, those of ``dot`` first by fewer users. Neighbours are chosen for each *target* j, as in the study whose best
    setting (dot, k 508: Gowalla Recall@20 .1409, here .1406) is the default; choosing them for each source is another
    model (.1370). Cosine with k 100: .1270.

    Args:
        inputs: the dataset or the inputs taken from it.
        k: neighbours of each item.
        similarity: ``dot``, ``cosine``, ``jaccard`` or ``pearson``.
        shrink: λ; larger values favour pairs that many users have.
        neighbours_of: whether the k best are kept for each ``target`` (columns of W) or each ``source`` (rows).
    """

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        k: int = 508,
        similarity: Similarity = "dot",
        shrink: float = 0.0,
        neighbours_of: Literal["target", "source"] = "target",
    ) -> None:
        check_neighbours(k, similarity, shrink, neighbours_of)
        super().__init__(inputs, k=k, similarity=similarity, shrink=shrink, neighbours_of=neighbours_of)
        self.k = k
        self.similarity: Similarity = similarity
        self.shrink = shrink
        self.neighbours_of = neighbours_of

    def solve(self) -> None:
        """Count pairs in blocks of items and keep the nearest of each."""
        users = self.interactions()
        degrees = users.degrees(1).float()
        rescale = similarity_of_counts(self.similarity, self.shrink, degrees, degrees, self.num_users)
        if rescale is None:
            share = 0.5 * (1.0 + degrees).rsqrt()

            def rescale(row: Tensor, col: Tensor, count: Tensor) -> Tensor:
                return count + share[col]

        # Similarities are symmetric: the rows kept here are the columns of W, or its rows.
        kept = largest_of_product(users.transposed, users, self.k, rescale=rescale, drop_diagonal=True)
        if self.similarity == "dot":
            assert kept.values is not None
            kept = kept.with_stored_values(kept.values.floor())
        self.set_weights(transposed(kept) if self.neighbours_of == "target" else kept)


def check_neighbours(k: int, similarity: str, shrink: float, neighbours_of: str) -> None:
    """Raise an :class:`InputError` for settings of a neighbourhood that make no sense."""
    if k < 1:
        raise InputError(f"k must be 1 or more, found {k}.")
    if similarity not in SIMILARITIES:
        raise InputError(f"similarity must be one of {', '.join(SIMILARITIES)}, found {similarity!r}.")
    if not shrink >= 0:
        raise InputError(f"shrink must be 0 or more, found {shrink}.")
    if neighbours_of not in ("target", "source"):
        raise InputError(f"neighbours_of must be target or source, found {neighbours_of!r}.")


def similarity_of_counts(
    similarity: Similarity, shrink: float, row_degrees: Tensor, col_degrees: Tensor, total: int
) -> Rescale | None:
    """What turns the number of common entries of two rows into their similarity; see :class:`ItemKNN`."""
    if similarity == "dot":
        return None

    def rescale(row: Tensor, col: Tensor, count: Tensor) -> Tensor:
        left, right = row_degrees[row], col_degrees[col]
        if similarity == "cosine":
            return count / ((left * right).sqrt() + shrink)
        if similarity == "jaccard":
            return count / (left + right - count + shrink)
        spread = (left * (total - left)).sqrt() * (right * (total - right)).sqrt() + shrink
        return torch.where(spread > 0, (total * count - left * right) / spread, 0.0)

    return rescale
