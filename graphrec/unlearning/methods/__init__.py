"""Methods of forgetting, by name: one file each, one interface."""

from __future__ import annotations

from collections.abc import Mapping

from graphrec.unlearning.methods.alteraser import AltEraser
from graphrec.unlearning.methods.base import Exactness, Outcome, Prepared, Task, Unlearner
from graphrec.unlearning.methods.finetune import Finetune
from graphrec.unlearning.methods.gif import Gif
from graphrec.unlearning.methods.gnndelete import GnnDelete
from graphrec.unlearning.methods.grapheraser import GraphEraser
from graphrec.unlearning.methods.ifru import Ifru
from graphrec.unlearning.methods.receraser import RecEraser
from graphrec.unlearning.methods.retrain import Retrain
from graphrec.unlearning.methods.scif import Scif
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
        Gif,
        Ifru,
        Scif,
        GnnDelete,
        AltEraser,
        UnlearnRec,
    )
}
"""Every method by its name."""

__all__ = [
    "METHODS",
    "SISA",
    "AltEraser",
    "Exactness",
    "Finetune",
    "Gif",
    "GnnDelete",
    "GraphEraser",
    "Ifru",
    "Outcome",
    "Prepared",
    "RecEraser",
    "Retrain",
    "Scif",
    "Task",
    "UltraRE",
    "UnlearnRec",
    "Unlearner",
]
