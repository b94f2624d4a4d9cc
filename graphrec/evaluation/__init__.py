"""Full ranking of all items, the metrics of its lists, and comparisons of models."""

from __future__ import annotations

from graphrec.evaluation.ranking import rank

__all__ = ["rank"]
