"""What is asked of a model: quantities that influence is the influence on, as functions of parameters and edges."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.graphs.sampling import sample_negatives
from graphrec.influence.objective import Objective
from graphrec.randomness import derive

Query = Callable[[Tensor, Tensor | None], Tensor]
"""``(theta (P,), weights of the graph's edges (E,) or None) -> (Q,)``: Q quantities, on some of the edges."""


def score_query(made: Objective, users: Tensor, items: Tensor) -> Query:
    """The scores of Q pairs, users (Q,) and items (Q,) int64."""
    return lambda theta, weight: made.pair_scores(theta, users, items, weight)


def loss_query(made: Objective, users: Tensor, items: Tensor, negatives: Tensor) -> Query:
    r"""One quantity, the mean of softplus(y_uj - y_ui) over (V,) pairs and their (V, n) negatives."""
    count = negatives.shape[1]
    everyone = users.repeat_interleave(count + 1)
    listed = torch.cat([items[:, None], negatives], 1).reshape(-1)

    def loss(theta: Tensor, weight: Tensor | None) -> Tensor:
        scores = made.pair_scores(theta, everyone, listed, weight).view(-1, count + 1)
        return functional.softplus(scores[:, 1:] - scores[:, :1]).mean()[None]

    return loss


def part_loss(
    made: Objective, data: RecDataset, part: str = "valid", *, num_negatives: int = 10, seed: int = 0
) -> Query:
    """:func:`loss_query` of the pairs of a part of the dataset, with negatives drawn once by hash.

    Negatives are no training pairs of their user; which they are does not depend on the other pairs of the part.

    Raises:
        InputError: the dataset has no such part.
    """
    pairs = data.pairs(part)
    if len(pairs) == 0:
        raise InputError(f"dataset {data.name!r} has no pairs in its part {part!r}.")
    users = torch.as_tensor(pairs.users.copy(), device=made.device)
    items = torch.as_tensor(pairs.items.copy(), device=made.device)
    matrix = made.model.graph_inputs.adjacency()
    drawn = sample_negatives(matrix, users, num_negatives, seed=derive(seed, "query/negatives"), keys=items)
    return loss_query(made, users, items, drawn)


def differentiated(query: Query, theta: Tensor, made: Objective) -> tuple[Tensor, Tensor, Tensor]:
    """Values (Q,), derivatives in the parameters (Q, P), and those in the weights of the graph's edges (Q, E)."""
    with torch.enable_grad():
        theta, weight = theta.detach().requires_grad_(), made.ones().requires_grad_()
        values = query(theta, weight)
        rows = [
            torch.autograd.grad(value, (theta, weight), retain_graph=True, allow_unused=True, materialize_grads=True)
            for value in values
        ]
    slopes, direct = (torch.stack(parts).detach() for parts in zip(*rows, strict=True))
    return values.detach(), slopes, direct
