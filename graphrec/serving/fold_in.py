"""Vectors for somebody new from the vectors of the items they are known by: closed forms, nothing is trained.

Letters: H items of the history, I items of the catalogue, D width.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from graphrec.errors import InputError, unknown
from graphrec.models.base import GraphRecommender

FoldIn = Literal["mean", "ridge"]


def mean_vector(vectors: Tensor, weights: Tensor) -> Tensor:
    r"""The weighted mean of the history's item vectors.

    .. math:: z = \frac{\sum_{h \in H} w_h v_h}{\sum_{h \in H} w_h}

    It is one step of propagation from the items to a node whose only neighbours they are. Of the two it is the cheaper;
    on MovieLens (LightGCN, the users' own training items as history) the ridge found more of their test items.

    Args:
        vectors: (H, D), the final vectors of the history's items.
        weights: (H,), not negative, at least one above zero.

    Returns:
        (D,).
    """
    return weights @ vectors / weights.sum()


def ridge_vector(vectors: Tensor, weights: Tensor, catalogue: Tensor, unseen: float, reg: float) -> Tensor:
    r"""The vector whose dot products come nearest to 1 on the history and to 0 elsewhere (Hu et al. 2008).

    .. math::
        z = \arg\min_z \sum_{h \in H} w_h (1 - z \cdot v_h)^2 + \alpha \sum_{i=1}^{I} (z \cdot v_i)^2
            + \lambda s \lVert z \rVert^2
          = \Big(\sum_h w_h v_h v_h^\top + \alpha V^\top V + \lambda s I\Big)^{-1} \sum_h w_h v_h,
        \qquad s = \frac{\operatorname{tr}(V^\top V)}{D}

    so that λ does not depend on the vectors' scale.

    Args:
        vectors: (H, D), the final vectors of the history's items.
        weights: (H,), not negative, at least one above zero.
        catalogue: (I, D), those of all items.
        unseen: α ≥ 0; larger values count the items that are not in the history more.
        reg: λ ≥ 0; larger values draw the answer towards the direction of the weighted mean.

    Returns:
        (D,).
    """
    gram = (catalogue.T @ catalogue).double()
    scale = gram.diagonal().mean()
    rows = vectors.double()
    matrix = (rows * weights.double()[:, None]).T @ rows + unseen * gram
    matrix.diagonal().add_(reg * scale + torch.finfo(torch.float64).tiny)
    return torch.linalg.solve(matrix, weights.double() @ rows).to(vectors.dtype)


def check_history(weights: Tensor) -> None:
    """Refuse an empty history and weights that are negative, all zero or not numbers."""
    if len(weights) == 0:
        raise InputError("history: at least one known item is needed, none was found")
    if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()) or not bool((weights > 0).any()):
        raise InputError("weights: numbers of at least 0, one of them above 0, are expected")


@torch.no_grad()
def history_scores(
    model: GraphRecommender, items: Tensor, weights: Tensor, fold_in: FoldIn | None, unseen: float, reg: float
) -> Tensor:
    """Scores (I,) on the CPU of somebody known by a history.

    Args:
        model: gives exact scores of a history, or the vectors of the items.
        items: (H,) int64 rows of the history's items.
        weights: (H,) how much each counts.
        fold_in: None: the exact scores where there are some, else ``ridge``.
        unseen: α of the ridge.
        reg: λ of the ridge.

    Raises:
        InputError: the model has no item vectors.
    """
    device = model.device
    if fold_in is None and model.folds_in():
        return model.score_history(items.to(device), weights.to(device)).float().cpu()
    if fold_in not in (None, *get_args(FoldIn)):
        raise unknown("value of fold_in", str(fold_in), get_args(FoldIn))
    if not model.encodes():
        exact = "" if not model.folds_in() else "; leave fold_in out for its exact scores"
        raise InputError(f"{type(model).__name__} has no item vectors to fold a history in{exact}.")
    catalogue = model.encoded().items
    rows, given = catalogue[items.to(device)], weights.to(catalogue)
    mean = fold_in == "mean"
    vector = mean_vector(rows, given) if mean else ridge_vector(rows, given, catalogue, unseen, reg)
    return (catalogue @ vector).float().cpu()
