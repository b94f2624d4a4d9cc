"""What models trained on (user, item, negatives) share: tables, sampling, the loss and its regulariser."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.graphs.sampling import positive_pairs, sample_negatives, shared_negatives
from graphrec.layers.losses import RANKING_LOSSES, squared_norms
from graphrec.layers.spectral import singular_vectors
from graphrec.models.base import (
    Batch,
    EdgeWeight,
    Encoded,
    GraphInputs,
    GraphRecommender,
    PairBatch,
    Phase,
)
from graphrec.models.phase_parts import adam

Pair = tuple[Tensor, Tensor]
Positives = Literal["user", "edge"]
Loss = Literal["bpr", "bce", "softmax"]
Initialisation = Literal["normal", "xavier", "spectral"]


class PairwiseRecommender(GraphRecommender):
    r"""A model with a vector for each user and item, trained to put positives above negatives.

    One phase; for a batch of B examples with n negatives each, with weights w and final representations e

    .. math:: L = \frac1B \sum_b w_b \Big( \ell_b + \frac{\lambda}{2}
              \big(\|r_u\|^2 + \|r_i\|^2 + \tfrac1n\sum_j \|r_j\|^2\big) \Big)

    where :math:`\ell_b` is, by ``loss``: ``bpr`` the mean over negatives of softplus(y_uj - y_ui); ``bce``
    softplus(-y_ui) + the mean of softplus(y_uj); ``softmax`` the cross entropy of the positive among itself and the
    negatives. The regularised rows r count with multiplicity and are, unless a model says otherwise, rows of the tables
    (layer 0); it is a term of the loss, not weight decay.

    Args:
        inputs: the dataset or the inputs taken from it.
        dim: width D of the tables.
        loss: see above.
        num_negatives: negatives of each positive; with ``shared_negatives`` the number that a whole batch shares.
        shared_negatives: one draw of negatives, uniform over all items, serves the batch; those that are a user's own
            training items are masked for that user.
        positives: ``user`` draws a user uniformly and then one of the user's items (what the published LightGCN code
            does); ``edge`` visits each training edge once an epoch, so that active users weigh more.
        init: ``normal`` N(0, init_scale²), ``xavier`` uniform over the table, ``spectral`` the leading singular
            vectors of the normalised interaction matrix, scaled so that the root mean square entry is init_scale.
        init_scale: see ``init``.
        lr: learning rate of Adam.
        reg: λ.
        batch_size: B.
        seed: seeds the initial tables.
        **hparams: hyper-parameters of the subclass.
    """

    row_parameters: ClassVar[Mapping[str, str]] = {"user_embedding": "user", "item_embedding": "item"}

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int,
        loss: Loss,
        num_negatives: int,
        shared_negatives: bool,
        positives: Positives,
        init: Initialisation,
        init_scale: float,
        lr: float,
        reg: float,
        batch_size: int,
        seed: int,
        **hparams: Any,
    ) -> None:
        for name, size in (("dim", dim), ("num_negatives", num_negatives), ("batch_size", batch_size)):
            if size < 1:
                raise InputError(f"{name} must be a positive whole number, found {size}.")
        for name, word, words in (
            ("loss", loss, ("bpr", "bce", "softmax")),
            ("positives", positives, ("user", "edge")),
            ("init", init, ("normal", "xavier", "spectral")),
        ):
            if word not in words:
                raise unknown(name, word, words)
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
            **hparams,
        )
        self.dim, self.loss_name, self.reg = dim, loss, reg
        self.num_negatives, self.shared_negatives, self.positives = num_negatives, shared_negatives, positives
        self.lr, self.batch_size, self.seed = lr, batch_size, seed
        self.user_embedding = nn.Parameter(torch.empty(self.num_users, dim))
        self.item_embedding = nn.Parameter(torch.empty(self.num_items, dim))
        self.initialise(init, init_scale)

    @torch.no_grad()
    def initialise(self, init: Initialisation, scale: float) -> None:
        """Fill the tables; see the class."""
        tables = {"user": self.user_embedding, "item": self.item_embedding}
        if init == "spectral" and self.fills:
            if self.dim > min(self.num_users, self.num_items):
                raise InputError(
                    f"init='spectral' has at most {min(self.num_users, self.num_items)} singular vectors on this "
                    f"dataset, dim is {self.dim}; use init='normal' or a smaller dim."
                )
            left, values, right = singular_vectors(self.graph_inputs.adjacency(), self.dim, seed=self.seed)
            for table, vectors in zip(tables.values(), (left, right), strict=True):
                rows = vectors * values.clamp_min(0).sqrt()
                table.copy_(rows * (scale / rows.square().mean().sqrt().clamp_min(1e-12)))
            return
        for name, table in tables.items():
            stream = randomness.generator(self.seed, f"initialisation/{name}")
            if init != "xavier":
                nn.init.normal_(table, std=scale, generator=stream)
            else:
                nn.init.xavier_uniform_(table, generator=stream)

    @property
    def objective(self) -> str:
        """``loss``."""
        return self.loss_name

    @abstractmethod
    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        """Final representations; every pairwise model scores by their dot product."""

    def training_rows(
        self, users: Tensor, items: Tensor, *, batch: Batch | None = None, edge_weight: EdgeWeight = None
    ) -> tuple[Pair, Pair]:
        """Rows as a training step needs them: those that score, and those whose norms are penalised.

        Args:
            users: (B,) int64.
            items: (P,) int64.
            batch: the batch the rows are for; its generator feeds dropout.
            edge_weight: as in :meth:`GraphRecommender.score`.

        Returns:
            final representations (B, D') and (P, D'); by default rows of the tables, (B, D) and (P, D).
        """
        encoded = self.encode(edge_weight=edge_weight)
        return (
            (encoded.users[users], encoded.items[items]),
            (self.user_embedding[users], self.item_embedding[items]),
        )

    def rank_loss(self, batch: PairBatch, user: Tensor, item: Tensor) -> Tensor:
        """The mean of ℓ under the batch's weights; see the class.

        Args:
            batch: the batch.
            user: (B, D) final representations of its users.
            item: (P, D) those of its positives, and then of its negatives, row by row.
        """
        count = len(batch)
        positive, negative = item.split([count, len(item) - count])  # its gradient is one concatenation
        positive_score = (user * positive).sum(-1)
        if batch.shared:
            negative_score = user @ negative.T
            known = self.graph_inputs.adjacency().contains(batch.users[:, None], batch.negatives[None, :])
        else:
            negative = negative.view(count, -1, negative.shape[-1])
            if negative.shape[1] == 1:  # a batched product of single rows takes four times as long
                negative_score = (user * negative.squeeze(1)).sum(-1, keepdim=True)
            else:
                negative_score = (negative @ user.unsqueeze(-1)).squeeze(-1)
            known = None
        objective = RANKING_LOSSES[self.loss_name]
        return self.batch_weight(batch, objective(positive_score, negative_score, known))

    def pair_loss(self, batch: PairBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The terms ``rank`` and ``reg`` of the loss of one batch; see the class."""
        count = len(batch)
        items = torch.cat([batch.items, batch.negatives.reshape(-1)])
        (user, item), regularised = self.training_rows(batch.users, items, batch=batch, edge_weight=edge_weight)
        terms = {"rank": self.rank_loss(batch, user, item)}
        if self.reg:
            user_norms, item_norms = (squared_norms(rows) for rows in regularised)
            negative_norms = item_norms[count:]
            negative_norms = negative_norms.mean() if batch.shared else negative_norms.view(count, -1).mean(-1)
            norms = user_norms + item_norms[:count] + negative_norms
            terms["reg"] = 0.5 * self.reg * self.batch_weight(batch, norms)
        return terms

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[PairBatch]:
        """The batches of one epoch: as many examples as training edges, the last batch short."""
        matrix = self.graph_inputs.adjacency()
        seed = generator.initial_seed()
        users, items, edge_id = positive_pairs(matrix, positives=self.positives, seed=seed)
        negatives = None
        if not self.shared_negatives:
            # Keyed by the pair where each edge comes once, so that an edge's negatives are its own.
            keys = items if self.positives == "edge" else None
            negatives = sample_negatives(matrix, users, self.num_negatives, seed=seed, keys=keys)
        for number, start in enumerate(range(0, len(users), self.batch_size)):
            part = slice(start, start + self.batch_size)
            if negatives is None:
                drawn = shared_negatives(matrix, self.num_negatives, seed=seed, batch=number)
            else:
                drawn = negatives[part]
            yield PairBatch.of(users[part], items[part], edge_id[part], drawn, generator, shared=self.shared_negatives)

    def phases(self) -> Sequence[Phase]:
        """One phase, ``pairs``, that trains every parameter with Adam."""

        return (Phase("pairs", self.batches, self.pair_loss, tuple(self.parameters()), adam(self.lr)),)
