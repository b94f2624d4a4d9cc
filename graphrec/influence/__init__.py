"""Which edges a recommendation rests on."""

from graphrec.influence.explain import Explainer, Explanation, explain

__all__ = ["Explainer", "Explanation", "explain"]
