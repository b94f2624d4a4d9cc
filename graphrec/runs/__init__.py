"""Run folders: a trained model with its ids, metrics and history, written atomically and checked when opened."""

from graphrec.runs.run import FORMAT, Run, as_model, write_run

__all__ = ["FORMAT", "Run", "as_model", "write_run"]
