"""Forgetting on request: what is asked, by which method it is done, and the evidence that it was."""

from graphrec.unlearning.methods import METHODS, Unlearner
from graphrec.unlearning.request import ForgetRequest, TimeRange
from graphrec.unlearning.resolve import Resolved, compacted, remaining, resolve

__all__ = ["METHODS", "ForgetRequest", "Resolved", "TimeRange", "Unlearner", "compacted", "remaining", "resolve"]
