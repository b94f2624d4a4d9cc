"""How far a model is from the retrained one: in its scores, in its distributions over items, in its vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from graphrec.evaluation.scoring import evaluating, score_blocks
from graphrec.influence.attribution_metrics import spearman as rank_correlation
from graphrec.unlearning.evidence.measures import BEFORE, RETRAINED, UNLEARNED, Measure, Row, mean_and_sd, measured
from graphrec.unlearning.evidence.pairs import PairSet
from graphrec.unlearning.evidence.views import View

Values = Mapping[Row, Sequence[Tensor]]


def rmse(first: Tensor, second: Tensor) -> float:
    """Root mean square difference of two vectors of scores; NaN for none."""
    return float((first - second).square().mean().sqrt()) if len(first) else math.nan


def spearman(first: Tensor, second: Tensor) -> float:
    """Correlation of ranks, equal values sharing theirs; NaN where one has a single value."""
    return rank_correlation(first.numpy(), second.numpy()) if len(first) > 1 else math.nan


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """½ KL(p‖m) + ½ KL(q‖m) with m = (p + q) / 2, in nats: (B, I) distributions -> (B,), at most log 2."""
    middle = (p + q) / 2
    return 0.5 * (_kl(p, middle) + _kl(q, middle))


def jeffreys(p: Tensor, q: Tensor) -> Tensor:
    """KL(p‖q) + KL(q‖p) in nats: (B, I) -> (B,); not bounded, and half of it is no Jensen-Shannon divergence."""
    return _kl(p, q) + _kl(q, p)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return torch.where(p > 0, p * (p.log() - q.log()), 0.0).sum(1)


def procrustes(first: Tensor, second: Tensor) -> tuple[float, float]:
    r"""‖A Q - B‖ / ‖B‖ for tables (N, D): with the best rotation Q, and with none.

    Scores are the same for A and A Q with any orthogonal Q, so that the plain distance means nothing for tables of
    embeddings. :math:`Q = U V^\top` with :math:`A^\top B = U \Sigma V^\top` (Schönemann 1966).
    """
    a, b = first.double(), second.double()
    size = b.norm()
    if not len(a) or float(size) == 0 or a.shape != b.shape:
        return math.nan, math.nan
    u, _, v = torch.linalg.svd(a.T @ b)
    return float((a @ (u @ v) - b).norm() / size), float((a - b).norm() / size)


def relative_residual(after: Tensor, before: Tensor, retrained: Tensor) -> float:
    """‖s^u - s^r‖ / ‖s* - s^r‖: 0 is retraining, 1 as good as doing nothing, more is harmful."""
    scale = (before - retrained).norm()
    return float((after - retrained).norm() / scale) if float(scale) > 0 else math.nan


def scores_of(view: View, pairs: PairSet) -> Tensor:
    """(P,) float64 scores of pairs, users in blocks."""
    users, row = pairs.users.unique(return_inverse=True)
    order = row.argsort(stable=True)
    first = torch.searchsorted(row[order].contiguous(), torch.arange(len(users) + 1))
    out = torch.empty(len(pairs), dtype=torch.float64)
    with evaluating(view.model):
        scorer = view.scorer()
        for part in score_blocks(scorer, users.to(scorer.device), None):
            which = order[int(first[part.start]) : int(first[part.start + len(part.users)])]
            inner = (row[which] - part.start).to(scorer.device)
            out[which] = part.scores[inner, pairs.items[which].to(scorer.device)].double().cpu()
    return out


def prediction_measures(scores: Values, group: str, count: int, apart: Sequence[int] | None = None) -> list[Measure]:
    """RMSE and Spearman's correlation of the scores of a fixed sample of pairs with each retrained model's.

    Args:
        scores: (P,) of each model of each row.
        group: what the sample is.
        count: its size.
        apart: which retrained models the other rows are compared with; None: all.
    """
    out: list[Measure] = []
    for name, function in (("rmse", rmse), ("spearman", spearman)):
        rows = _against(scores, function, apart)
        out += measured("distance", name, rows, group=group, count=count)
    return out


def _against(
    values: Values, function: Callable[[Tensor, Tensor], float], apart: Sequence[int] | None
) -> dict[Row, list[float]]:
    """The mean of ``function`` over the retrained models by row; for these between any two of them."""
    references = values.get(RETRAINED, ())
    held = [references[n] for n in (range(len(references)) if apart is None else apart)]
    out: dict[Row, list[float]] = {}
    for row, models in values.items():
        if row == RETRAINED:
            between = [function(one, other) for n, one in enumerate(models) for other in models[n + 1 :]]
            if between:
                out[row] = between
        elif references:
            out[row] = [mean_and_sd([function(one, other) for one in models for other in held])[0]]
    return out


def distribution_measures(
    views: Mapping[Row, Sequence[View]], users: Tensor, items: Tensor, apart: Sequence[int] | None = None
) -> list[Measure]:
    """Jensen-Shannon and Jeffreys divergence of the users' softmax over all items, and the L2 distance of the two
    (activation distance), to the retrained models.

    Args:
        views: the models.
        users: (B,) users that every model has a row for.
        items: (P,) items that every model has a row for.
        apart: which retrained models the other rows are compared with; None: all.
    """
    named = [(row, one) for row, models in views.items() for one in models]
    references = [n for n, (row, _) in enumerate(named) if row == RETRAINED]
    if not references or not len(users) or not len(items):
        return []
    kinds = {"jensen_shannon": jensen_shannon, "jeffreys": jeffreys, "activation": _euclidean}
    held = [references[n] for n in (range(len(references)) if apart is None else apart)]
    compared = [(n, r) for n, (row, _) in enumerate(named) if row != RETRAINED for r in held]
    compared += [(n, r) for n in references for r in references if n < r]
    totals = {name: dict.fromkeys(compared, 0.0) for name in kinds}
    for block in users.split(64):
        tables = [_softmax(one, block, items) for _, one in named]
        for n, r in compared:
            for name, function in kinds.items():
                totals[name][n, r] += float(function(tables[n], tables[r]).sum())
    out: list[Measure] = []
    for name, sums in totals.items():
        values: dict[Row, list[float]] = {}
        for (n, _), total in sums.items():
            values.setdefault(named[n][0], []).append(total / len(users))
        rows = {row: found if row == RETRAINED else [mean_and_sd(found)[0]] for row, found in values.items()}
        out += measured("distance", name, rows, count=len(users))
    return out


def _softmax(view: View, users: Tensor, items: Tensor) -> Tensor:
    with evaluating(view.model):
        scorer = view.scorer()
        return scorer(users.to(scorer.device)).cpu()[:, items].double().softmax(1)


def _euclidean(p: Tensor, q: Tensor) -> Tensor:
    return (p - q).norm(dim=1)


def vector_measures(
    views: Mapping[Row, Sequence[View]], users: Tensor, items: Tensor, apart: Sequence[int] | None = None
) -> list[Measure]:
    """Distance of embedding tables and of final representations to the retrained models', aligned and plain.

    Args:
        views: the models.
        users: (B,) users with a remaining training edge; the rows of others are whatever they were drawn as.
        items: (P,) likewise.
        apart: which retrained models the other rows are compared with; None: all.
    """
    spaces = {
        "representations": {row: [_final(one, users, items) for one in models] for row, models in views.items()},
        "parameters": {row: [_tables(one, users, items) for one in models] for row, models in views.items()},
    }
    out: list[Measure] = []
    for space, tables in spaces.items():
        if any(table is None for models in tables.values() for table in models):
            continue
        known = {row: [table for table in models if table is not None] for row, models in tables.items()}
        for n, name in enumerate(("aligned", "plain")):
            rows = _against(known, (_aligned, _plain)[n], apart)
            out += measured("distance", f"{space}/{name}", rows, count=len(users) + len(items))
    return out


def _aligned(first: Tensor, second: Tensor) -> float:
    return procrustes(first, second)[0]


def _plain(first: Tensor, second: Tensor) -> float:
    return procrustes(first, second)[1]


def _final(view: View, users: Tensor, items: Tensor) -> Tensor | None:
    found = view.encoded
    return None if found is None else torch.cat([found.users.cpu()[users], found.items.cpu()[items]])


def _tables(view: View, users: Tensor, items: Tensor) -> Tensor | None:
    """The tables of users and items one below the other; None where their widths differ or one is missing."""
    kinds = view.model.row_parameters
    tables = {kinds[name]: table.cpu() for name, table in view.tables().items()}
    if set(tables) < {"user", "item"} or len({table.shape[1] for table in tables.values()}) != 1:
        return None
    return torch.cat([tables["user"][users], tables["item"][items]])


def residual_measures(scores: Values, same_seed: int | None, count: int) -> list[Measure]:
    """The relative residual on pairs that the request touches, against the retrained model of the same seed.

    Args:
        scores: (P,) of each model of each row.
        same_seed: which retrained model that is; None: there is none, and the mean over all is taken.
        count: pairs.
    """
    references = scores.get(RETRAINED, ())
    if BEFORE not in scores or not references or not count:
        return []
    chosen = list(range(len(references))) if same_seed is None else [same_seed]
    start = scores[BEFORE][0]
    rows: dict[Row, list[float]] = {}
    for row in (BEFORE, UNLEARNED):
        for one in scores.get(row, ()):
            rows[row] = [mean_and_sd([relative_residual(one, start, references[n]) for n in chosen])[0]]
    between = [
        relative_residual(references[m], start, references[n]) for n in chosen for m in range(len(references)) if m != n
    ]
    if between:
        rows[RETRAINED] = [mean_and_sd(between)[0]]
    found = measured("distance", "relative_residual", rows, group="touched", count=count)
    # Its aim is 0; what another seed comes to is no target.
    return [replace(one, gap=math.nan, gap_sd=math.nan) for one in found]
