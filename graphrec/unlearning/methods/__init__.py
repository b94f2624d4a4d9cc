"""Methods of forgetting, by name: one file each, one interface."""

from __future__ import annotations

from collections.abc import Mapping

from graphrec.unlearning.methods.alteraser import AltEraser
from graphrec.unlearning.methods.base import Exactness, Outcome, Prepared, Task, Unlearner
from graphrec.unlearning.methods.finetune import Finetune
from graphrec.unlearning.methods.gif import GIF
from graphrec.unlearning.methods.gnndelete import GNNDelete
from graphrec.unlearning.methods.grapheraser import GraphEraser
from graphrec.unlearning.methods.ifru import IFRU
from graphrec.unlearning.methods.receraser import RecEraser
from graphrec.unlearning.methods.retrain import Retrain
from graphrec.unlearning.methods.scif import SCIF
from graphrec.unlearning.methods.sisa import SISA
from graphrec.unlearning.methods.ultrare import UltraRE
from graphrec.unlearning.methods.unlearnrec import UnlearnRec

METHODS: Mapping[str, type[Unlearner]] = {
    method.name: method
    for method in (
        Retrain,
        SISA,
        RecEraser,
        GraphEraser,
        UltraRE,
        Finetune,
        GIF,
        IFRU,
        SCIF,
        GNNDelete,
        AltEraser,
        UnlearnRec,
    )
}
"""Every method by its name."""

__all__ = [
    "GIF",
    "IFRU",
    "METHODS",
    "SCIF",
    "SISA",
    "AltEraser",
    "Exactness",
    "Finetune",
    "GNNDelete",
    "GraphEraser",
    "Outcome",
    "Prepared",
    "RecEraser",
    "Retrain",
    "Task",
    "UltraRE",
    "UnlearnRec",
    "Unlearner",
]
