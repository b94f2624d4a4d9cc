"""``evaluate``: a model measured on the task it is for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import unknown
from graphrec.evaluation import beyond_accuracy
from graphrec.evaluation.click import ClickEvaluation, Last, Scaling, evaluate_clicks
from graphrec.evaluation.evaluator import evaluate_ranking
from graphrec.evaluation.protocol import Candidates, Cold, Mask
from graphrec.evaluation.result import Evaluation
from graphrec.evaluation.scoring import Scores
from graphrec.models.base import Encoded, GraphRecommender
from graphrec.runs import Run

if TYPE_CHECKING:
    from os import PathLike

    from graphrec.serving import Recommender

Task = Literal["rank", "ctr"]

_TASKS: dict[str, Callable[..., Any]] = {"rank": evaluate_ranking, "ctr": evaluate_clicks}


@overload
def evaluate(
    model: GraphRecommender | Encoded | Scores | Run | Recommender | str | PathLike[str],
    data: RecDataset | None = None,
    *,
    task: Literal["rank"] = "rank",
    split: str = "test",
    ks: int | Sequence[int] = (10, 20),
    metrics: str | Iterable[str] | None = None,
    mask: Mask = "train",
    cold: Cold = "keep",
    candidates: Candidates = "all",
    sampled_negatives: int | None = None,
    seed: int = 0,
    features: str | np.ndarray | Tensor | None = None,
    tail: float = beyond_accuracy.TAIL_SHARE,
    block: int | None = None,
    memory: int | None = None,
    device: str | torch.device | None = None,
) -> Evaluation: ...


@overload
def evaluate(
    model: GraphRecommender | Encoded | Scores | Run | Recommender | str | PathLike[str],
    data: RecDataset | None = None,
    *,
    task: Literal["ctr"],
    split: str = "test",
    auc_batch_size: int = 1024,
    auc_batch_last: Last = "keep",
    bins: int = 15,
    scaling: Scaling = "none",
    scaled_on: str = "valid",
    cold: Cold = "keep",
    block: int | None = None,
    device: str | torch.device | None = None,
) -> ClickEvaluation: ...


def evaluate(
    model: GraphRecommender | Encoded | Scores | Run | Recommender | str | PathLike[str],
    data: RecDataset | None = None,
    *,
    task: Task = "rank",
    **options: Any,
) -> Evaluation | ClickEvaluation:
    """Measure a model on one part of a dataset.

    Args:
        model: a model, a run, a recommender or the path of a run; or final representations, or a function of users (B,)
            that gives scores (B, I).
        data: the dataset; None: the run's own, loaded again.
        task: ``rank`` orders all items for every user and measures the lists
            (:func:`graphrec.evaluation.evaluate_ranking`); ``ctr`` scores labelled pairs and measures how well they are
            told apart (:func:`graphrec.evaluation.evaluate_clicks`).
        **options: of the task's function.

    Returns:
        A mapping of keys such as ``recall@20`` or ``auc`` to values, with the values of each user in ``per_user``.

    Raises:
        InputError: an unknown task, an option that the task does not have, or what the task's function refuses.
    """
    if task not in _TASKS:
        raise unknown("task", str(task), _TASKS)
    function = _TASKS[task]
    known = [name for name in inspect.signature(function).parameters if name not in ("model", "data")]
    for name in options:
        if name not in known:
            raise unknown(f"option of evaluate(task={task!r})", name, known)
    found: Evaluation | ClickEvaluation = function(model, data, **options)
    return found
