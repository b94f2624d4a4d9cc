r"""KCAN's local layer: the outputs of pairs, each end seen through neighbours that are weighed for the pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphrec import randomness
from graphrec.layers.conditional_attention import AttentionTables, NeighbourShares, conditional_attention
from graphrec.layers.dropout import dropout


@dataclass(frozen=True)
class PreparedNodes:
    """What no pair changes, a row for each node.

    Attributes:
        attention: tables of the attention.
        lists: neighbours of every node.
        first: (N,) float, the target term of a node that is the first of a pair.
        second: (N,) float, of one that is the second.
        output: (N, O), the node's own part of its output.
    """

    attention: AttentionTables
    lists: NeighbourShares
    first: Tensor
    second: Tensor
    output: Tensor


class ConditionalLayer(nn.Module):
    r"""Outputs :math:`o_s = [g_s \| z_s] W_{out}` of both ends s of pairs (u, i).

    z is :func:`conditional_attention` with :math:`\tau = w_t \cdot [g_u \| g_i]`,
    :math:`[h \| m] = g\,[W_1^{top} \| W_1^{bottom}]` (b₁ added to h), :math:`a = g w_e^1`, :math:`b = w_e^2`,
    :math:`c = g W_2^{top} + b_2` and :math:`M = W_2^{bottom}`. All parameters are Xavier-uniform, biases too.

    Args:
        width: D of g.
        hop_dim: W, width of the inner layer.
        seed_dim: V, width of z.
        out_dim: O.
        seed: of the initial parameters.
    """

    def __init__(self, width: int, hop_dim: int, seed_dim: int, out_dim: int, *, seed: int) -> None:
        super().__init__()
        self.width = width

        def made(name: str, *shape: int) -> nn.Parameter:
            stream = randomness.generator(seed, f"initialisation/local/{name}")
            return nn.Parameter(nn.init.xavier_uniform_(torch.empty(shape), generator=stream))

        self.target_gate = made("target_gate", 2 * width, 1)
        self.hop_gate = made("hop_gate", width, 1)
        self.hop_weight = made("hop_weight", 2 * width, hop_dim)
        self.hop_bias = made("hop_bias", 1, hop_dim)
        self.seed_gate = made("seed_gate", hop_dim, 1)
        self.seed_weight = made("seed_weight", width + hop_dim, seed_dim)
        self.seed_bias = made("seed_bias", 1, seed_dim)
        self.output_weight = made("output_weight", width + seed_dim, out_dim)

    def prepare(self, nodes: Tensor, lists: NeighbourShares) -> PreparedNodes:
        """Everything that depends on one node, from g, (N, D)."""
        width = self.width
        tables = AttentionTables(
            hop_own=nodes @ self.hop_weight[:width] + self.hop_bias,
            hop_message=nodes @ self.hop_weight[width:],
            hop_gate=(nodes @ self.hop_gate)[:, 0],
            seed_own=nodes @ self.seed_weight[:width] + self.seed_bias,
            seed_message=self.seed_weight[width:],
            seed_gate=self.seed_gate[:, 0],
        )
        gates = nodes @ self.target_gate.view(2, width).T
        return PreparedNodes(tables, lists, gates[:, 0], gates[:, 1], nodes @ self.output_weight[:width])

    def forward(
        self, prepared: PreparedNodes, first: Tensor, second: Tensor, kept: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Outputs (P, O) of the first and of the second nodes of P pairs.

        Args:
            prepared: by :meth:`prepare`.
            first: (P,) int64.
            second: (P,) int64.
            kept: by :meth:`kept_entries`; None: no dropout.
        """
        seeds = torch.cat([first, second])
        target = prepared.first[first] + prepared.second[second]
        local = conditional_attention(prepared.attention, prepared.lists, seeds, torch.cat([target, target]), kept=kept)
        outputs = prepared.output.index_select(0, seeds) + local @ self.output_weight[self.width :]
        return outputs[: len(first)], outputs[len(first) :]

    def kept_entries(
        self, pairs: int, neighbours: int, p: float, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor] | None:
        """Factors of dropout for both ends of some pairs, drawn at once, for blocks may be computed twice."""
        if p == 0 or generator is None:
            return None
        hop = self.seed_gate.new_ones(2 * pairs, neighbours, self.hop_weight.shape[1])
        seed = self.seed_gate.new_ones(2 * pairs, self.seed_weight.shape[1])
        return dropout(hop, p, generator), dropout(seed, p, generator)
