"""GF-CF: a linear and an ideal low-pass filter on the item graph."""

from __future__ import annotations

from collections.abc import Sequence

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.models.base import GraphInputs
from graphrec.models.graph_filter import GraphFilter


class GFCF(GraphFilter):
    r"""GF-CF (Shen et al., CIKM 2021, https://arxiv.org/abs/2108.07567).

    .. math:: y_u = r_u P + \alpha \, r_u D_i^{-1/2} V V^\top D_i^{1/2}, \qquad P = N^\top N, \quad
              N = D_u^{-1/2} R D_i^{-1/2}

    with V the ``factor_dim`` leading right singular vectors of N. Defaults are the authors' for Gowalla and Yelp2018
    (Gowalla Recall@20 .1849); their code leaves the second term out on Amazon-book, which is ``alpha=0`` here. V comes
    from block power iteration, closer to the exact vectors than the sparse solver of that code (.1862).

    Args:
        inputs: the dataset or the inputs taken from it.
        factor_dim: width of V; larger values let through more detail.
        alpha: weight of the ideal low-pass filter.
        rounds: power iterations for V; more are closer to the exact vectors.
        seed: seeds their start.
    """

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        factor_dim: int = 256,
        alpha: float = 0.3,
        rounds: int = 8,
        seed: int = 0,
    ) -> None:
        if not alpha >= 0:
            raise InputError(f"alpha must be 0 or more, found {alpha}.")
        super().__init__(inputs, factor_dim=factor_dim, alpha=alpha, rounds=rounds, seed=seed)
        self.alpha = alpha

    def polynomial(self) -> Sequence[float]:
        """1: the linear filter is r P."""
        return (1.0,)

    def low_pass_polynomial(self) -> Sequence[float]:
        """The constant α."""
        return (self.alpha,)
