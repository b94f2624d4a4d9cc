"""Methods of forgetting, by name: one file each, one interface."""

from __future__ import annotations

from collections.abc import Mapping

from graphrec.unlearning.methods.alteraser import AltEraser
from graphrec.unlearning.methods.base import Exactness, Outcome, Prepared, Task, Unlearner
from graphrec.unlearning.methods.finetune import Finetune
from graphrec.unlearning.methods.gif import Gif
from graphrec.unlearning.methods.gnndelete import GnnDelete
from graphrec.unlearning.methods.retrain import Retrain

METHODS: Mapping[str, type[Unlearner]] = {
    method.name: method
    for method in (
        Retrain,
        Finetune,
        Gif,
        GnnDelete,
        AltEraser,
    )
}
"""Every method by its name."""

__all__ = [
    "METHODS",
    "AltEraser",
    "Exactness",
    "Finetune",
    "Gif",
    "GnnDelete",
    "Outcome",
    "Prepared",
    "Retrain",
    "Task",
    "Unlearner",
]
