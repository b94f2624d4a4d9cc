"""Training: ``fit`` and its options."""

from graphrec.training.fit import fit
from graphrec.training.interruption import Interrupted
from graphrec.training.options import FitOptions
from graphrec.training.resume import unfinished

__all__ = ["FitOptions", "Interrupted", "fit", "unfinished"]
