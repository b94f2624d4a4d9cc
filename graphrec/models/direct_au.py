"""DirectAU: vectors of a pair are aligned, vectors of different nodes spread over the sphere; no negatives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import check_at_least
from graphrec.graphs.sampling import positive_pairs
from graphrec.layers.uniformity import alignment, uniformity
from graphrec.models.base import Batch, Derived, EdgeWeight, Encoded, GraphInputs, PairBatch, Phase, Preset
from graphrec.models.pairwise import Initialisation, Pair, Positives
from graphrec.models.phase_parts import adam
from graphrec.models.propagated import PropagatedRecommender


class DirectAU(PropagatedRecommender):
    r"""Alignment and uniformity, optimised directly (Wang et al., KDD 2022, https://arxiv.org/abs/2206.12811).

    For the rows :math:`x_u, x_i` of a batch of B pairs, :math:`\hat x = x / \|x\|`,

    .. math:: L = \frac1B \sum_{(u, i)} \|\hat x_u - \hat x_i\|^2 + \frac\gamma2 \big( f(X_U) + f(X_I) \big), \qquad
              f(X) = \log \frac{2}{B(B-1)} \sum_{p < q} e^{-2 \|\hat x_p - \hat x_q\|^2}

    where a user or an item that comes twice is two rows. The *score* is the product of the vectors as they are,
    :math:`y_{ui} = \langle x_u, x_i \rangle`, of any length. Vectors are rows of the tables, or with layers
    LightGCN's mean :math:`\frac{1}{K+1} \sum_k \hat A^k E^0` of them. As in the authors' code the penalty is Adam's
    weight decay, on every parameter in every step.

    A larger batch changes the estimate of f: γ goes with B. Weights of examples count pairs of rows by their product in
    f, and f by their mean; a batch of one example has no f. The authors draw initial entries from Xavier's normal
    distribution; the default here is his uniform one, of the same variance.

    Args:
        inputs: the dataset or the inputs taken from it.
        dim: width of the tables.
        num_layers: K; at 0 the vectors are the rows of the tables (matrix factorisation, the authors' default).
        uniformity_weight: γ.
        positives: ``user`` or ``edge``; the authors' code visits each edge once an epoch.
        init: ``normal``, ``xavier`` or ``spectral``.
        init_scale: standard deviation of the initial entries, for ``normal`` and ``spectral``.
        lr: learning rate of Adam.
        weight_decay: of Adam.
        batch_size: B.
        seed: seeds the initial tables.
    """

    presets: ClassVar[Mapping[str, Preset]] = {
        "beauty": Preset(
            model={"uniformity_weight": 0.5, "batch_size": 256},
            fit={"epochs": 300, "patience": 10, "metric": "ndcg@20"},
            note="As published on the authors' Beauty, RecBole's split 8:1:1.",
        ),
        "gowalla": Preset(
            model={"uniformity_weight": 5.0, "batch_size": 1024},
            fit={"epochs": 300, "patience": 10, "metric": "ndcg@20"},
            note="As published on the authors' Gowalla, RecBole's split 8:1:1; not the gowalla of LightGCN.",
        ),
        "yelp": Preset(
            model={"uniformity_weight": 1.0, "batch_size": 1024},
            fit={"epochs": 300, "patience": 10, "metric": "ndcg@20"},
            note="As published on the authors' Yelp, RecBole's split 8:1:1; not the yelp2018 of LightGCN.",
        ),
        "yelp2018": Preset(
            model={"num_layers": 3, "uniformity_weight": 2.0, "batch_size": 2048, "weight_decay": 0.0},
            fit={"epochs": 50, "select_on": "test"},
            note=(
                "SELFRec's table on the yelp2018 of LightGCN: Recall@20 .0695, NDCG@20 .0583. It has a penalty of "
                "1e-4 times the norms of a batch's rows over B², which is left out."
            ),
        ),
    }

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 64,
        num_layers: int = 0,
        uniformity_weight: float = 1.0,
        positives: Positives = "edge",
        init: Initialisation = "xavier",
        init_scale: float = 0.1,
        lr: float = 1e-3,
        weight_decay: float = 1e-6,
        batch_size: int = 1024,
        seed: int = 0,
    ) -> None:
        own = {"num_layers": num_layers, "uniformity_weight": uniformity_weight, "weight_decay": weight_decay}
        check_at_least(0, **own)
        super().__init__(
            inputs,
            dim=dim,
            loss="bpr",
            num_negatives=1,
            shared_negatives=False,
            positives=positives,
            init=init,
            init_scale=init_scale,
            lr=lr,
            reg=0.0,
            batch_size=batch_size,
            seed=seed,
            **own,
        )
        for name in ("loss", "num_negatives", "shared_negatives", "reg"):  # there is nothing to choose
            del self.hparams[name]
        self.num_layers, self.uniformity_weight, self.weight_decay = num_layers, uniformity_weight, weight_decay
        self.layer_weights = (1 / (num_layers + 1),) * (num_layers + 1)
        if num_layers:
            self.matrix = self.propagation_matrix()

    @property
    def objective(self) -> str:
        """What is made small."""
        return "alignment and uniformity"

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        """Vectors as they are scored, (U, D) and (I, D); without layers no edge enters them."""
        if self.num_layers == 0:
            return Encoded(self.user_embedding, self.item_embedding)
        return super().encode(edge_weight=edge_weight)

    def training_rows(
        self, users: Tensor, items: Tensor, *, batch: Batch | None = None, edge_weight: EdgeWeight = None
    ) -> tuple[Pair, Pair]:
        """Rows of the vectors, and of the tables."""
        if self.num_layers:
            return super().training_rows(users, items, batch=batch, edge_weight=edge_weight)
        rows = self.user_embedding[users], self.item_embedding[items]
        return rows, rows

    def pair_loss(self, batch: PairBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The terms ``alignment`` and ``uniformity`` of the loss of one batch; see the class."""
        (users, items), _ = self.training_rows(batch.users, batch.items, batch=batch, edge_weight=edge_weight)
        terms = {"alignment": self.batch_weight(batch, alignment(users, items))}
        if self.uniformity_weight:
            spread = (uniformity(users, batch.weight) + uniformity(items, batch.weight)) / 2
            terms["uniformity"] = self.uniformity_weight * batch.weight.mean() * spread
        return terms

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[PairBatch]:
        """The batches of one epoch: as many pairs as training edges, without negatives, the last batch short."""
        users, items, edge_id = positive_pairs(
            self.graph_inputs.adjacency(), positives=self.positives, seed=generator.initial_seed()
        )
        for start in range(0, len(users), self.batch_size):
            part = slice(start, start + self.batch_size)
            none = users.new_empty(len(users[part]), 0)
            yield PairBatch.of(users[part], items[part], edge_id[part], none, generator)

    def phases(self) -> Sequence[Phase]:
        """One phase, ``pairs``, that trains every parameter with Adam."""
        optimiser = adam(self.lr, self.weight_decay)
        return (Phase("pairs", self.batches, self.pair_loss, tuple(self.parameters()), optimiser),)

    def derived(self) -> Mapping[str, Derived]:
        """The normalised matrix, from the edges of the ranked behaviour, where there are layers."""
        return super().derived() if self.num_layers else {}
