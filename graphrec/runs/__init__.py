"""Run folders: a trained model with its ids, metrics and history, written atomically and checked when opened."""

from graphrec.runs.manifest import FORMAT
from graphrec.runs.run import Run, as_model
from graphrec.runs.write import write_run

__all__ = ["FORMAT", "Run", "as_model", "write_run"]
