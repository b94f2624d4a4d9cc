"""Evidence that a model forgot: measured beside doing nothing, hiding at serving, and training anew."""

from graphrec.unlearning.evidence.claims import LEVELS, Claim, claims_of, limited
from graphrec.unlearning.evidence.efficiency import Efficiency, Seconds, efficiency
from graphrec.unlearning.evidence.evaluate import evaluate_unlearning
from graphrec.unlearning.evidence.measures import ROWS, Measure
from graphrec.unlearning.evidence.membership import ATTACKS, Attack
from graphrec.unlearning.evidence.recovery import Recovery, recovery
from graphrec.unlearning.evidence.report import Check, Report

__all__ = [
    "ATTACKS",
    "LEVELS",
    "ROWS",
    "Attack",
    "Check",
    "Claim",
    "Efficiency",
    "Measure",
    "Recovery",
    "Report",
    "Seconds",
    "claims_of",
    "efficiency",
    "evaluate_unlearning",
    "limited",
    "recovery",
]
