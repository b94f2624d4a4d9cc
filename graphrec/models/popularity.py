"""Popularity: the same list for everybody."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.models.base import EdgeWeight, GraphInputs, target_weight
from graphrec.models.closed_form import ClosedForm, pick


class Popularity(ClosedForm):
    r"""Number of training interactions of an item, the floor of every table.

    .. math:: y_{ui} = \sum_{(v, i) \in R} 2^{-(T - t_{vi}) / h} \, [T - t_{vi} \le w]

    with T the time of the last training interaction; without window w and half-life h it is the degree d_i. Users
    without history get the same scores as everybody else: this is the fallback of the other models.

    Args:
        inputs: the dataset or the inputs taken from it.
        window: w, only interactions within this span before the last one count, in the dataset's unit of time; None:
            all.
        half_life: h, the span after which an interaction counts half; None: all count alike.

    Raises:
        InputError: a window or a half-life is given, but the interactions have no times.
    """

    solution = ("popularity",)
    popularity: Tensor

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        window: float | None = None,
        half_life: float | None = None,
    ) -> None:
        for name, value in (("window", window), ("half_life", half_life)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise InputError(f"{name} must be above 0 or None, found {value}.")
        super().__init__(inputs, window=window, half_life=half_life)
        self.window = window
        self.half_life = half_life

    def solve(self) -> None:
        """Count."""
        self.popularity = self._count(self._edge_weight()).float()

    def score(self, users: Tensor, items: Tensor | None = None, *, edge_weight: EdgeWeight = None) -> Tensor:
        """The popularity of the items, for each user; ``edge_weight`` multiplies what each training edge adds."""
        self._check_solved()
        users = users.to(self.device)
        weight = target_weight(edge_weight, self.graph_inputs.target)
        counts = self.popularity
        if weight is not None:
            counts = self._count(self._edge_weight().to(weight.dtype) * weight)
        return pick(counts.expand(len(users), -1), items)

    def score_rows(self, history: Adjacency) -> Tensor:
        """The popularity of all items, whatever the history."""
        return self.popularity.expand(history.shape[0], -1)

    def score_dense(self, history: Tensor) -> Tensor:
        """The popularity of all items, whatever the history."""
        return self.popularity[:, None].expand(-1, history.shape[1])

    def _count(self, weight: Tensor) -> Tensor:
        items = self.graph_inputs.graph[self.graph_inputs.target].edge_index[1]
        return weight.new_zeros(self.num_items).index_add(0, items, weight)

    def _edge_weight(self) -> Tensor:
        """What each edge counts, (E,) float64 in edge-list order."""
        store = self.graph_inputs.graph[self.graph_inputs.target]
        count = store.edge_index.shape[1]
        weight = torch.ones(count, dtype=torch.float64, device=self.device)
        if self.window is None and self.half_life is None:
            return weight
        time = store.get("time")
        if time is None:
            raise InputError(
                "Popularity with window or half_life needs a time for each interaction "
                "(Builder.interactions(time=…)); the dataset has none."
            )
        if count == 0:
            return weight
        age = (time.max() - time).double()
        if self.half_life is not None:
            weight = torch.exp2(-age / self.half_life)
        return weight if self.window is None else weight * (age <= self.window)
