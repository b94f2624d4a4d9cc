"""NGCF: propagation with transformations and an element-wise user-item interaction."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.graphs.normalise import edge_degrees
from graphrec.layers.dropout import dropout
from graphrec.layers.spmm import spmm
from graphrec.models.base import Batch, EdgeWeight, Encoded, GraphInputs, target_weight
from graphrec.models.pairwise import Initialisation, Loss, Pair, PairwiseRecommender, Positives

Propagation = Literal["norm", "plain", "gcmc", "ngcf"]


class NGCF(PairwiseRecommender):
    r"""Neural graph collaborative filtering (Wang et al., SIGIR 2019, https://arxiv.org/abs/1905.08108).

    .. math::
        S^k &= P E^k, \qquad P = (D + I)^{-1} (A + I) \\
        E^{k+1} &= \mathrm{LReLU}(S^k W_1^k + b_1^k) + \mathrm{LReLU}((E^k \odot S^k) W_2^k + b_2^k) \\
        E^* &= [E^0 \| Z^1 \| … \| Z^K], \qquad Z^k = E^k / \|E^k\|_2 \text{ by row}

    The default is the authors' code, which gave the published numbers. The paper writes the symmetric matrix, one
    activation over both branches and a penalty on all parameters; the code has the row-normalised matrix with
    self-loops above (``propagation='norm'``), an activation for each branch with slope 0.2, biases, and λ on the
    final vectors. Node dropout is off in the published commands and off here.

    Args:
        inputs: the dataset or the inputs taken from it.
        dim: width of the tables and of every layer.
        num_layers: K.
        propagation: P: ``norm`` as above, ``plain`` A, ``gcmc`` D⁻¹A, ``ngcf`` D⁻¹A + I.
        message_dropout: share of entries of each layer's output that are dropped in training.
        transform: whether W and b are there (off: NGCF-f).
        activation: whether LeakyReLU is there (off: NGCF-n).
        interaction: whether the branch of the element-wise product is there.
        combination: ``concat`` as above, or ``mean`` of E⁰, Z¹ … Zᴷ.
        loss: ``bpr``, ``bce`` or ``softmax``; see :class:`PairwiseRecommender`.
        num_negatives: negatives of each positive, or of a batch where they are shared.
        shared_negatives: whether a batch shares its negatives.
        positives: ``user`` or ``edge``; see :class:`PairwiseRecommender`.
        init: ``normal``, ``xavier`` or ``spectral``, for the tables; weights and biases are Xavier-uniform, as in the
        code. init_scale: standard deviation of the initial entries, for ``normal`` and ``spectral``. lr: learning
        rate of Adam (1e-4 on Gowalla, 5e-4 on Amazon-book). reg: λ, on the final vectors. batch_size: B. seed: seeds
        the initial parameters.
    """

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 64,
        num_layers: int = 3,
        propagation: Propagation = "norm",
        message_dropout: float = 0.1,
        transform: bool = True,
        activation: bool = True,
        interaction: bool = True,
        combination: Literal["concat", "mean"] = "concat",
        loss: Loss = "bpr",
        num_negatives: int = 1,
        shared_negatives: bool = False,
        positives: Positives = "user",
        init: Initialisation = "xavier",
        init_scale: float = 0.1,
        lr: float = 1e-4,
        reg: float = 1e-5,
        batch_size: int = 1024,
        seed: int = 0,
    ) -> None:
        if propagation not in ("norm", "plain", "gcmc", "ngcf"):
            raise InputError(f"propagation must be norm, plain, gcmc or ngcf, found {propagation!r}.")
        if not 0 <= message_dropout < 1:
            raise InputError(f"message_dropout must lie in [0, 1), found {message_dropout}.")
        if combination not in ("concat", "mean"):
            raise InputError(f"combination must be concat or mean, found {combination!r}.")
        super().__init__(
            inputs,
            dim=dim,
            num_layers=num_layers,
            propagation=propagation,
            message_dropout=message_dropout,
            transform=transform,
            activation=activation,
            interaction=interaction,
            combination=combination,
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
        self.num_layers, self.propagation, self.message_dropout = num_layers, propagation, message_dropout
        self.activation, self.interaction, self.combination = activation, interaction, combination
        branches = num_layers * (1 + interaction) if transform else 0
        transforms = [nn.Linear(dim, dim) for _ in range(branches)]
        stream = randomness.generator(seed, "initialisation/layers")
        for linear in transforms:
            nn.init.xavier_uniform_(linear.weight, generator=stream)
            # The authors' biases are 1 x D matrices and drawn like the weights.
            nn.init.xavier_uniform_(linear.bias.data.view(1, dim), generator=stream)
        self.transforms = nn.ModuleList(transforms)

    def propagate(self, users: Tensor, items: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        """One product S = P E on the two halves of the bipartite graph, (U, D) and (I, D).

        Degrees and self-loops are applied to the rows of an unweighted product, so that no (E,) matrix is stored.
        """
        matrix = self.graph_inputs.adjacency()
        sums = spmm(matrix, items, weight), spmm(matrix.transposed, users, weight)
        if self.propagation == "plain":
            return sums
        if weight is None:
            degrees = matrix.degrees(0).to(users.dtype), matrix.degrees(1).to(users.dtype)
        else:
            edges = self.graph_inputs.graph[self.graph_inputs.target].edge_index
            degrees = edge_degrees(edges, matrix.shape, weight)
        result = []
        for own, neighbours, degree in zip((users, items), sums, degrees, strict=True):
            degree = degree.unsqueeze(1)
            if self.propagation == "norm":
                result.append((neighbours + own) / (degree + 1))
            else:
                mean = neighbours / torch.where(degree > 0, degree, 1)
                result.append(mean if self.propagation == "gcmc" else mean + own)
        return result[0], result[1]

    def _branch(self, x: Tensor, index: int) -> Tensor:
        if self.transforms:
            x = self.transforms[index](x)
        return functional.leaky_relu(x, 0.2) if self.activation else x

    def _encode(self, edge_weight: EdgeWeight, generator: torch.Generator | None) -> Encoded:
        weight = target_weight(edge_weight, self.graph_inputs.target)
        users: Tensor = self.user_embedding
        items: Tensor = self.item_embedding
        layers = [(users, items)]
        for layer in range(self.num_layers):
            first = layer * (1 + self.interaction)
            sides = []
            for own, neighbours in zip((users, items), self.propagate(users, items, weight), strict=True):
                out = self._branch(neighbours, first)
                if self.interaction:
                    out = out + self._branch(own * neighbours, first + 1)
                if self.training and self.message_dropout:
                    out = dropout(out, self.message_dropout, generator)
                sides.append(out)
            users, items = sides
            # x / sqrt(max(sum x², 1e-12)), the convention of the authors' framework.
            layers.append((functional.normalize(users, eps=1e-6), functional.normalize(items, eps=1e-6)))
        if self.combination == "mean":
            return Encoded(*(torch.stack(side).mean(0) for side in zip(*layers, strict=True)))
        return Encoded(*(torch.cat(side, dim=1) for side in zip(*layers, strict=True)))

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        """E* on both sides, (U, D') and (I, D'), D' = (K + 1) D under ``concat``."""
        return self._encode(edge_weight, None)

    def training_rows(
        self, users: Tensor, items: Tensor, *, batch: Batch | None = None, edge_weight: EdgeWeight = None
    ) -> tuple[Pair, Pair]:
        """Rows of E*, with message dropout drawn from the batch's generator in training; the penalty is on them too."""
        encoded = self._encode(edge_weight, batch.generator if batch else None)
        final = encoded.users[users], encoded.items[items]
        return final, final
