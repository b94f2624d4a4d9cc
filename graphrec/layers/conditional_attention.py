r"""Attention over a two-hop receptive field, conditioned on what is asked for: KCAN's local layer.

Every node has K listed neighbours, each with a share p of the node's knowledge attention. For a seed s and a number τ
that stands for the target

.. math::
    \alpha_{jl} &= \mathrm{softmax}_l\, \mathrm{LReLU}\big(p_{jl} (\tau + a_l)\big), \qquad
    y_j = \mathrm{norm}\big(\mathrm{ELU}(h_j + \textstyle\sum_l \alpha_{jl} m_l)\big) \\
    \beta_j &= \mathrm{softmax}_j\, \mathrm{LReLU}\big(p_{sj} (\tau + b^\top y_j)\big), \qquad
    z_s = \mathrm{norm}\big(\mathrm{ELU}(c_s + \textstyle\sum_j \beta_j y_j M)\big)

with l the neighbours of j and j those of s. What depends on a node alone (h, m, a, c) is a table, computed once for all
pairs: the published form multiplies ``[g_j | sum_l α_jl g_l]`` by a matrix, which is the same by halves.

Letters: N nodes, K neighbours, B seeds, W width of a hop, V width of the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.spmm import spmm

MEMORY_BUDGET = 512 * 2**20
"""Bytes that one block of seeds may take while gradients are kept."""

SCORING_BUDGET = 8 * 2**20
"""Bytes that one block of seeds may take without gradients: what stays in the cache is quickest."""

_NORM_EPS = 1e-6  # x / sqrt(max(sum x², 1e-12)), the convention of the authors' framework


@dataclass(frozen=True)
class NeighbourShares:
    """The listed neighbours of every node.

    Attributes:
        nodes: (N, K) int64, any node where a node has no neighbours.
        shares: (N, K) float, p.
        present: (N,) bool, whether a node has neighbours.
        weight: (N, K) float, a factor on each neighbour's exponential in a softmax, 0 takes it out; None: 1.
    """

    nodes: Tensor
    shares: Tensor
    present: Tensor
    weight: Tensor | None = None


@dataclass(frozen=True)
class AttentionTables:
    """What the attention reads of nodes, and its own weights.

    Attributes:
        hop_own: (N, W), h.
        hop_message: (N, W), m.
        hop_gate: (N,), a.
        seed_own: (N, V), c.
        seed_message: (W, V), M.
        seed_gate: (W,), b.
    """

    hop_own: Tensor
    hop_message: Tensor
    hop_gate: Tensor
    seed_own: Tensor
    seed_message: Tensor
    seed_gate: Tensor


def conditional_attention(
    tables: AttentionTables,
    lists: NeighbourShares,
    seeds: Tensor,
    target: Tensor,
    *,
    kept: tuple[Tensor, Tensor] | None = None,
    slope: float = 0.2,
    memory: int | None = None,
) -> Tensor:
    """z for each seed; see the module.

    Blocks of seeds are taken so that ``memory`` bounds what is alive; where gradients are wanted and one block does not
    hold all seeds, the blocks are computed again in the backward pass.

    Args:
        tables: of the nodes.
        lists: of the nodes.
        seeds: (B,) int64.
        target: (B,) float, τ.
        kept: factors that dropout applies to the ELU's results, (B, K, W) and (B, V); None: no dropout.
        slope: of the LeakyReLU below zero.
        memory: bytes; None: 512 MiB where gradients are kept, else 8 MiB.

    Returns:
        (B, V), rows of length 1.

    Raises:
        InputError: seeds and targets are not as many.
    """
    if seeds.dim() != 1 or seeds.shape != target.shape:
        raise InputError(f"seeds and target must be (B,) alike, found {tuple(seeds.shape)} and {tuple(target.shape)}.")
    width = lists.nodes.shape[1]
    live = torch.is_grad_enabled()
    memory = memory or (MEMORY_BUDGET if live else SCORING_BUDGET)
    # Gathered shares and gates, logits, shares of attention, the sparse matrix and its transpose.
    per_seed = width * width * (6 * target.element_size() + 16) + 8 * width * tables.hop_own.shape[1] * 4
    block = max(1, memory // per_seed)
    # One gate for each listed neighbour, (N, K), instead of one for each member of a receptive field.
    gates = lists.shares * tables.hop_gate[lists.nodes]
    parts = []
    for start in range(0, len(seeds), block):
        part = slice(start, start + block)
        masks = (None, None) if kept is None else (kept[0][part], kept[1][part])
        given = (tables, lists, gates, seeds[part], target[part], *masks, slope)
        if live and len(seeds) > block:
            parts.append(checkpoint(_block, *given, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(_block(*given))
    return torch.cat(parts) if parts else target.new_zeros(0, tables.seed_message.shape[1])


def _block(
    tables: AttentionTables,
    lists: NeighbourShares,
    gates: Tensor,
    seeds: Tensor,
    target: Tensor,
    kept_hop: Tensor | None,
    kept_seed: Tensor | None,
    slope: float,
) -> Tensor:
    count, width = len(seeds), lists.nodes.shape[1]
    hop = lists.nodes.index_select(0, seeds).view(-1)
    shares = lists.shares.index_select(0, hop).view(count, -1)
    logits = shares * target[:, None] + gates.index_select(0, hop).view(count, -1)
    logits = functional.leaky_relu(logits, slope).view(-1, width)
    alpha = _softmax(logits, None if lists.weight is None else lists.weight.index_select(0, hop))
    # The sum over neighbours is a sparse product: no (B, K, K, W) tensor, forward or backward.
    rowptr = torch.arange(0, len(hop) * width + 1, width, dtype=torch.int32, device=hop.device)
    columns = lists.nodes.index_select(0, hop).view(-1).to(torch.int32)
    fields = Adjacency(rowptr, columns, (len(hop), len(lists.nodes)))
    rows = functional.elu(tables.hop_own.index_select(0, hop) + spmm(fields, tables.hop_message, alpha.view(-1)))
    rows = rows.view(count, width, -1)
    if kept_hop is not None:
        rows = rows * kept_hop
    rows = functional.normalize(rows, dim=-1, eps=_NORM_EPS)
    logits = lists.shares.index_select(0, seeds) * (target[:, None] + rows @ tables.seed_gate)
    logits = functional.leaky_relu(logits, slope)
    beta = _softmax(logits, None if lists.weight is None else lists.weight.index_select(0, seeds))
    beta = beta * lists.present.index_select(0, seeds).unsqueeze(1)
    mixed = torch.einsum("bk,bkw->bw", beta, rows)
    result = functional.elu(tables.seed_own.index_select(0, seeds) + mixed @ tables.seed_message)
    if kept_seed is not None:
        result = result * kept_seed
    return functional.normalize(result, dim=-1, eps=_NORM_EPS)


def _softmax(logits: Tensor, weight: Tensor | None) -> Tensor:
    """Softmax over the last dimension, each exponential times its weight; zeros where all weigh nothing."""
    if weight is None:
        return logits.softmax(-1)
    scaled = (logits - logits.detach().amax(-1, keepdim=True)).exp() * weight
    return scaled / scaled.sum(-1, keepdim=True).clamp_min(torch.finfo(scaled.dtype).tiny)
