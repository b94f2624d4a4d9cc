"""SimGCL: LightGCN with a contrast between two passes under small noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, check_at_least
from graphrec.layers.contrastive import info_nce
from graphrec.layers.layer_rows import sum_and_layer_rows
from graphrec.layers.losses import block_norm
from graphrec.layers.noise import Noise
from graphrec.models.base import EdgeWeight, GraphInputs, PairBatch, Preset
from graphrec.models.pairwise import Initialisation, Loss, Pair, Positives
from graphrec.models.propagated import PropagatedRecommender


class SimGCL(PropagatedRecommender):
    r"""Simple graph contrastive learning (Yu et al., SIGIR 2022, https://arxiv.org/abs/2112.08679).

    LightGCN without layer 0, and the same under noise ν of length ε after each layer, twice:

    .. math::
        E^* &= \tfrac1K \textstyle\sum_{k=1}^{K} \hat A^k E^0, \qquad y_{ui} = \langle e^*_u, e^*_i \rangle \\
        Z &= \tfrac1K \textstyle\sum_{k=1}^{K} E'^k, \qquad E'^k = \hat A E'^{k-1} + \nu^k, \qquad
            \nu_v = \varepsilon \, \mathrm{sign}(e_v) \odot \Delta_v / \|\Delta_v\|, \quad \Delta_v \sim U(0, 1)^D \\
        L &= \frac1B \sum_{(u, i, j)} -\log \sigma(y_{ui} - y_{uj})
            + \lambda_1 \Big( \frac{1}{|U_b|} \sum_{u \in U_b} c(u) + \frac{1}{|I_b|} \sum_{i \in I_b} c(i) \Big)
            + \frac{\lambda_2}{B} \big( \|E^*_u\|_F + \|E^*_i\|_F \big)

    with :math:`c(q) = \log \sum_p \exp((\cos(z^1_q, z^2_p) - \cos(z^1_q, z^2_q))/\tau)` among the *distinct* users, or
    positive items, of the batch; the penalty takes rows of E* of the batch's users and positive items, not squared.

    This is the authors' PyTorch code (SELFRec), behind its published table; their first code, in TensorFlow, sums the
    contrast over the batch and penalises squared norms, so that its λ's are others. The code adds 1e-5 to σ, which is
    not done here. Noise is drawn for each step and is a hash of the node: it rests on no edge. Outside training mode,
    and where a batch brings no generator, there is none. A node counts in the contrast while an example of positive
    weight names it, by the largest of their weights; the processes of a training that is spread over several contrast
    their shares of a batch each among itself.

    Args:
        inputs: the dataset or the inputs taken from it.
        dim: width of the tables.
        num_layers: K.
        contrast_weight: λ₁; at 0 the model is LightGCN without layer 0.
        noise: ε.
        temperature: τ.
        loss: ``bpr``, ``bce`` or ``softmax``; see :class:`~graphrec.models.pairwise.PairwiseRecommender`.
        num_negatives: negatives of each positive, or of a batch where they are shared.
        shared_negatives: whether a batch shares its negatives.
        positives: ``user`` or ``edge``; the authors' code visits each edge once an epoch.
        init: ``normal``, ``xavier`` or ``spectral``. The gradient of the contrast grows as rows shrink: from Xavier's
            short rows it outweighs the ranking for the first thousands of steps, from ``normal`` it does not.
        init_scale: standard deviation of the initial entries, for ``normal`` and ``spectral``.
        lr: learning rate of Adam.
        reg: λ₂.
        batch_size: B.
        seed: seeds the initial tables.
    """

    presets: ClassVar[Mapping[str, Preset]] = {
        "yelp2018": Preset(
            model={"num_layers": 3, "contrast_weight": 0.5, "noise": 0.1, "temperature": 0.2},
            fit={"epochs": 20, "select_on": "test"},
            note="As published on yelp2018 (SELFRec): Recall@20 .0721, NDCG@20 .0601; the best epoch by the test part.",
        ),
    }

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 64,
        num_layers: int = 3,
        contrast_weight: float = 0.5,
        noise: float = 0.1,
        temperature: float = 0.2,
        loss: Loss = "bpr",
        num_negatives: int = 1,
        shared_negatives: bool = False,
        positives: Positives = "edge",
        init: Initialisation = "xavier",
        init_scale: float = 0.1,
        lr: float = 1e-3,
        reg: float = 1e-4,
        batch_size: int = 2048,
        seed: int = 0,
    ) -> None:
        check_at_least(1, num_layers=num_layers)
        if not temperature > 0:
            raise InputError(f"temperature must be positive, found {temperature}.")
        check_at_least(0, contrast_weight=contrast_weight, noise=noise)
        super().__init__(
            inputs,
            dim=dim,
            num_layers=num_layers,
            contrast_weight=contrast_weight,
            noise=noise,
            temperature=temperature,
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
        self.num_layers, self.contrast_weight = num_layers, contrast_weight
        self.noise, self.temperature = noise, temperature
        self.layer_weights = (0.0, *[1 / num_layers] * num_layers)
        self.matrix = self.propagation_matrix()

    def drawn_noise(self, batch: PairBatch) -> Noise | None:
        """Noise for one pass of a training step; None where there is none."""
        if not self.training or batch.generator is None or self.noise == 0:
            return None
        return Noise.drawn(batch.generator, self.noise)

    def noisy_rows(
        self,
        users: Tensor,
        items: Tensor,
        noise: Noise | None,
        *,
        layer: int | None = None,
        edge_weight: EdgeWeight = None,
    ) -> tuple[Pair, Pair]:
        """Rows of Z, and of E' at a layer (default: the last), for users (B,) and items (P,)."""
        tables = self.user_embedding, self.item_embedding
        values = self.matrix_values(edge_weight)
        return sum_and_layer_rows(
            self.matrix, *tables, self.layer_weights, users, items, layer=layer, noise=noise, values=values
        )

    def contrast(self, batch: PairBatch, edge_weight: EdgeWeight = None) -> Tensor:
        """The mean of c over the batch's distinct users, and that over its items: their sum."""
        (users, user_weight, _), (items, item_weight, _) = (
            distinct_nodes(nodes, batch.weight) for nodes in (batch.users, batch.items)
        )
        first, second = (
            self.noisy_rows(users, items, self.drawn_noise(batch), edge_weight=edge_weight)[0] for _ in range(2)
        )
        of_users, of_items = (
            weighted_mean(info_nce(one, other, temperature=self.temperature), weight)
            for one, other, weight in zip(first, second, (user_weight, item_weight), strict=True)
        )
        return of_users + of_items

    def pair_loss(self, batch: PairBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The terms ``rank``, ``reg`` and ``contrast`` of the loss of one batch; see the class."""
        items = torch.cat([batch.items, batch.negatives.reshape(-1)])
        (user, item), _ = self.training_rows(batch.users, items, batch=batch, edge_weight=edge_weight)
        terms = self.rank_and_reg(batch, user, item)
        if self.contrast_weight:
            share = batch.weight.mean()
            terms["contrast"] = self.contrast_weight * share * self.contrast(batch, edge_weight)
        return terms

    def rank_and_reg(self, batch: PairBatch, user: Tensor, item: Tensor) -> dict[str, Tensor]:
        """The terms ``rank`` and ``reg`` from final rows of users (B, D), and of positives and negatives (P, D)."""
        count = len(batch)
        terms = {"rank": self.rank_loss(batch, user, item)}
        if self.reg:
            norms = block_norm(user, batch.weight) + block_norm(item[:count], batch.weight)
            terms["reg"] = self.reg * norms / max(count, 1)
        return terms


def distinct_nodes(nodes: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each node that an example of positive weight names, once.

    Args:
        nodes: (B,) int64.
        weight: (B,) of the examples.

    Returns:
        the nodes (N,) ascending, the largest weight of each one's examples (N,), and a place (N,) in the batch of each.
    """
    present = torch.nonzero(weight > 0)[:, 0]
    distinct, group = torch.unique(nodes.index_select(0, present), return_inverse=True)
    largest = weight.new_zeros(len(distinct)).scatter_reduce(0, group, weight.index_select(0, present), "amax")
    place = torch.zeros_like(distinct).scatter_reduce(0, group, present, "amax")
    return distinct, largest, place


def weighted_mean(terms: Tensor, weight: Tensor) -> Tensor:
    """``sum(weight * terms) / sum(weight)``, both (N,); 0 where there is no weight."""
    return (weight * terms).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
