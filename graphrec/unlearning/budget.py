"""How much may be forgotten approximately before a full retraining is due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from graphrec.errors import InputError
from graphrec.unlearning.methods.base import Exactness


@dataclass(frozen=True)
class Budget:
    """What may add up over requests since the last exact one; errors of approximate methods add up too.

    Attributes:
        share: of the training edges of the last exact model that may be forgotten approximately.
        requests: that may be met approximately.
        utility: relative loss of the selection metric on those who stay that may add up.
    """

    share: float = 0.1
    requests: int = 20
    utility: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.requests < 1 or not 0 < self.utility <= 1:
            raise InputError(f"a budget has shares in (0, 1] and at least one request, found {self}.")


@dataclass(frozen=True)
class Spent:
    """What has been spent since the last exact model.

    Attributes:
        edges: training edges forgotten approximately.
        of: training edges of the last exact model.
        requests: met approximately.
        utility: relative loss of Recall@k (of the run's longest list) on those who stay, summed over requests; gains do
            not count against it.
    """

    edges: int = 0
    of: int = 0
    requests: int = 0
    utility: float = 0.0

    @classmethod
    def read(cls, config: Mapping[str, Any], edges: int) -> Spent:
        """What a run's config says; a run that never forgot has spent nothing of its ``edges``."""
        kept = config.get("unlearning", {}).get("spent")
        return cls(**kept) if kept else cls(of=edges)

    def after(self, exactness: Exactness, edges: int, left: int, utility: float) -> Spent:
        """What is spent once a request is met: nothing after an exact one.

        Args:
            exactness: of what was done.
            edges: training edges that were forgotten.
            left: training edges that remain.
            utility: relative loss of the metric.
        """
        if exactness == "exact":
            return Spent(of=left)
        if not edges:
            return self
        return Spent(self.edges + edges, self.of, self.requests + 1, self.utility + max(utility, 0.0))

    def over(self, budget: Budget) -> str | None:
        """Which part of the budget is spent, None where none is."""
        if self.edges > budget.share * max(self.of, 1):
            return f"{self.edges:,} of {self.of:,} training edges, more than the share of {budget.share:g}"
        if self.requests > budget.requests:
            return f"{self.requests} requests, more than {budget.requests}"
        if self.utility > budget.utility:
            return f"{self.utility:.3f} of the metric on those who stay, more than {budget.utility:g}"
        return None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)
