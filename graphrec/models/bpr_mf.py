"""BPR-MF: matrix factorisation trained to rank."""

from __future__ import annotations

from graphrec.datasets.dataset import RecDataset
from graphrec.models.base import EdgeWeight, Encoded, GraphInputs
from graphrec.models.pairwise import Initialisation, Loss, PairwiseRecommender, Positives


class BPRMF(PairwiseRecommender):
    r"""BPR-MF (Rendle et al., UAI 2009, https://arxiv.org/abs/1205.2618).

    .. math:: y_{ui} = \langle p_u, q_i \rangle

    It is LightGCN without layers and the baseline of every table. The regulariser is divided by B, as in the LightGCN
    and NGCF repositories; the KGAT repository sums over the batch instead, so that its 1e-5 at B = 1024 is about 1e-2
    here.

    Args:
        inputs: the dataset or the inputs taken from it.
        dim: width of the tables.
        loss: ``bpr``, ``bce`` or ``softmax``; see :class:`PairwiseRecommender`.
        num_negatives: negatives of each positive, or of a batch where they are shared.
        shared_negatives: whether a batch shares its negatives.
        positives: ``user`` or ``edge``; see :class:`PairwiseRecommender`.
        init: ``normal``, ``xavier`` or ``spectral``.
        init_scale: standard deviation of the initial entries.
        lr: learning rate of Adam.
        reg: λ.
        batch_size: B.
        seed: seeds the initial tables.
    """

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 64,
        loss: Loss = "bpr",
        num_negatives: int = 1,
        shared_negatives: bool = False,
        positives: Positives = "user",
        init: Initialisation = "normal",
        init_scale: float = 0.1,
        lr: float = 1e-3,
        reg: float = 1e-4,
        batch_size: int = 2048,
        seed: int = 0,
    ) -> None:
        super().__init__(
            inputs,
            dim=dim,
            loss=loss,
            num_negatives=num_negatives,
            shared_negatives=shared_negatives,
            positives=positives,
            init=init,
            init_scale=init_scale,
            lr=lr,
            reg=reg,
            batch_size=batch_size,
            seed=seed,
        )

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        """The tables themselves; no edge enters the score, so ``edge_weight`` changes nothing."""
        return Encoded(self.user_embedding, self.item_embedding)
