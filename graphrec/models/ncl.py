"""NCL: LightGCN with contrasts to the neighbours two hops away and to the prototype of a node's cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, check_at_least
from graphrec.layers.clustering import Clusters, kmeans
from graphrec.layers.contrastive import info_nce
from graphrec.layers.layer_rows import sum_and_layer_rows
from graphrec.layers.losses import block_norm
from graphrec.models.base import Batch, EdgeWeight, GraphInputs, PairBatch, Phase, Preset
from graphrec.models.pairwise import Initialisation, Loss, Pair, Positives
from graphrec.models.phase_parts import once
from graphrec.models.propagated import PropagatedRecommender
from graphrec.randomness import derive


@dataclass(frozen=True, kw_only=True)
class EpochBatch(Batch):
    """No examples, but the number of the epoch.

    Attributes:
        epoch: from 0.
    """

    epoch: int


class NCL(PropagatedRecommender):
    r"""Neighbourhood-enriched contrastive learning (Lin et al., WWW 2022, https://arxiv.org/abs/2202.06200).

    With :math:`E^* = \frac{1}{K+1} \sum_k \hat A^k E^0` (LightGCN), :math:`y_{ui} = \langle e^*_u, e^*_i \rangle`, for
    a batch of B

    .. math::
        L &= \frac1B \sum_{(u, i, j)} -\log \sigma(y_{ui} - y_{uj})
            + \frac{\lambda_2}{B} \big( \|E^0_u\|_F + \|E^0_i\|_F + \|E^0_j\|_F \big)
            + \sum_{(u, i)} \lambda_s \big( s(u) + \alpha s(i) \big) + \lambda_p \big( p(u) + p(i) \big) \\
        s(q) &= \log \sum_r \exp \frac{\cos(e^h_q, e^0_r) - \cos(e^h_q, e^0_q)}{\tau}, \qquad
        p(q) = \log \sum_c \exp \frac{\cos(e^0_q, c) - \cos(e^0_q, c_q)}{\tau}

    where layer h = 2 stands for the neighbours of a node's own kind, r runs over all users, or all items, and c over
    the centroids of k-means on their table, :math:`c_q` being the one nearest to :math:`e^0_q` by Euclid's distance,
    which need not be the nearest by cosine. Centroids are found anew before each epoch, from the ``warm_up``-th on, and
    are constants of the loss; before, and in a model that has not been through an epoch, there is no term p.

    This is the authors' code, which is behind the paper's table: contrasts are *sums* over the batch beside means, so
    that they weigh B λ for an example, and norms of the penalty are not squared. Here they are B times the mean, B the
    option, which is the sum for every full batch and leaves the weights as they are on short ones. SELFRec's NCL takes
    the batch's own centroids as candidates instead of all of them. k-means starts from k rows drawn by hash, in the
    place of faiss; a table of fewer rows than k has as many clusters as rows.

    Args:
        inputs: the dataset or the inputs taken from it.
        dim: width of the tables.
        num_layers: K.
        context_layer: h.
        structure_weight: λ_s; at 0 there is no such term.
        item_share: α.
        prototype_weight: λ_p; at 0 there is no such term.
        num_clusters: k, of users and of items.
        warm_up: epochs without prototypes.
        temperature: τ.
        loss: ``bpr``, ``bce`` or ``softmax``; see :class:`~graphrec.models.pairwise.PairwiseRecommender`.
        num_negatives: negatives of each positive, or of a batch where they are shared.
        shared_negatives: whether a batch shares its negatives.
        positives: ``user`` or ``edge``; the authors' code visits each edge once an epoch.
        init: ``normal``, ``xavier`` or ``spectral``.
        init_scale: standard deviation of the initial entries, for ``normal`` and ``spectral``.
        lr: learning rate of Adam.
        reg: λ₂; the norm of several negatives each is divided by the root of their number.
        batch_size: B.
        seed: seeds the initial tables.
    """

    presets: ClassVar[Mapping[str, Preset]] = {
        "ml-1m": Preset(
            fit={"epochs": 300, "patience": 10, "metric": "ndcg@10", "ks": (10, 20, 50)},
            note="As published on ml-1m, RecBole's split 8:1:1 (these are the defaults); rerun: .2021 and .2702 @10.",
        ),
        "yelp": Preset(
            model={
                "structure_weight": 1e-6,
                "prototype_weight": 1e-7,
                "num_clusters": 2000,
                "item_share": 1.5,
                "temperature": 0.05,
            },
            fit={"epochs": 300, "patience": 10, "metric": "ndcg@10", "ks": (10, 20, 50)},
            note="As published on RecBole's yelp, 15-core, ratings from 3; not the yelp2018 of LightGCN.",
        ),
        "amazon-books": Preset(
            model={
                "structure_weight": 1e-6,
                "prototype_weight": 1e-7,
                "num_clusters": 2000,
                "item_share": 0.8,
                "temperature": 0.05,
                "reg": 1e-6,
            },
            fit={"epochs": 300, "patience": 10, "metric": "ndcg@10", "ks": (10, 20, 50)},
            note="As published on RecBole's amazon-books, 15-core, ratings from 3; not the amazon-book of LightGCN.",
        ),
        "gowalla-merged": Preset(
            model={
                "structure_weight": 1e-6,
                "prototype_weight": 5e-8,
                "num_clusters": 10,
                "item_share": 0.5,
                "temperature": 0.05,
                "lr": 2e-3,
            },
            fit={"epochs": 300, "patience": 10, "metric": "ndcg@10", "ks": (10, 20, 50)},
            note="As published on RecBole's gowalla-merged, 10-core; not the gowalla of LightGCN.",
        ),
        "alibaba": Preset(
            model={"structure_weight": 1e-9, "prototype_weight": 1e-10, "num_clusters": 10000},
            fit={"epochs": 300, "patience": 10, "metric": "ndcg@10", "ks": (10, 20, 50)},
            note="As published on Alibaba-iFashion in the authors' split.",
        ),
    }

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 64,
        num_layers: int = 3,
        context_layer: int = 2,
        structure_weight: float = 1e-7,
        item_share: float = 1.0,
        prototype_weight: float = 8e-8,
        num_clusters: int = 1000,
        warm_up: int = 20,
        temperature: float = 0.1,
        loss: Loss = "bpr",
        num_negatives: int = 1,
        shared_negatives: bool = False,
        positives: Positives = "edge",
        init: Initialisation = "xavier",
        init_scale: float = 0.1,
        lr: float = 1e-3,
        reg: float = 1e-4,
        batch_size: int = 4096,
        seed: int = 0,
    ) -> None:
        check_at_least(1, num_layers=num_layers, context_layer=context_layer, num_clusters=num_clusters)
        check_at_least(
            0,
            warm_up=warm_up,
            structure_weight=structure_weight,
            item_share=item_share,
            prototype_weight=prototype_weight,
        )
        if not temperature > 0:
            raise InputError(f"temperature must be positive, found {temperature}.")
        super().__init__(
            inputs,
            dim=dim,
            num_layers=num_layers,
            context_layer=context_layer,
            structure_weight=structure_weight,
            item_share=item_share,
            prototype_weight=prototype_weight,
            num_clusters=num_clusters,
            warm_up=warm_up,
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
        self.num_layers, self.context_layer, self.temperature = num_layers, context_layer, temperature
        self.structure_weight, self.item_share = structure_weight, item_share
        self.prototype_weight, self.num_clusters, self.warm_up = prototype_weight, num_clusters, warm_up
        self.layer_weights = (1 / (num_layers + 1),) * (num_layers + 1)
        self.matrix = self.propagation_matrix()
        # Of users and of items, from the tables before the present epoch. No edge enters them but by what it taught.
        self.clusters: tuple[Clusters, Clusters] | None = None

    def find_clusters(self, seed: int) -> tuple[Clusters, Clusters]:
        """k-means of the tables as they are; ``seed`` draws its start."""
        users, items = (
            kmeans(table.detach(), min(self.num_clusters, len(table)), seed=derive(seed, side))
            for side, table in (("users", self.user_embedding), ("items", self.item_embedding))
        )
        return users, items

    def structure(self, context: Pair, groups: tuple[Group, Group]) -> Tensor:
        """s(u) + α s(i) of each example, (B,), from rows of layer h of its users and items, (B, D) each."""
        tables, total = (self.user_embedding, self.item_embedding), []
        for rows, table, group in zip(context, tables, groups, strict=True):
            terms = info_nce(rows.index_select(0, group.place), group.nodes, table, temperature=self.temperature)
            total.append(terms.index_select(0, group.number))
        return total[0] + self.item_share * total[1]

    def prototypes(self, clusters: tuple[Clusters, Clusters], groups: tuple[Group, Group]) -> Tensor:
        """p(u) + p(i) of each example, (B,)."""
        tables, total = (self.user_embedding, self.item_embedding), []
        for table, found, group in zip(tables, clusters, groups, strict=True):
            rows, own = table.index_select(0, group.nodes), found.assignment.index_select(0, group.nodes)
            terms = info_nce(rows, own, found.centroids.to(rows.dtype), temperature=self.temperature)
            total.append(terms.index_select(0, group.number))
        return total[0] + total[1]

    def pair_loss(self, batch: PairBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The terms ``rank``, ``reg``, ``structure`` and ``prototype`` of the loss of one batch; see the class."""
        count, tables = len(batch), (self.user_embedding, self.item_embedding)
        items = torch.cat([batch.items, batch.negatives.reshape(-1)])
        weights = self.layer_weights + (0.0,) * max(0, self.context_layer - self.num_layers)
        values = self.matrix_values(edge_weight)
        final, context = sum_and_layer_rows(
            self.matrix, *tables, weights, batch.users, items, layer=self.context_layer, values=values
        )
        terms = {"rank": self.rank_loss(batch, *final)}
        if self.reg:
            terms["reg"] = self.reg * self._norms(batch, items) / max(count, 1)
        if not self.structure_weight and (not self.prototype_weight or self.clusters is None):
            return terms
        groups = Group.of(batch.users), Group.of(batch.items)
        if self.structure_weight:
            structure = self.structure((context[0], context[1][:count]), groups)
            terms["structure"] = self.structure_weight * self.batch_size * self.batch_weight(batch, structure)
        if self.prototype_weight and self.clusters is not None:
            prototypes = self.prototypes(self.clusters, groups)
            terms["prototype"] = self.prototype_weight * self.batch_size * self.batch_weight(batch, prototypes)
        return terms

    def _norms(self, batch: PairBatch, items: Tensor) -> Tensor:
        """Norms of the batch's rows of E⁰, a block of users, one of positives and one of negatives."""
        count, rows = len(batch), self.item_embedding.index_select(0, items)
        users = block_norm(self.user_embedding.index_select(0, batch.users), batch.weight)
        positives, negatives = block_norm(rows[:count], batch.weight), rows[count:]
        if batch.shared:  # they stand for B rows, as one negative of each example would
            scale = (count / max(len(negatives), 1)) ** 0.5
            return users + positives + block_norm(negatives) * scale * batch.weight.mean()
        each = negatives.view(count, -1, negatives.shape[-1])
        return users + positives + block_norm(each, batch.weight) / max(each.shape[1], 1) ** 0.5

    def phases(self) -> Sequence[Phase]:
        """``clusters`` finds the epoch's prototypes; ``pairs`` trains every parameter."""
        pairs = super().phases()
        return pairs if self.prototype_weight == 0 else (Phase("clusters", self._epoch, self._cluster), *pairs)

    def _epoch(self, epoch: int, generator: torch.Generator) -> Iterator[EpochBatch]:
        for batch in once(self.device)(epoch, generator):
            yield EpochBatch(edge_id=batch.edge_id, weight=batch.weight, generator=batch.generator, epoch=epoch)

    def _cluster(self, batch: EpochBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        assert batch.generator is not None
        warm = batch.epoch >= self.warm_up
        self.clusters = self.find_clusters(batch.generator.initial_seed()) if warm else None
        return {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NCL:
        super()._apply(fn, recurse)
        if self.clusters is not None:
            users, items = (Clusters(fn(found.centroids), fn(found.assignment)) for found in self.clusters)
            self.clusters = users, items
        return self


@dataclass(frozen=True, eq=False)
class Group:
    """The distinct nodes of a batch.

    Attributes:
        nodes: (N,) int64, ascending.
        number: (B,) int64, which of them each example names.
        place: (N,) int64, an example that names each.
    """

    nodes: Tensor
    number: Tensor
    place: Tensor

    @classmethod
    def of(cls, nodes: Tensor) -> Group:
        """The distinct ones of (B,) nodes."""
        distinct, number = torch.unique(nodes, return_inverse=True)
        places = torch.arange(len(nodes), device=nodes.device)
        return cls(distinct, number, torch.zeros_like(distinct).scatter_reduce(0, number, places, "amax"))
