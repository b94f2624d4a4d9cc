"""Vectors for somebody new from the vectors of the items they are known by: closed forms, nothing is trained.

Letters: H items of the history, I items of the catalogue, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from graphrec.errors import InputError

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


def ridge_vector(vectors: Tensor, weights: Tensor, catalogue: Tensor, unseen: float, l2: float) -> Tensor:
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
        l2: λ ≥ 0; larger values draw the answer towards the direction of the weighted mean.

    Returns:
        (D,).
    """
    gram = (catalogue.T @ catalogue).double()
    scale = gram.diagonal().mean()
    rows = vectors.double()
    matrix = (rows * weights.double()[:, None]).T @ rows + unseen * gram
    matrix.diagonal().add_(l2 * scale + torch.finfo(torch.float64).tiny)
    return torch.linalg.solve(matrix, weights.double() @ rows).to(vectors.dtype)


def check_history(weights: Tensor) -> None:
    """Refuse an empty history and weights that are negative, all zero or not numbers."""
    if len(weights) == 0:
        raise InputError("history: at least one known item is needed, none was found")
    if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()) or not bool((weights > 0).any()):
        raise InputError("weights: numbers of at least 0, one of them above 0, are expected")
