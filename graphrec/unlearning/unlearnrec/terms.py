"""What one step of either training of UnlearnRec lowers: the model's own loss, and beside it the request's terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.models.base import Batch, PairBatch, Phase
from graphrec.unlearning.unlearnrec import losses
from graphrec.unlearning.unlearnrec.backbone import TakenRows
from graphrec.unlearning.unlearnrec.served import Served, Sharing


@dataclass(frozen=True)
class Weights:
    """What the terms beside the backbone's loss count in one of the two trainings.

    Attributes:
        forget: λ_u, of the scores of the request.
        align: λ_p of the published sum over a batch; times the number of aligned pairs it weighs the mean.
        temperature: τ of the alignment.
        contrast: λ_c.
        pairs: pairs of a batch that are aligned; None: all, as published. The work grows with the square.
        every: steps from one computation of the request's and the alignment's terms to the next; they count so many
            times as much, so that the sum over an epoch is the same.
    """

    forget: float = 1.0
    align: float = 0.005
    temperature: float = 1.0
    contrast: float = 1e-3
    pairs: int | None = 512
    every: int = 1


@dataclass(frozen=True, eq=False)
class Rows:
    """Final rows that the terms of a request are about.

    Attributes:
        request: (n, D) and (m, D), of the users and of the items of the request.
        batch: (B, D) and (B, D), of the users and the items of the batch's pairs, or of the first of them.
    """

    request: tuple[Tensor, Tensor]
    batch: tuple[Tensor, Tensor] | None

    @classmethod
    def of(cls, served: Served, tables: Tensor, batch: Batch, weights: Weights) -> Rows:
        """By a propagation of their own."""
        final, split = served.residual.encode(tables), served.request.shape[0]
        request = final[served.request_users], final[split + served.request_items]
        if not (weights.align and isinstance(batch, PairBatch)):
            return cls(request, None)
        part = aligned(served, weights)
        return cls(request, (final[batch.users[part]], final[split + batch.items[part]]))


def aligned(served: Served, weights: Weights) -> slice:
    """Which pairs of a batch are aligned."""
    return slice(None) if served.exact else slice(weights.pairs)


def step_terms(
    served: Served,
    tables: Tensor,
    phase: Phase,
    batch: Batch,
    weights: Weights,
    step: int,
    contrast: Callable[[PairBatch], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Every term of one step, by name; see :func:`loss_terms`.

    Where the model's own loss scores by the same rows as its ranking does, the request's terms take theirs from the
    same propagation. Whether it does (a model may drop edges or add noise) is found at a request's first step.

    Args:
        served: the request.
        tables: (N, D), Ẽ⁰.
        phase: of the residual model.
        batch: of the phase.
        weights: of the terms.
        step: counts the steps.
        contrast: gives L_c for the batch's nodes.
    """
    if step % weights.every or served.sharing == "none":
        own = served.residual.terms(tables, phase, batch)
        return loss_terms(served, tables, batch, own, weights, step, contrast)
    own, taken = served.residual.terms_and_rows(
        tables, phase, batch, served.request_users, served.request_items, gathered=served.sharing == "gathered"
    )
    if served.sharing == "unknown":
        served.sharing = _sharing(served, tables, batch, taken)
    rows = None
    if taken is not None and served.sharing != "none":
        first = slice(len(batch))
        part = aligned(served, weights)
        rows = Rows(taken.further, (taken.final[0][first][part], taken.final[1][first][part]))
    return loss_terms(served, tables, batch, own, weights, step, contrast, rows)


@torch.no_grad()
def _sharing(served: Served, tables: Tensor, batch: Batch, taken: TakenRows | None) -> Sharing:
    """Whether the rows of a training step are those that score, and how they are had at the least cost."""
    if taken is None or not isinstance(batch, PairBatch):
        return "none"
    final, split = served.residual.split(served.residual.encode(tables.detach())), served.residual.split(tables)
    size = len(batch)
    known = taken.asked[0][:size].equal(batch.users) and taken.asked[1][:size].equal(batch.items)
    request = served.request_users, served.request_items
    if not known or not all(
        _agree(rows, final[side].index_select(0, index))
        for side in (0, 1)
        for rows, index in ((taken.final[side], taken.asked[side]), (taken.further[side], request[side]))
    ):
        return "none"
    ego = all(_agree(taken.ego[side], split[side].index_select(0, taken.asked[side])) for side in (0, 1))
    return "gathered" if ego and sum(map(len, taken.asked)) > len(tables) else "wider"


def _agree(rows: Tensor, known: Tensor) -> bool:
    if rows.shape != known.shape:
        return False
    return not rows.numel() or torch.allclose(rows, known, 1e-3, 1e-4 * float(known.abs().max()))


def loss_terms(
    served: Served,
    tables: Tensor,
    batch: Batch,
    own: Mapping[str, Tensor],
    weights: Weights,
    step: int,
    contrast: Callable[[PairBatch], Tensor] | None = None,
    rows: Rows | None = None,
) -> dict[str, Tensor]:
    """L_M, λ_u L_u, λ_p L_p and λ_c L_c of one step by name.

    Args:
        served: the request.
        tables: (N, D), Ẽ⁰.
        batch: of the residual graph.
        own: the backbone's own terms with these tables. As published, the penalty on rows of its table is a constant
            and left out.
        weights: of the terms.
        step: counts the steps.
        contrast: gives L_c for the batch's nodes.
        rows: that the request's terms are about; None: they are computed.
    """
    terms = {name: term for name, term in own.items() if not (served.exact and name == "reg")}
    if step % weights.every == 0:
        if rows is None:
            rows = Rows.of(served, tables, batch, weights)
        scores = served.scores_of(*rows.request)
        if len(scores):
            if served.exact:
                forget = losses.forget_below(scores)
            else:
                assert served.expected is not None
                forget = losses.forget_to(scores, served.expected.scores, served.expected.scale)
            terms["forget"] = weights.every * weights.forget * forget
        if weights.align and isinstance(batch, PairBatch) and rows.batch is not None:
            part, split = aligned(served, weights), served.request.shape[0]
            teacher = served.teacher[batch.users[part]], served.teacher[split + batch.items[part]]
            if served.exact:
                term = losses.published_alignment(*rows.batch, teacher, weights.temperature)
            else:
                term = len(teacher[0]) * losses.alignment(*rows.batch, teacher, weights.temperature)
            terms["align"] = weights.every * weights.align * term
    if contrast is not None and weights.contrast and isinstance(batch, PairBatch):
        terms["contrast"] = weights.contrast * contrast(batch)
    return terms


def take_step(terms: Mapping[str, Tensor], optimiser: torch.optim.Optimizer) -> None:
    """Lower the sum of the terms.

    Raises:
        InputError: it is not finite.
    """
    loss = torch.stack(list(terms.values())).sum()
    if not bool(torch.isfinite(loss.detach())):
        values = ", ".join(f"{name} {float(term.detach()):.4g}" for name, term in terms.items())
        raise InputError(f"the loss of the influence encoder is not finite ({values}); choose a smaller learning rate.")
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
