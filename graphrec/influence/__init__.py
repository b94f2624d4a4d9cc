"""Which edges a recommendation rests on."""

from graphrec.influence.explain import Explainer, Explanation, explain
from graphrec.influence.objective import Objective, objective
from graphrec.influence.removal import Removal, removal, removal_step

__all__ = ["Explainer", "Explanation", "Objective", "Removal", "explain", "objective", "removal", "removal_step"]
