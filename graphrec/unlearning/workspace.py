"""The folder beside a new run in which a request is carried out: it outlives the process, and goes when all is done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphrec.errors import InputError, MissingFileError
from graphrec.runs import Run
from graphrec.runs.files import FolderLock, clear_errors, write_file
from graphrec.runs.manifest import json_bytes


def lock(run: Run) -> FolderLock:
    """The lock that one request at a time holds on a run, in ``RUN.forgetting`` beside it."""
    folder = run.path.with_name(f"{run.path.name}.forgetting")
    return FolderLock(folder, f"another request is being carried out on {run.path}")


class Workspace:
    """``OUT.forgetting``: the request as it was begun, checkpoints of the method, the new run until it is complete.

    Args:
        out: where the new run goes.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(f"{out.name}.forgetting")
        self.begun = self.folder / "begun.json"
        self.work = self.folder / "work"
        self.staged = self.folder / "run"

    def open(self, order: Mapping[str, Any], resume: bool) -> None:
        """Begin, or go on with what was begun.

        Args:
            order: run, fingerprint, request, method and options, JSON values: what has to be the same to go on.
            resume: whether to go on.

        Raises:
            MissingFileError: nothing was begun that could go on.
            InputError: what was begun is another request.
        """
        if resume:
            if not self.begun.is_file():
                raise MissingFileError(
                    f"there is nothing to resume: {self.begun} is not there. Leave out --resume to begin."
                )
            before = json.loads(self.begun.read_text(encoding="utf-8"))
            differing = [name for name in order if before.get(name) != json.loads(json.dumps(order[name]))]
            if differing:
                raise InputError(
                    f"{self.folder} was begun with another {' and '.join(differing)}; give the same to resume, or "
                    "leave out --resume to begin anew."
                )
        with clear_errors(self.out, "run", "The run before is whole."):
            if not resume and self.folder.exists():
                shutil.rmtree(self.folder)
            if self.staged.exists():
                shutil.rmtree(self.staged)
            self.work.mkdir(parents=True, exist_ok=True)
            if not resume:
                content = json_bytes(order)
                write_file(self.begun, lambda file: file.write_bytes(content))

    def remove(self) -> None:
        """Remove it with all it holds of the request."""
        shutil.rmtree(self.folder)
