"""SGL: LightGCN with a contrast between two random subgraphs of the interactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal

from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.graphs.augment import keep_exactly, keep_nodes
from graphrec.layers.views import View, pair_contrast
from graphrec.models.base import (
    Batch,
    Derived,
    EdgeWeight,
    GraphInputs,
    PairBatch,
    Phase,
    Preset,
)
from graphrec.models.pairwise import Initialisation, Loss, Positives
from graphrec.models.phase_parts import once
from graphrec.models.propagated import PropagatedRecommender, TwoViews
from graphrec.randomness import derive

Augmentation = Literal["edge", "node", "walk"]


class SGL(TwoViews[View], PropagatedRecommender):
    r"""Self-supervised graph learning (Wu et al., SIGIR 2021, https://arxiv.org/abs/2010.10783).

    With :math:`E^* = \frac{1}{K+1} \sum_k \hat A^k E^0` on the whole graph, and Z¹, Z² the same on two subgraphs that
    are drawn each epoch and normalised by their own degrees,

    .. math:: L = \frac1B \sum_{(u, i, j)} \Big( -\log \sigma(y_{ui} - y_{uj}) + \lambda_1 \big( c(u) + c(i) \big)
              + \frac{\lambda_2}{2} \|r\|^2 \Big), \qquad
              c(q) = \log \sum_p \exp\frac{\cos(z^1_q, z^2_p) - \cos(z^1_q, z^2_q)}{\tau}

    where p runs over *all* users, or all items (eq. 10 of the paper and the authors' code), and r are the batch's rows
    of the table E⁰. The code sums over the batch what is a mean here; both have the same λ's, because it sums every
    term, and Adam's steps do not depend on the factor. λ's of code that averages only some of the terms are others.

    Subgraphs, with the share ρ left out (hash draws: taking an edge away leaves the draws of the others): ``edge``
    keeps ⌊(1-ρ)E⌋ edges (SGL-ED); ``node`` drops ⌊ρU⌋ users and ⌊ρI⌋ items with their edges (SGL-ND); ``walk`` is
    ``edge`` drawn anew for each layer (SGL-RW).

    Args:
        inputs: the dataset or the inputs taken from it.
        dim: width of the tables.
        num_layers: K.
        augmentation: see above.
        drop: ρ.
        contrast_weight: λ₁; at 0 no views are made, and the model is LightGCN.
        temperature: τ.
        loss: ``bpr``, ``bce`` or ``softmax``; see :class:`PairwiseRecommender`.
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
            model={"contrast_weight": 0.1, "drop": 0.1, "temperature": 0.2, "reg": 1e-4},
            fit={"patience": 10},
            note="SGL-ED as published on yelp2018: Recall@20 .0675, NDCG@20 .0555.",
        ),
        "amazon-book": Preset(
            model={"contrast_weight": 0.5, "drop": 0.1, "temperature": 0.2, "reg": 1e-4},
            fit={"patience": 10},
            note="SGL-ED as published on amazon-book: .0478 and .0379; the authors' log has reg 1e-3, .0484 and .0382.",
        ),
        "alibaba-ifashion": Preset(
            model={"contrast_weight": 0.02, "drop": 0.4, "temperature": 0.5, "reg": 1e-3},
            fit={"patience": 10},
            note="SGL-ED as published on Alibaba-iFashion in SGL's own split: .1126 and .0538.",
        ),
    }

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 64,
        num_layers: int = 3,
        augmentation: Augmentation = "edge",
        drop: float = 0.1,
        contrast_weight: float = 0.1,
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
        if num_layers < 1:
            raise InputError(f"num_layers must be 1 or more, found {num_layers}.")
        if augmentation not in ("edge", "node", "walk"):
            raise unknown("augmentation", augmentation, ("edge", "node", "walk"))
        if not 0 <= drop < 1:
            raise InputError(f"drop must lie in [0, 1), found {drop}.")
        if not temperature > 0:
            raise InputError(f"temperature must be positive, found {temperature}.")
        if contrast_weight < 0:
            raise InputError(f"contrast_weight must be 0 or more, found {contrast_weight}.")
        super().__init__(
            inputs,
            dim=dim,
            num_layers=num_layers,
            augmentation=augmentation,
            drop=drop,
            contrast_weight=contrast_weight,
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
        self.num_layers, self.augmentation, self.drop = num_layers, augmentation, drop
        self.contrast_weight, self.temperature = contrast_weight, temperature
        self.layer_weights = (1 / (num_layers + 1),) * (num_layers + 1)
        self.matrix = self.propagation_matrix()
        self.view_seed = derive(seed, "views")

    def drawn_views(self) -> tuple[View, View]:
        """The views of the present edges."""
        return self._view(0), self._view(1)

    def _view(self, number: int) -> View:
        adj = self.graph_inputs.adjacency()
        if self.augmentation == "node":
            edges = self.graph_inputs.graph[self.graph_inputs.target].edge_index
            users, items = (
                keep_nodes(size, self.drop, seed=derive(self.view_seed, f"{side}/{number}"), device=adj.device)
                for side, size in (("users", self.num_users), ("items", self.num_items))
            )
            return View(adj, [users[edges[0]] & items[edges[1]]])
        layers = self.num_layers if self.augmentation == "walk" else 1
        seeds = [derive(self.view_seed, f"edges/{number}", layer) for layer in range(layers)]
        return View(adj, [keep_exactly(adj, self.drop, seed=seed) for seed in seeds])

    def redraw(self, seed: int) -> None:
        """Other views."""
        self.view_seed, self._views = seed, None

    def contrast(self, users: Tensor, items: Tensor, edge_weight: EdgeWeight = None) -> Tensor:
        """c(u) + c(i) of each pair, (B,); users or items that repeat are computed once."""
        tables = self.user_embedding, self.item_embedding
        return pair_contrast(
            self.views,
            (tables, tables),
            self.layer_weights,
            users,
            items,
            temperature=self.temperature,
            weight=self.weighted_edges(edge_weight),
        )

    def pair_loss(self, batch: PairBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The terms ``rank``, ``reg`` and ``contrast`` of the loss of one batch; see the class."""
        terms = dict(super().pair_loss(batch, edge_weight))
        if self.contrast_weight:
            contrast = self.contrast(batch.users, batch.items, edge_weight)
            terms["contrast"] = self.contrast_weight * self.batch_weight(batch, contrast)
        return terms

    def phases(self) -> Sequence[Phase]:
        """``views`` draws the epoch's subgraphs from the epoch's own stream; ``pairs`` trains every parameter."""
        pairs = super().phases()
        return pairs if self.contrast_weight == 0 else (Phase("views", once(self.device), self._draw), *pairs)

    def _draw(self, batch: Batch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        assert batch.generator is not None
        self.redraw(batch.generator.initial_seed())
        return {}

    def derived(self) -> Mapping[str, Derived]:
        """The normalised matrix, and the views, from the edges of the ranked behaviour."""
        return {**super().derived(), "views": Derived((self.graph_inputs.target,), self.drawn_views)}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SGL:
        # Views are made again where the edges are.
        super()._apply(fn, recurse)
        self._views = None
        return self
