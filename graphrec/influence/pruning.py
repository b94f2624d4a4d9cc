r"""Training on less: the edges that a validation loss can do without.

The influence of an edge on a loss, :math:`I(e) = f(\text{without } e) - f`, says how useful the edge is: a positive
one is missed, a negative one does harm. Edges are dropped from the least useful up. Single influences add up to what a
group does only while the group is small, so that the curve is measured by training again, and beside it stands dropping
as many edges at random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.influence.objective import Objective
from graphrec.randomness import derive
from graphrec.reports.svg import Series, line_chart

Retrain = Callable[[NDArray[np.int64], int], Mapping[str, float]]
"""``(positions of the dropped edges, seed) -> metrics`` of a model trained without them."""


def least_useful(influence: NDArray[np.float64], share: float) -> NDArray[np.int64]:
    """Positions of the share of edges with the lowest influence on a loss, lowest first.

    Raises:
        InputError: a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise InputError(f"share must lie in [0, 1), found {share}.")
    return np.argsort(influence, kind="stable")[: round(share * len(influence))]


def at_random(edges: int, share: float, seed: int) -> NDArray[np.int64]:
    """As many positions, drawn; a larger share holds the smaller ones of the same seed."""
    order = np.random.default_rng(derive(seed, "pruning/random")).permutation(edges)
    return order[: round(share * edges)]


def pruned(data: RecDataset, made: Objective, dropped: NDArray[np.int64]) -> RecDataset:
    """The dataset without the training edges at some positions of the objective's edge list."""
    return data.without({made.target: made.edge_id.cpu().numpy()[dropped]})


@dataclass(frozen=True, eq=False)
class PruningCurve:
    """Metrics after dropping more and more edges.

    Attributes:
        shares: dropped, 0 first.
        values: by how they were chosen (``influence``, ``random``, ``most useful``) and by metric, (shares, seeds).
    """

    shares: tuple[float, ...]
    values: Mapping[str, Mapping[str, NDArray[np.float64]]]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "shares": list(self.shares),
            "values": {
                kind: {name: table.tolist() for name, table in by_metric.items()}
                for kind, by_metric in self.values.items()
            },
        }

    def chart(self, metric: str) -> str:
        """The means over seeds as an SVG line chart."""
        series = [
            Series(kind, [100 * share for share in self.shares], by_metric[metric].mean(1).tolist())
            for kind, by_metric in self.values.items()
        ]
        return line_chart(f"{metric} after dropping edges", series, "training edges dropped, %", metric)


def pruning_curve(
    influence: NDArray[np.float64],
    retrain: Retrain,
    *,
    shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5),
    seeds: Sequence[int] = (0,),
    most_useful: bool = False,
) -> PruningCurve:
    """Drop the least useful edges, and as many at random, train and measure.

    Args:
        influence: (E,) on a loss.
        retrain: trains without some edges and measures; called once for each kind, share and seed.
        shares: ascending within (0, 1).
        seeds: of trainings, and of the random choice.
        most_useful: whether the most useful edges are dropped too, which should hurt more than chance.

    Raises:
        InputError: shares that do not ascend within (0, 1), or no seeds.
    """
    shares = [float(share) for share in shares]
    if not shares or shares != sorted(set(shares)) or not 0 < shares[0] <= shares[-1] < 1:
        raise InputError(f"shares must ascend within (0, 1), found {shares}.")
    if not seeds:
        raise InputError("at least one seed is needed.")
    nothing = np.empty(0, dtype=np.int64)
    whole = [retrain(nothing, seed) for seed in seeds]
    choices: dict[str, Callable[[float, int], NDArray[np.int64]]] = {
        "influence": lambda share, seed: least_useful(influence, share),
        "random": lambda share, seed: at_random(len(influence), share, seed),
    }
    if most_useful:
        choices["most useful"] = lambda share, seed: least_useful(-influence, share)
    values = {}
    for kind, chosen in choices.items():
        rows = [whole] + [[retrain(chosen(share, seed), seed) for seed in seeds] for share in shares]
        values[kind] = {name: np.array([[cell[name] for cell in row] for row in rows]) for name in whole[0]}
    return PruningCurve((0.0, *shares), values)
