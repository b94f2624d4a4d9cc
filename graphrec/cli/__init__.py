"""``graphrec …``: each command is a module of this package with ``run(arguments) -> exit status``.

Nothing heavy is imported before the command is known, so that ``graphrec --help`` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from graphrec import __version__
from graphrec.cli.allocator import restart_with_reused_memory
from graphrec.errors import InputError, unknown

# Name of the command: its module, what it is for, and whether it works on large tensors.
COMMANDS: Mapping[str, tuple[str, str, bool]] = {
    "datasets": ("graphrec.cli.datasets", "list the known datasets, or describe one", False),
    "train": ("graphrec.cli.train", "train a model on a dataset and write a run folder", True),
    "evaluate": ("graphrec.cli.evaluate", "rank all items for all users of a run and measure", True),
    "recommend": ("graphrec.cli.recommend", "top-k items for some users or for all", True),
    "explain": ("graphrec.cli.explain", "the paths of the knowledge graph behind a recommendation", True),
    "forget": ("graphrec.cli.forget", "take people's data out of a trained model, with the evidence", True),
    "compare": ("graphrec.cli.compare", "test whether runs differ, user by user", False),
    "benchmark": ("graphrec.cli.benchmark", "measure the package's speed on this machine", True),
}

BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


def usage() -> str:
    """What ``graphrec --help`` prints."""
    lines = [
        "usage: graphrec COMMAND [options]",
        "",
        "Graph recommenders on heterogeneous graphs: train, evaluate, recommend.",
        "",
        "commands:",
        *(f"  {name:<11}{purpose}" for name, (_, purpose, _) in COMMANDS.items()),
        "",
        "options:",
        "  --help     this text; graphrec COMMAND --help shows every option of a command",
        "  --version  the version of graphrec",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after ``graphrec``; None: those of this process, which may be started again once
            with better settings of the allocator (:func:`restart_with_reused_memory`).

    Returns:
        0; 2 for bad input, which is one line on standard error; 130 after Ctrl-C; 141 when nobody reads the
        output.
    """
    own_process = arguments is None
    words = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = _show_warning
    if not sys.warnoptions:
        # What other packages will change one day is no news to whoever types a command.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    try:
        status = _dispatch(words, own_process)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as interruption:
        # A training that was stopped says where it is kept, and whether by Ctrl-C or by SIGTERM.
        print(f"graphrec: {str(interruption) or 'interrupted'}", file=sys.stderr)
        return int(getattr(interruption, "exit_code", INTERRUPTED))
    except BrokenPipeError:
        # Whatever is left in the buffer would raise again when the interpreter closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (InputError, OSError, MemoryError) as error:
        return _refuse(error)
    except ImportError as error:
        if "pip install 'graphrec[" not in str(error):
            raise
        return _refuse(error)


def _dispatch(words: list[str], own_process: bool) -> int:
    if not words or words[0] in {"--help", "-h", "help"}:
        print(usage())
        return 0 if words else BAD_INPUT
    name, rest = words[0], words[1:]
    if name == "--version":
        print(f"graphrec {__version__}")
        return 0
    if name not in COMMANDS:
        raise unknown("option" if name.startswith("-") else "command", name, COMMANDS)
    module, _, heavy = COMMANDS[name]
    if own_process and heavy and not {"--help", "-h"} & set(rest):
        restart_with_reused_memory()
    return int(importlib.import_module(module).run(rest))


def _refuse(error: BaseException) -> int:
    text = str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        text = f"not enough memory: {text}"
    print(f"graphrec: error: {text}", file=sys.stderr)
    return BAD_INPUT


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """One line for what graphrec has to say; other packages' warnings as they come."""
    package = str(Path(__file__).resolve().parents[1])
    if filename.startswith(package):
        text = f"graphrec: warning: {message}\n"
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
    (file or sys.stderr).write(text)
