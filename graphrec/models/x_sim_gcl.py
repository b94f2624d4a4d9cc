"""XSimGCL: SimGCL in one pass, its final layer against an inner one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.layers.contrastive import info_nce
from graphrec.models.base import EdgeWeight, GraphInputs, PairBatch, Preset
from graphrec.models.pairwise import Initialisation, Loss, Positives
from graphrec.models.sim_gcl import SimGCL, distinct_nodes, weighted_mean


class XSimGCL(SimGCL):
    r"""Extremely simple graph contrastive learning (Yu et al., TKDE 2023, https://arxiv.org/abs/2209.02544).

    One pass under noise serves ranking and contrast. With Z and E' of :class:`~graphrec.models.sim_gcl.SimGCL`,

    .. math::
        L = \frac1B \sum_{(u, i, j)} -\log \sigma(\langle z_u, z_i \rangle - \langle z_u, z_j \rangle)
            + \lambda_1 \Big( \frac{1}{|U_b|} \sum_{u \in U_b} c(u) + \frac{1}{|I_b|} \sum_{i \in I_b} c(i) \Big)
            + \frac{\lambda_2}{B} \big( \|Z_u\|_F + \|Z_i\|_F \big)

    where c contrasts a node's row of Z with its row of layer l*,
    :math:`c(q) = \log \sum_p \exp((\cos(z_q, e'^{l^*}_p) - \cos(z_q, e'^{l^*}_q))/\tau)`, among the distinct users, or
    positive items, of the batch. Scores come from the pass without noise. This is the authors' code (SELFRec); what is
    said of :class:`~graphrec.models.sim_gcl.SimGCL` about it, about noise and about weights holds here.

    Args:
        inputs: the dataset or the inputs taken from it.
        dim: width of the tables.
        num_layers: K.
        contrast_layer: l*, from 1 to K.
        contrast_weight: λ₁; at 0 the model is LightGCN without layer 0, trained under noise.
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
            model={"num_layers": 3, "contrast_layer": 1, "contrast_weight": 0.2, "noise": 0.2, "temperature": 0.15},
            fit={"epochs": 20, "select_on": "test"},
            note="As published on yelp2018 (SELFRec): Recall@20 .0723, NDCG@20 .0604; the best epoch by the test part.",
        ),
    }

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 64,
        num_layers: int = 3,
        contrast_layer: int = 1,
        contrast_weight: float = 0.2,
        noise: float = 0.2,
        temperature: float = 0.15,
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
        if not 1 <= contrast_layer <= num_layers:
            raise InputError(f"contrast_layer must lie between 1 and num_layers={num_layers}, found {contrast_layer}.")
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
        self.hparams["contrast_layer"] = self.contrast_layer = contrast_layer

    def pair_loss(self, batch: PairBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The terms ``rank``, ``reg`` and ``contrast`` of the loss of one batch; see the class."""
        items = torch.cat([batch.items, batch.negatives.reshape(-1)])
        final, inner = self.noisy_rows(
            batch.users, items, self.drawn_noise(batch), layer=self.contrast_layer, edge_weight=edge_weight
        )
        terms = self.rank_and_reg(batch, *final)
        if self.contrast_weight:
            total = batch.weight.new_zeros(())
            for side, nodes in enumerate((batch.users, batch.items)):
                _, weight, place = distinct_nodes(nodes, batch.weight)
                one, other = final[side].index_select(0, place), inner[side].index_select(0, place)
                total = total + weighted_mean(info_nce(one, other, temperature=self.temperature), weight)
            terms["contrast"] = self.contrast_weight * batch.weight.mean() * total
        return terms
