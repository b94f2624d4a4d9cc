"""Forgetting on request: what is asked, by which method it is done, and the evidence that it was."""

from graphrec.unlearning.budget import Budget
from graphrec.unlearning.evidence import evaluate_unlearning
from graphrec.unlearning.forget import forget
from graphrec.unlearning.methods import METHODS, Unlearner
from graphrec.unlearning.prepare import prepare
from graphrec.unlearning.preview import Preview, preview
from graphrec.unlearning.request import ForgetRequest, TimeRange
from graphrec.unlearning.resolve import Resolved, compacted, remaining, resolve

__all__ = [
    "METHODS",
    "Budget",
    "ForgetRequest",
    "Preview",
    "Resolved",
    "TimeRange",
    "Unlearner",
    "compacted",
    "evaluate_unlearning",
    "forget",
    "prepare",
    "preview",
    "remaining",
    "resolve",
]
