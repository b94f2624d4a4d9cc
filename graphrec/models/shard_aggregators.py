"""How the models of shards are put together to one: means of scores, learned weights, attention.

Letters: S shards, U users, I items, D width of a shard's representations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graphrec import randomness
from graphrec.models.base import Encoded


def standardised(table: Encoded) -> Encoded:
    """Representations whose scores have mean 0 and variance 1 over the items of each user."""
    items = table.items - table.items.mean(0)
    # The variance of a user's scores is a quadratic form of the items' covariance.
    variance = ((table.users @ (items.T @ items / len(items))) * table.users).sum(1, keepdim=True)
    return Encoded(table.users / variance.clamp_min(1e-12).sqrt(), items)


class MeanOfScores(nn.Module):
    r"""The mean of the scores of the shards that have a say about a user, :math:`y_{ui} = \sum_s v_{us} y^s_{ui}`.

    As one dot product: the shards' vectors side by side, (U, S D) and (I, S D).
    """

    def forward(self, tables: Sequence[Encoded], votes: Tensor) -> Encoded:
        """Representations; ``votes`` (U, S) are the shards' shares in each user's scores."""
        return Encoded(
            torch.cat([table.users * votes[:, s, None] for s, table in enumerate(tables)], 1),
            torch.cat([table.items for table in tables], 1),
        )


class WeightedScores(nn.Module):
    r"""GraphEraser's LBAggr (Chen et al., CCS 2022, section 4.4): one weight for each shard,
    :math:`y_{ui} = \sum_s w_s y^s_{ui}`.

    :math:`\min_{w \ge 0} CE(\mathrm{softmax}(\sum_s w_s \log p_s), y) + \|w\|_2`; a posterior is the softmax of a
    shard's standardised scores over a positive item and items drawn at random, whose normalising constants drop out.
    (Raw scores of a model trained to rank may be so small that the penalty alone decides.) The weights start at 1/S,
    are kept at 0 or above, and count as shares of their sum; should all be 0, alike. The authors' code applies a
    softmax more to the sum than cross entropy already does, and keeps the epoch of least loss; here it is the last.

    Args:
        num_shards: S.
    """

    def __init__(self, num_shards: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((num_shards,), 1.0 / num_shards))

    def forward(self, tables: Sequence[Encoded], votes: Tensor) -> Encoded:
        """Representations; only the zeros of ``votes`` (U, S) matter."""
        weight = self.weight.clamp_min(0)
        weight = torch.where(weight.sum() > 0, weight, torch.ones_like(weight))
        together: Encoded = MeanOfScores()(tables, (votes > 0) * (weight / weight.sum()))
        return together

    def terms(self, tables: Sequence[Encoded], votes: Tensor, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy of each example, (B,), and the penalty.

        Args:
            tables: of the shards.
            votes: (U, S).
            users: (B,).
            items: (B, 1 + n), the positive first.
        """
        with torch.no_grad():
            self.weight.clamp_(min=0)  # what the step before may have pushed below
        scores = torch.stack(
            [torch.einsum("bd,bnd->bn", table.users[users], table.items[items]) for table in tables], dim=-1
        )
        logits = torch.einsum("bns,bs->bn", scores, (votes[users] > 0) * self.weight)
        return -logits.log_softmax(1)[:, 0], torch.linalg.vector_norm(self.weight)


class Attention(nn.Module):
    r"""RecEraser's aggregator (Chen et al., WWW 2022, equations 9 to 13).

    .. math:: e'_s = e_s W_s + b_s, \qquad a_s = \mathrm{softmax}_s\big(h^\top \mathrm{ReLU}(W^\top e'_s + b)\big),
              \qquad e = \sum_s a_s e'_s

    with W_s and b_s shared by users and items, and attentions of their own, of width D / 2, as in the authors' code;
    its initial values too. A shard that has no say about a user is left out of the user's softmax; in the code its
    untrained row takes part.

    Args:
        num_shards: S.
        dim: D.
        seed: of the initial values.
    """

    def __init__(self, num_shards: int, dim: int, seed: int) -> None:
        super().__init__()
        stream = randomness.generator(seed, "initialisation/aggregator")
        hidden = max(dim // 2, 1)
        self.transform = nn.Parameter(0.01 * torch.randn(num_shards, dim, dim, generator=stream))
        self.shift = nn.Parameter(0.01 * torch.randn(num_shards, dim, generator=stream))
        scale = (2.0 / (hidden + dim)) ** 0.5
        self.hidden = nn.ParameterDict()
        for side in ("user", "item"):
            first = torch.empty(dim, hidden)
            nn.init.trunc_normal_(first, std=scale, a=-2 * scale, b=2 * scale, generator=stream)
            self.hidden[f"{side}_weight"] = nn.Parameter(first)
            self.hidden[f"{side}_bias"] = nn.Parameter(torch.zeros(hidden))
            self.hidden[f"{side}_query"] = nn.Parameter(torch.full((hidden,), 0.01))

    def weights(self, x: Tensor, side: str, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Attention (N, S), rows that sum to 1, and the transformed vectors (N, S, D) of ``x`` (N, S, D)."""
        moved = torch.einsum("nsd,sdk->nsk", x, self.transform) + self.shift
        hidden = torch.relu(moved @ self.hidden[f"{side}_weight"] + self.hidden[f"{side}_bias"])
        logits = hidden @ self.hidden[f"{side}_query"]
        if mask is not None:
            logits = logits.masked_fill(~mask, -torch.inf)
        return logits.softmax(1), moved

    def forward(self, tables: Sequence[Encoded], votes: Tensor) -> Encoded:
        """Representations (U, D) and (I, D); only the zeros of ``votes`` (U, S) matter."""
        attention, moved = self.weights(torch.stack([t.users for t in tables], 1), "user", votes > 0)
        users = (attention.unsqueeze(2) * moved).sum(1)
        attention, moved = self.weights(torch.stack([t.items for t in tables], 1), "item", None)
        return Encoded(users, (attention.unsqueeze(2) * moved).sum(1))
