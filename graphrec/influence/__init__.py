"""Which edges a recommendation rests on."""

from graphrec.influence.edge import edge_influence
from graphrec.influence.explain import Explainer, Explanation, explain
from graphrec.influence.objective import Objective, objective
from graphrec.influence.removal import Removal, removal, removal_step

__all__ = [
    "Explainer",
    "Explanation",
    "Objective",
    "Removal",
    "edge_influence",
    "explain",
    "objective",
    "removal",
    "removal_step",
]
