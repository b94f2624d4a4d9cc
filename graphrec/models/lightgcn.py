"""LightGCN: linear propagation of embeddings on the user-item graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.augment import keep_edges
from graphrec.graphs.normalise import edge_degrees, power_of_degree
from graphrec.layers.propagation import linear_propagation, propagation_and_ego_rows
from graphrec.layers.spmm import spmm
from graphrec.models.base import (
    Batch,
    Derived,
    EdgeWeight,
    Encoded,
    GraphInputs,
    Preset,
    target_weight,
)
from graphrec.models.pairwise import Initialisation, Loss, Pair, PairwiseRecommender, Positives

Normalisation = Literal["sym", "left", "right", "l1", "sqrt_left", "sqrt_right", "none"]
LayerWeights = Literal["uniform", "last", "without_ego", "learned"]

# D_r^-a A D_c^-b: the exponents a and b of each normalisation (table 5 of the paper and its variants).
_EXPONENTS: Mapping[str, tuple[float, float]] = {
    "sym": (0.5, 0.5),
    "left": (1.0, 0.0),
    "right": (0.0, 1.0),
    "l1": (1.0, 1.0),
    "sqrt_left": (0.5, 0.0),
    "sqrt_right": (0.0, 0.5),
    "none": (0.0, 0.0),
}


class LightGCN(PairwiseRecommender):
    r"""LightGCN (He et al., SIGIR 2020, https://arxiv.org/abs/2002.02126).

    .. math:: E^* = \sum_{k=0}^{K} \alpha_k \hat A^k E^0, \qquad \hat A = D^{-1/2} A D^{-1/2}, \qquad
              y_{ui} = \langle e^*_u, e^*_i \rangle

    with :math:`0^{-1/2} := 0`, no self-loops, :math:`\alpha_k = 1/(K+1)`, and λ on rows of the table E⁰. The paper says
    Xavier; the authors' PyTorch code, which is behind the table of its README, draws N(0, 0.1²), and that is the
    default here. Users are drawn uniformly (``positives='user'``), as in that code.

    Args:
        inputs: the dataset or the inputs taken from it.
        dim: width of the tables.
        num_layers: K.
        layer_weights: α: ``uniform``; ``last`` layer only; ``without_ego`` uniform over layers 1 to K; ``learned``, one
            parameter for each layer, from uniform.
        normalisation: ``sym``; ``left`` D⁻¹ A; ``right`` A D⁻¹; ``l1`` D⁻¹ A D⁻¹; ``sqrt_left`` D^-1/2 A;
            ``sqrt_right`` A D^-1/2; ``none``. The paper's "-L" and "-R" are the two with roots.
        self_loops: whether A + I takes the place of A (degrees too).
        edge_dropout: share of edges left out of each step's graph, the others scaled by 1/(1 - share).
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

    presets: ClassVar[Mapping[str, Preset]] = {
        "fast": Preset(
            model={
                "init": "spectral",
                "init_scale": 0.125,
                "loss": "softmax",
                "shared_negatives": True,
                "num_negatives": 2048,
                "positives": "user",
                "batch_size": 4096,
                "lr": 0.02,
                "reg": 0.03,
            },
            fit={"epochs": 14, "schedule": "cosine", "evaluate_every": 7},
            note=(
                "LightGCN's encoder trained to its level in minutes: singular vectors to start from, a softmax over "
                "negatives that the batch shares, a large rate that falls to zero. Not the published recipe. Chosen by "
                "Recall@20 on a tenth of Gowalla's training part: .1902, .2004, .1922 after 8 epochs with λ .01, .03, "
                ".05; .2061 after 14 epochs with λ .03."
            ),
        ),
    }

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 64,
        num_layers: int = 3,
        layer_weights: LayerWeights = "uniform",
        normalisation: Normalisation = "sym",
        self_loops: bool = False,
        edge_dropout: float = 0.0,
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
        if num_layers < 0:
            raise InputError(f"num_layers must be 0 or more, found {num_layers}.")
        if normalisation not in _EXPONENTS:
            raise InputError(f"normalisation must be one of {', '.join(_EXPONENTS)}, found {normalisation!r}.")
        if layer_weights not in ("uniform", "last", "without_ego", "learned"):
            raise InputError(f"layer_weights must be uniform, last, without_ego or learned, found {layer_weights!r}.")
        if layer_weights == "without_ego" and num_layers == 0:
            raise InputError("layer_weights='without_ego' needs num_layers of at least 1.")
        if not 0 <= edge_dropout < 1:
            raise InputError(f"edge_dropout must lie in [0, 1), found {edge_dropout}.")
        super().__init__(
            inputs,
            dim=dim,
            num_layers=num_layers,
            layer_weights=layer_weights,
            normalisation=normalisation,
            self_loops=self_loops,
            edge_dropout=edge_dropout,
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
        self.num_layers, self.normalisation, self.self_loops = num_layers, normalisation, self_loops
        self.edge_dropout = edge_dropout
        weights = torch.full((num_layers + 1,), 1.0 / (num_layers + 1))
        if layer_weights == "last":
            weights = torch.zeros(num_layers + 1)
            weights[-1] = 1.0
        elif layer_weights == "without_ego":
            weights = torch.full((num_layers + 1,), 1.0 / num_layers)
            weights[0] = 0.0
        self.layer_weights: Tensor
        if layer_weights == "learned":
            self.layer_weights = nn.Parameter(weights)
        else:
            self.register_buffer("layer_weights", weights, persistent=False)
        self.matrix = self.propagation_matrix()

    def degrees(self, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Sums of edge weights (default: 1) at users (U,) and items (I,), one more with self-loops."""
        edges = self.graph_inputs.graph[self.graph_inputs.target].edge_index
        users, items = edge_degrees(edges, (self.num_users, self.num_items), weight)
        return users + self.self_loops, items + self.self_loops

    def edge_values(self, weight: Tensor | None = None) -> Tensor:
        """Entries of the symmetric matrix that is multiplied by, (E,) in edge-list order; differentiable in ``weight``.

        D^-a A D^-b equals D^-s (D^-c A D^-c) D^s with c = (a + b) / 2, s = (a - b) / 2, so that one symmetric matrix
        serves every normalisation and rows are scaled by D^±s before and after (see :meth:`encode`).
        """
        edges = self.graph_inputs.graph[self.graph_inputs.target].edge_index
        power = -sum(_EXPONENTS[self.normalisation]) / 2
        users, items = self.degrees(weight)
        values = power_of_degree(users, power)[edges[0]] * power_of_degree(items, power)[edges[1]]
        return values if weight is None else values * weight

    def propagation_matrix(self) -> Adjacency:
        """The normalised users x items matrix of the training graph."""
        return self.graph_inputs.adjacency().with_values(self.edge_values())

    def _scaled(self, users: Tensor, items: Tensor, weight: Tensor | None, sign: int) -> tuple[Tensor, Tensor]:
        """Rows times D^(sign * s); an isolated node's degree counts as 1, its ego vector is all it has."""
        own, other = _EXPONENTS[self.normalisation]
        if own == other:
            return users, items
        power = sign * (own - other) / 2
        scales = [degree.where(degree > 0, 1.0).pow(power).unsqueeze(1) for degree in self.degrees(weight)]
        return users * scales[0], items * scales[1]

    def _values(self, batch: Batch | None, weight: Tensor | None) -> Tensor | None:
        """Edge values where they differ from those of :attr:`matrix`: weights were given, or edges are dropped."""
        values = None if weight is None else self.edge_values(weight)
        if not (self.training and self.edge_dropout and batch is not None and batch.generator is not None):
            return values
        matrix = self.graph_inputs.adjacency()
        kept = keep_edges(matrix, self.edge_dropout, generator=batch.generator)
        return (self.edge_values() if values is None else values) * kept / (1 - self.edge_dropout)

    def _propagate(
        self, users: Tensor, items: Tensor, values: Tensor | None, weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if not self.self_loops:
            return linear_propagation(self.matrix, users, items, self.layer_weights, values)
        power = -sum(_EXPONENTS[self.normalisation])
        loops = [power_of_degree(degree, power).unsqueeze(1) for degree in self.degrees(weight)]
        total = users * self.layer_weights[0], items * self.layer_weights[0]
        for layer in range(1, self.num_layers + 1):
            users, items = (
                spmm(self.matrix, items, values) + loops[0] * users,
                spmm(self.matrix.transposed, users, values) + loops[1] * items,
            )
            alpha = self.layer_weights[layer]
            total = total[0] + alpha * users, total[1] + alpha * items
        return total

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        """E* on both sides, (U, D) and (I, D)."""
        return self._encode(None, target_weight(edge_weight, self.graph_inputs.target))

    def _encode(self, batch: Batch | None, weight: Tensor | None) -> Encoded:
        ego = self._scaled(self.user_embedding, self.item_embedding, weight, +1)
        final = self._propagate(*ego, self._values(batch, weight), weight)
        return Encoded(*self._scaled(*final, weight, -1))

    def training_rows(
        self, users: Tensor, items: Tensor, *, batch: Batch | None = None, edge_weight: EdgeWeight = None
    ) -> tuple[Pair, Pair]:
        """Rows of E* and of E⁰; on the plain path the last layer is computed for these rows alone, the same numbers."""
        weight = target_weight(edge_weight, self.graph_inputs.target)
        own, other = _EXPONENTS[self.normalisation]
        if own == other and not self.self_loops:
            values = self._values(batch, weight)
            return propagation_and_ego_rows(
                self.matrix, self.user_embedding, self.item_embedding, self.layer_weights, users, items, values
            )
        encoded = self._encode(batch, weight)
        ego = self.user_embedding[users], self.item_embedding[items]
        return (encoded.users[users], encoded.items[items]), ego

    def derived(self) -> Mapping[str, Derived]:
        """The normalised matrix, from the degrees of the ranked behaviour's edges."""
        return {"matrix": Derived((self.graph_inputs.target,), self.propagation_matrix)}
