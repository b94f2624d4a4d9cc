"""Training: ``fit`` and its options."""

from graphrec.training.fit import fit, unfinished
from graphrec.training.interruption import Interrupted
from graphrec.training.options import FitOptions

__all__ = ["FitOptions", "Interrupted", "fit", "unfinished"]
