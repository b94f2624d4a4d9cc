"""Who pays for forgetting: utility of the most active users beside that of the others (CURE4Rec)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from graphrec.unlearning.evidence.measures import Measure, Row, measured

ACTIVE = 0.05


def active_users(activity: Tensor, share: float = ACTIVE) -> Tensor:
    """(B,) bool, the ``share`` with the most training items; of equal ones the first."""
    size = max(1, round(share * len(activity))) if len(activity) else 0
    out = torch.zeros(len(activity), dtype=torch.bool)
    out[activity.argsort(descending=True, stable=True)[:size]] = True
    return out


def fairness_measures(
    values: Mapping[Row, Sequence[Mapping[str, Tensor]]], activity: Tensor, metrics: Sequence[str]
) -> list[Measure]:
    """Means of both groups and their ``gap`` (active - inactive) by row; CURE4Rec (NeurIPS 2024) takes the top 5 %.

    Its code cuts the groups by all interactions and takes the metric's best test epoch; here groups are by remaining
    training items, the same for every row.

    Args:
        values: per-user metrics (T,) of each model of each row.
        activity: (T,) remaining training items of the same users.
        metrics: keys.
    """
    active = active_users(activity)
    if not bool(active.any()) or bool(active.all()):
        return []
    out: list[Measure] = []
    for key in metrics:
        of = {row: [model[key] for model in models] for row, models in values.items()}
        for group, member in (("active", active), ("inactive", ~active)):
            means = {row: [float(one[member].mean()) for one in models] for row, models in of.items()}
            out += measured("fairness", key, means, group=group, count=int(member.sum()))
        gaps = {row: [float(one[active].mean() - one[~active].mean()) for one in models] for row, models in of.items()}
        out += measured("fairness", f"{key}/gap", gaps, count=len(activity))
    return out
