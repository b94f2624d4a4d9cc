"""Which edges a recommendation rests on."""

from graphrec.influence.edge import edge_influence
from graphrec.influence.estimators import Attribution, attribute
from graphrec.influence.example import add_example
from graphrec.influence.explain import explain
from graphrec.influence.explainer import Explainer
from graphrec.influence.inverse import Inverse
from graphrec.influence.noise import SelfInfluence, self_influence, suspicious_edges
from graphrec.influence.objective import Objective, objective
from graphrec.influence.removal import Removal, removal, removal_step
from graphrec.reports.explanation import Explanation

__all__ = [
    "Attribution",
    "Explainer",
    "Explanation",
    "Inverse",
    "Objective",
    "Removal",
    "SelfInfluence",
    "add_example",
    "attribute",
    "edge_influence",
    "explain",
    "objective",
    "removal",
    "removal_step",
    "self_influence",
    "suspicious_edges",
]
