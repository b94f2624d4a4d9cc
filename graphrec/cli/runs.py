"""What the commands on a run share: finding it, and its dataset with the fingerprint checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphrec.cli.arguments import Parser
from graphrec.errors import MissingFileError

if TYPE_CHECKING:
    from graphrec.datasets import RecDataset
    from graphrec.runs import Run

# What a run notes of its dataset beside the arguments of load().
_NOT_ARGUMENTS = frozenset({"fingerprint", "source", "name", "root", "digests", "forgotten"})


def existing_run(name: str) -> str:
    """The run's name, refused at once where it is no folder (a typing error is not looked up on the network)."""
    if not name.startswith("hf://") and not Path(name).is_dir():
        stopped = Path(f"{name.rstrip('/')}.training").is_dir()
        cure = f"; its training was stopped before the end, graphrec train --resume {name} goes on" if stopped else ""
        raise MissingFileError(f"{name}: there is no such run folder{cure}")
    return name


def add_data_arguments(shape: Parser) -> None:
    """``--dataset`` and ``--root`` of a command that works on a run."""
    shape.add_argument(
        "--dataset", type=str | None, default=None, help="the run's dataset, where it lies elsewhere now: name or path"
    )
    shape.add_argument(
        "--root",
        type=str | None,
        default=None,
        help="folder that holds the dataset's own folder; null: $GRAPHREC_DATA, then the user cache",
    )
    add_superseded_argument(shape)


def add_superseded_argument(shape: Parser) -> None:
    """``--allow-superseded`` of a command that opens a run."""
    shape.add_argument(
        "--allow-superseded",
        action="store_true",
        help="open the run although another has taken its place because it was asked to forget",
    )


def run_data(run: Run, options: Any) -> RecDataset:
    """The dataset a run was trained on, loaded as it was then; its fingerprint is checked.

    Raises:
        InputError: the dataset has changed since.
    """
    if options.dataset is None:
        return run.dataset(root=options.root)
    from graphrec.datasets import load

    spec = {key: value for key, value in run.config["dataset"].items() if key not in _NOT_ARGUMENTS}
    data = load(options.dataset, root=options.root, **spec)
    run.check_data(data, f"--dataset {options.dataset}")
    return data
