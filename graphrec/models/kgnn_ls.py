"""KGNN-LS: KGCN whose relation weights must also explain a user's labels by those of neighbouring items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.losses import point_loss
from graphrec.models.base import Derived, EdgeWeight, GraphInputs, PointBatch, Preset
from graphrec.models.kgcn import KGCN, Aggregator
from graphrec.models.pointwise import Examples


class KGNNLS(KGCN):
    r"""Knowledge-aware graph neural network with label smoothness (Wang et al., KDD 2019,
    https://arxiv.org/abs/1905.04413).

    The scores are those of :class:`KGCN`. The loss has one more term: the label of the pair is held out and predicted
    by propagating the user's other labels over the item's tree with the same shares,

    .. math::
        l_v \leftarrow z_v l_v + (1 - z_v) \tfrac1K \sum_k w_k l_{v_k}, \qquad
        L = \ldots + \gamma \, \mathrm{BCE}(c_{ui}, \hat l_{ui})

    where labels start from 1 (liked), 0 (labelled otherwise) or 1/2 (unknown), and :math:`z_v` says that v is a
    labelled item of the user other than the one held out. The default is the authors' code, in which labels are
    averaged over neighbours (1/K, as ``mix`` has it) and the prediction is the logit of the cross entropy. Where
    negatives are drawn anew each epoch they are not labels: unknown items stay at 1/2.

    Args:
        inputs: the dataset, with a knowledge graph, or the inputs taken from it.
        dim: D.
        num_layers: H.
        num_neighbours: K.
        aggregator: as in :class:`KGCN`; the authors have ``sum`` alone.
        mix: as in :class:`KGCN`.
        relation_score: as in :class:`KGCN`.
        smoothness: γ.
        examples: ``labelled`` or ``drawn``; see :class:`PointwiseRecommender`.
        num_negatives: negatives drawn for each training edge where there are no labels.
        lr: learning rate of Adam.
        reg: λ.
        batch_size: B.
        seed: seeds the initial tables and the neighbour lists.
    """

    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": KGCN.presets["paper"],
        "movie": Preset(
            model={
                "num_neighbours": 16,
                "dim": 32,
                "num_layers": 1,
                "batch_size": 65536,
                "reg": 1e-7,
                "smoothness": 1.0,
                "lr": 2e-2,
            },
            fit={"epochs": 10},
            note="The authors' setting for MovieLens-20M.",
        ),
        "book": Preset(
            model={
                "num_neighbours": 8,
                "dim": 64,
                "num_layers": 2,
                "batch_size": 256,
                "reg": 2e-5,
                "smoothness": 0.5,
                "lr": 2e-4,
            },
            fit={"epochs": 10},
            note="The authors' setting for Book-Crossing.",
        ),
        "music": Preset(
            model={
                "num_neighbours": 8,
                "dim": 16,
                "num_layers": 1,
                "batch_size": 128,
                "reg": 1e-4,
                "smoothness": 0.1,
                "lr": 5e-4,
            },
            fit={"epochs": 10},
            note="The authors' setting for Last.FM; the same as the defaults.",
        ),
        "restaurant": Preset(
            model={
                "num_neighbours": 4,
                "dim": 8,
                "num_layers": 2,
                "batch_size": 65536,
                "reg": 1e-7,
                "smoothness": 0.5,
                "lr": 2e-2,
            },
            fit={"epochs": 10},
            note="The authors' setting for Dianping-Food.",
        ),
    }

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 16,
        num_layers: int = 1,
        num_neighbours: int = 8,
        aggregator: Aggregator = "sum",
        mix: Literal["mean", "sum"] = "mean",
        relation_score: Literal["mean", "dot"] = "mean",
        smoothness: float = 0.1,
        examples: Examples = "labelled",
        num_negatives: int = 1,
        lr: float = 5e-4,
        reg: float = 1e-4,
        batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        if smoothness < 0:
            raise InputError(f"smoothness must be 0 or more, found {smoothness}.")
        super().__init__(
            inputs,
            dim=dim,
            num_layers=num_layers,
            num_neighbours=num_neighbours,
            aggregator=aggregator,
            mix=mix,
            relation_score=relation_score,
            examples=examples,
            num_negatives=num_negatives,
            lr=lr,
            reg=reg,
            batch_size=batch_size,
            seed=seed,
        )
        self.hparams = {**self.hparams, "smoothness": smoothness}
        self.smoothness = smoothness
        self.disliked = self.disliked_items()

    def disliked_items(self) -> Adjacency | None:
        """Users x items, the training pairs labelled 0; None where the model is not trained on labels."""
        pairs = self.graph_inputs.labelled
        if self.examples != "labelled" or pairs is None:
            return None
        chosen = pairs.labels == 0
        ends = torch.stack([pairs.users[chosen], pairs.items[chosen]])
        return Adjacency.from_edges(ends, (self.num_users, self.num_items))

    def derived(self) -> Mapping[str, Derived]:
        """Those of :class:`KGCN`, and the matrix of pairs labelled 0."""
        return {**super().derived(), "disliked": Derived((self.graph_inputs.target,), self.disliked_items)}

    def known_labels(self, users: Tensor, nodes: Tensor) -> Tensor:
        """Labels of users (B,) at nodes (B, n) by the training part: 1, 0, or 1/2 for unknown; float."""
        items = nodes - self.knowledge.nodes("item").start
        is_item = (items >= 0) & (items < self.num_items)
        rows, items = users.unsqueeze(1).expand_as(items), items.clamp(0, self.num_items - 1)
        labels = torch.full(nodes.shape, 0.5, dtype=self.user_embedding.dtype, device=nodes.device)
        if self.disliked is not None:
            labels = labels.masked_fill(is_item & self.disliked.contains(rows, items), 0.0)
        return labels.masked_fill(is_item & self.graph_inputs.adjacency().contains(rows, items), 1.0)

    def propagated_labels(self, users: Tensor, items: Tensor, edge_weight: EdgeWeight = None) -> Tensor:
        """The label (B,) of each pair as its tree predicts it, the pair's own label held out; differentiable."""
        nodes, shares = self.tree(users, items, edge_weight)
        labels = []
        for level in nodes:
            known = self.known_labels(users, level)
            labels.append(known.masked_fill(level == nodes[0], 0.5))
        fixed = [known != 0.5 for known in labels[:-1]]
        for layer in range(self.num_layers):
            labels = [
                torch.where(
                    fixed[hop],
                    labels[hop],
                    (shares[hop] * labels[hop + 1].view(shares[hop].shape)).sum(-1),
                )
                for hop in range(self.num_layers - layer)
            ]
        return labels[0].squeeze(1)

    def more_terms(self, batch: PointBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """``reg`` of :class:`KGCN`, and ``smoothness``."""
        terms = dict(super().more_terms(batch, edge_weight))
        if self.smoothness:
            predicted = self.propagated_labels(batch.users, batch.items, edge_weight)
            terms["smoothness"] = self.smoothness * self.batch_weight(batch, point_loss(predicted, batch.labels))
        return terms
