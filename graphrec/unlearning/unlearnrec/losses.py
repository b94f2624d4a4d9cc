r"""The losses of UnlearnRec beside the backbone's own, as published and as they are used here.

Letters: M forgotten edges, B pairs of a batch, D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.augment import keep_edges
from graphrec.layers.contrastive import info_nce
from graphrec.layers.spmm import spmm


def forget_below(scores: Tensor) -> Tensor:
    r"""The published L_u (v1), :math:`-\frac1M \sum \log \sigma(-s)`, of scores (M,); 0 for none.

    It is log 2 at s = 0 and falls for ever: forgotten edges end up below edges that never were, which tells who left.
    """
    return functional.softplus(scores).sum() / max(len(scores), 1)


def forget_to(scores: Tensor, expected: Tensor, scale: Tensor | float) -> Tensor:
    r"""The two-sided L_u, the mean Huber loss of :math:`(s - s^*) / \sigma`; 0 for none.

    Args:
        scores: (M,), s.
        expected: (M,), s*: the scores that these pairs would have, had they never been edges.
        scale: σ, the standard deviation of the scores of pairs that are no edges: the unit of the loss.
    """
    terms = functional.huber_loss(scores / scale, expected / scale, reduction="sum")
    return terms / max(len(scores), 1)


def log_shares(users: Tensor, items: Tensor, temperature: float) -> Tensor:
    r""":math:`\log \frac{e^{s_{bb}/\tau}}{\sum_{b'} e^{s_{bb'}/\tau}}` of a batch's pairs, (B,), by ``logsumexp``.

    Args:
        users: (B, D) final representations.
        items: (B, D).
        temperature: τ.
    """
    scores = users @ items.T / temperature
    return scores.diagonal() - torch.logsumexp(scores, 1)


def published_log_shares(users: Tensor, items: Tensor, temperature: float) -> Tensor:
    """The same as the authors' code has it: plain exponentials, guards of 1e-6 that tell when scores are very low."""
    own = (users * items).sum(-1) / temperature
    scores = users @ items.T / temperature + 1e-8
    return torch.log(own.exp() / (scores.exp().sum(-1) + 1e-6) + 1e-6)


def alignment(users: Tensor, items: Tensor, teacher: tuple[Tensor, Tensor], temperature: float) -> Tensor:
    r"""L_p as a mean, :math:`\frac1B \sum_b (p_b - p^*_b)^2` of :func:`log_shares`; invariant to what is added to all
    scores of a user.

    The authors' code sums over the batch: their λ_p times B is the weight of this.

    Args:
        users: (B, D) rows of the tables after the request.
        items: (B, D).
        teacher: the same rows of the teacher, constants.
        temperature: τ.
    """
    wanted = log_shares(*teacher, temperature)
    return (log_shares(users, items, temperature) - wanted.detach()).square().sum() / max(len(users), 1)


def published_alignment(users: Tensor, items: Tensor, teacher: tuple[Tensor, Tensor], temperature: float) -> Tensor:
    """L_p as published: a sum over the batch, of :func:`published_log_shares`."""
    wanted = published_log_shares(*teacher, temperature)
    return (published_log_shares(users, items, temperature) - wanted.detach()).square().sum()


def layer_contrast(
    layers: Sequence[Tensor],
    request: Adjacency,
    users: Tensor,
    items: Tensor,
    *,
    generator: torch.Generator,
    drop: float = 0.05,
    temperature: float = 1.0,
) -> Tensor:
    r"""L_c: layers H¹ … Hᴸ against themselves through a request with some edges dropped; cosine, summed over layers.

    Every layer is dropped anew and starts from the undropped :math:`H^{l-1}`; what is kept is scaled by 1/(1 - drop).

    Args:
        layers: H⁰ to Hᴸ, each (N, D).
        request: the (U, I) matrix of the request.
        users: (B,) int64, the batch's users: the anchors and candidates, each once.
        items: (B,) int64.
        generator: of the drops.
        drop: share of edges dropped.
        temperature: τ_c.
    """
    total = layers[0].new_zeros(())
    if not len(request):
        return total
    size = request.shape[0]
    values = request.values if request.values is not None else torch.ones(len(request), device=request.device)
    nodes = (users.unique(), items.unique())
    for before, after in itertools.pairwise(layers):
        kept = request.stored(keep_edges(request, drop, generator=generator))
        dropped = request.with_stored_values(values * kept / (1 - drop))
        views = spmm(dropped, before[size:]), spmm(dropped.transposed, before[:size])
        own = after.detach()[:size], after.detach()[size:]
        for side, rows in enumerate(nodes):
            total = total + info_nce(own[side][rows], views[side][rows], temperature=temperature).mean()
    return total
