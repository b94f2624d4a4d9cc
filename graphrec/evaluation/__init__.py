"""Full ranking of all items, the metrics of its lists, and comparisons of models."""

from __future__ import annotations

from graphrec.evaluation.comparison import Comparison, compare, intervals
from graphrec.evaluation.evaluator import evaluate
from graphrec.evaluation.ranking import UserItems, rank
from graphrec.evaluation.result import Evaluation
from graphrec.evaluation.specs import METRICS, MetricSpec

__all__ = [
    "METRICS",
    "Comparison",
    "Evaluation",
    "MetricSpec",
    "UserItems",
    "compare",
    "evaluate",
    "intervals",
    "rank",
]
