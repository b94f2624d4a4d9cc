"""Graph recommenders on heterogeneous graphs: datasets to graphs, training, ranking, explanation, forgetting.

The names below are loaded when they are first used, so that ``import graphrec`` and ``graphrec --help`` are quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphrec import datasets, evaluation, graphs, influence, layers, models, runs, serving, training, unlearning
    from graphrec.evaluation import compare, evaluate
    from graphrec.runs import Run
    from graphrec.serving import Recommender
    from graphrec.training.fit import fit

__version__ = "0.1.0"

_MODULES = (
    "datasets",
    "evaluation",
    "graphs",
    "influence",
    "layers",
    "models",
    "runs",
    "serving",
    "training",
    "unlearning",
)
_NAMES = {
    "Recommender": "graphrec.serving",
    "Run": "graphrec.runs",
    "compare": "graphrec.evaluation",
    "evaluate": "graphrec.evaluation",
    "fit": "graphrec.training",
}

__all__ = [
    "Recommender",
    "Run",
    "compare",
    "datasets",
    "evaluate",
    "evaluation",
    "fit",
    "graphs",
    "influence",
    "layers",
    "models",
    "runs",
    "serving",
    "training",
    "unlearning",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"graphrec.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'graphrec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
