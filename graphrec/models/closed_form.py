"""What the closed forms share: a solution kept in buffers whose size is known once it is computed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.neighbourhood import WORKING_MEMORY, sparse_times_sparse
from graphrec.layers.spmm import spmm
from graphrec.models.base import Derived, EdgeWeight, GraphInputs, GraphRecommender, target_weight


class ClosedForm(GraphRecommender):
    """Base of models whose score is a function ``r f(R)`` of a history row r and of the training matrix R.

    :meth:`solve` computes f(R) and keeps it in buffers, which are None before; a saved solution is loaded into a model
    that was not solved. A user without history scores 0 everywhere; whoever ranks such users falls back on popularity.
    Users are scored in blocks under :data:`~graphrec.layers.neighbourhood.WORKING_MEMORY`, and a user's scores do not
    depend on the block.
    """

    # The buffers that solve() makes.
    solution: ClassVar[tuple[str, ...]] = ()

    def __init__(self, inputs: GraphInputs | RecDataset, **hparams: Any) -> None:
        super().__init__(inputs, **hparams)
        for name in self.solution:
            self.register_buffer(name, None)

    @property
    def solved(self) -> bool:
        """Whether the solution is there."""
        return all(self._buffers[name] is not None for name in self.solution)

    def interactions(self) -> Adjacency:
        """R, the training matrix (U, I); ones."""
        return self.graph_inputs.adjacency()

    @abstractmethod
    def score_rows(self, history: Adjacency) -> Tensor:
        """Scores (B, I) of B history rows, a sparse (B, I) matrix whose values are float32 or ones."""

    @abstractmethod
    def score_dense(self, history: Tensor) -> Tensor:
        """Scores (I, B) of B history rows given as the columns of a dense (I, B) matrix; differentiable in it.

        The slow and plain counterpart of :meth:`score_rows`.
        """

    def score(self, users: Tensor, items: Tensor | None = None, *, edge_weight: EdgeWeight = None) -> Tensor:
        """Scores of users, a function of their training rows.

        Args:
            users: (B,) int64.
            items: None for all items, (P,), or (B, P).
            edge_weight: what the user's own entries in the history are multiplied by, (E,) in edge-list order;
                differentiable. The solution stays as it is.

        Returns:
            (B, I), (B, P) and (B, P) float32.
        """
        self._check_solved()
        users = users.to(self.device)
        rows = self.interactions().row_subset(users)
        weight = target_weight(edge_weight, self.graph_inputs.target)
        if weight is None:
            rows = self.history(rows)
            return self._in_blocks(rows, items)
        values = self.history_values(rows)
        given = rows.stored(weight) if values is None else rows.stored(weight) * values
        dense = torch.zeros(len(users), self.num_items, dtype=given.dtype, device=given.device)
        dense = dense.index_put((rows.rows().long(), rows.col.long()), given, accumulate=True)
        return pick(self.score_dense(dense.T).T, items)

    def score_history(self, items: Tensor, weight: Tensor | None = None) -> Tensor:
        """Scores (I,) of somebody known by a list of items: exactly those of a user with that training row."""
        self._check_solved()
        items = items.to(self.device).long()
        edge_index = torch.stack([torch.zeros_like(items), items])
        values = None if weight is None else weight.to(self.device).float()
        history = Adjacency.from_edges(edge_index, (1, self.num_items), values=values)
        return self.score_rows(history)[0]

    def history(self, rows: Adjacency) -> Adjacency:
        """Some rows of R as they enter the score."""
        values = self.history_values(rows)
        return replace(rows, values=values, edge_id=None, edge=None, num_edges=len(rows), cache={})

    def history_values(self, rows: Adjacency) -> Tensor | None:
        """The values of these entries, (E,) in stored order; None: ones."""
        return None

    def derived(self) -> Mapping[str, Derived]:
        """All of the solution is made from the training edges."""
        return {name: Derived((self.graph_inputs.target,), self.solve) for name in self.solution}

    def bytes_per_user(self) -> int:
        """What one user costs in temporaries while scored."""
        return 4 * self.num_items

    def _in_blocks(self, rows: Adjacency, items: Tensor | None) -> Tensor:
        count = rows.shape[0]
        size = max(1, WORKING_MEMORY // max(self.bytes_per_user(), 1))
        if count <= size:
            return pick(self.score_rows(rows), items)
        parts = []
        for start in range(0, count, size):
            index = torch.arange(start, min(start + size, count), device=self.device)
            own = items[start : start + size] if items is not None and items.dim() == 2 else items
            parts.append(pick(self.score_rows(rows.row_subset(index)), own))
        return torch.cat(parts)

    def _check_solved(self) -> None:
        if not self.solved:
            raise InputError(f"{type(self).__name__} is not solved yet: call fit(model, data) or model.solve().")

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        # A solution has the size that its data give it: make room for what is stored.
        for name in self.solution:
            stored = state_dict.get(prefix + name)
            present = self._buffers[name]
            if stored is not None and (present is None or present.shape != stored.shape):
                self._buffers[name] = torch.empty_like(stored, device=self.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


class ItemWeights(ClosedForm):
    """Base of linear item-item models, ``scores = r W`` with a sparse (I, I) matrix W, rows the sources."""

    solution: ClassVar[tuple[str, ...]] = ("weight_rowptr", "weight_col", "weight_value")

    weight_rowptr: Tensor
    weight_col: Tensor
    weight_value: Tensor

    def __init__(self, inputs: GraphInputs | RecDataset, **hparams: Any) -> None:
        super().__init__(inputs, **hparams)
        self._weights: Adjacency | None = None

    def weights(self) -> Adjacency:
        """W."""
        self._check_solved()
        made = self._weights
        if made is None or made.values is not self.weight_value or made.device != self.weight_value.device:
            shape = (self.num_items, self.num_items)
            made = self._weights = Adjacency(self.weight_rowptr, self.weight_col, shape, self.weight_value)
        return made

    def set_weights(self, weights: Adjacency) -> None:
        """Keep W as the solution."""
        self.weight_rowptr, self.weight_col = weights.rowptr, weights.col
        assert weights.values is not None
        self.weight_value = weights.values
        self._weights = None

    def score_rows(self, history: Adjacency) -> Tensor:
        """``r W``, both sparse."""
        return sparse_times_sparse(history, self.weights())

    def score_dense(self, history: Tensor) -> Tensor:
        """``Wᵀ rᵀ``, r dense."""
        return spmm(self.weights().transposed, history.float())


def pick(scores: Tensor, items: Tensor | None) -> Tensor:
    """The columns of scores (B, I) asked for: None for all, (P,) the same for all rows, (B, P) each row's own."""
    if items is None:
        return scores
    items = items.to(scores.device)
    return scores[:, items] if items.dim() == 1 else scores.gather(1, items)
