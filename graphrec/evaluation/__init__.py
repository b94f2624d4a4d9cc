"""Full ranking of all items and the metrics of its lists, click prediction, completion, and comparisons of models."""

from __future__ import annotations

from graphrec.evaluation.click import CLICK_METRICS, ClickEvaluation, evaluate_clicks
from graphrec.evaluation.comparison import Comparison, compare, intervals
from graphrec.evaluation.completion import Completion, evaluate_completion
from graphrec.evaluation.evaluator import evaluate_ranking
from graphrec.evaluation.held_out import HeldOut, hold_out_triples
from graphrec.evaluation.ranking import rank
from graphrec.evaluation.result import Evaluation
from graphrec.evaluation.specs import METRICS, MetricSpec
from graphrec.evaluation.tasks import evaluate
from graphrec.evaluation.user_items import UserItems

__all__ = [
    "CLICK_METRICS",
    "METRICS",
    "ClickEvaluation",
    "Comparison",
    "Completion",
    "Evaluation",
    "HeldOut",
    "MetricSpec",
    "UserItems",
    "compare",
    "evaluate",
    "evaluate_clicks",
    "evaluate_completion",
    "evaluate_ranking",
    "hold_out_triples",
    "intervals",
    "rank",
]
