"""Runs to and from the Hugging Face hub; huggingface_hub is needed only here."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

from graphrec.errors import MissingFileError
from graphrec.optional import require
from graphrec.runs import Run
from graphrec.runs.portable import portable_files

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SCHEME = "hf://"


def locate(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> Path:
    """The folder of a run: the one that is named, or the local copy of a repository of the hub.

    Args:
        source: a folder, ``owner/name``, or ``hf://owner/name``.
        revision: branch, tag or commit.
        endpoint: address of the hub; None: huggingface_hub's.
        token: token for the hub; None: the one huggingface_hub finds.

    Raises:
        MissingFileError: there is neither such a folder nor such a repository.
        ImportError: a repository is named and huggingface_hub is not installed.
    """
    text = os.fspath(source)
    named = text.startswith(_SCHEME)
    repository = text.removeprefix(_SCHEME)
    if not named and (Path(text).exists() or not isinstance(source, str) or not _REPOSITORY.fullmatch(text)):
        return Path(text)
    hub = require("huggingface_hub", "hub")
    try:
        return Path(hub.HfApi(endpoint=endpoint, token=token).snapshot_download(repository, revision=revision))
    except (
        hub.errors.HfHubHTTPError,
        hub.errors.LocalEntryNotFoundError,
        hub.errors.HFValidationError,
    ) as error:
        missing = "" if named else f"there is no folder {text}, and "
        reason = " ".join(str(error).split())
        raise MissingFileError(
            f"{missing}repository {repository!r} could not be fetched from the hub: {reason}"
        ) from error


def push(
    run: Run,
    repo_id: str,
    *,
    endpoint: str | None = None,
    token: str | None = None,
    private: bool = True,
    message: str = "Upload a graphrec run",
) -> str:
    """Upload a run's files and a short README; the repository is made when it is not there.

    Paths of this machine are left out (:func:`graphrec.runs.portable.portable_config`).

    Returns:
        The address of the commit.
    """
    hub = require("huggingface_hub", "hub")
    api = hub.HfApi(endpoint=endpoint, token=token)
    run.verify()
    api.create_repo(repo_id, private=private, exist_ok=True)
    operations = [hub.CommitOperationAdd(name, content) for name, content in portable_files(run).items()]
    operations.append(hub.CommitOperationAdd("README.md", card(run, repo_id).encode()))
    with warnings.catch_warnings():
        # The id tables of a run are data files, and meant to be there.
        warnings.filterwarnings("ignore", message=".*about to commit a data file")
        commit = api.create_commit(repo_id, operations, commit_message=message)
    return str(commit.commit_url)


def card(run: Run, repo_id: str) -> str:
    """The README of a repository: what the model is, its metrics, and how to open it."""
    measured = [
        f"| {name} | {value:.4f} |"
        for name, value in run.metrics.items()
        if isinstance(value, float) and "/" not in name
    ]
    data = run.config["dataset"].get("name", "data of its owner")
    lines = [
        "---",
        "library_name: graphrec",
        "tags: [recommender-system, graph]",
        "---",
        "",
        f"# {run.config['model']}",
        "",
        f"A graph recommender, trained on {data} (seed {run.config['seed']}).",
        "",
        "```python",
        "import graphrec",
        "",
        f'rec = graphrec.Recommender.from_pretrained("{repo_id}")',
        "rec.recommend(users=[...], k=10)",
        "```",
        "",
        *(["| metric | value |", "|---|---|", *measured] if measured else []),
    ]
    return "\n".join(lines) + "\n"
