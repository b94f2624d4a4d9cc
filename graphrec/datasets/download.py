"""Datasets fetched from where their owners offer them, checked by sha256."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from pathlib import Path

import pooch

from graphrec.datasets.archives import extract
from graphrec.datasets.fingerprint import file_sha256
from graphrec.datasets.registry import Entry, File
from graphrec.errors import InputError, MissingFileError

_SHOWN = 160
_LOG = logging.getLogger("graphrec.datasets")


def git_blob(path: Path) -> str:
    """The id that git gives to the content of a file."""
    data = path.read_bytes()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def download(entry: Entry, folder: Path) -> Path:
    """Fetch all files of an entry into a folder; all of them, or nothing.

    Raises:
        MissingFileError: the dataset may not be downloaded, or no address gave the right bytes; says which files to put
            where.
    """
    if not entry.downloadable:
        raise MissingFileError(
            f"dataset {entry.name!r} is not at hand, and cannot be downloaded by its terms or form. "
            f"{entry.manual(folder)} If it is on this machine: root= (--root) or $GRAPHREC_DATA is the folder that "
            f"holds {entry.name}."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fetched: dict[str, Path] = {}
        for file in entry.files:
            _fetch(entry, file, work, fetched, folder)
        shutil.rmtree(work / ".fetched", ignore_errors=True)
        if not folder.exists():
            os.replace(work, folder)
            return folder
        for file in entry.files:  # what else lies in the folder is somebody's, and stays
            (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(work / file.name, folder / file.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _fetch(entry: Entry, file: File, work: Path, fetched: dict[str, Path], folder: Path) -> None:
    """One file from the first address that gives the right bytes."""
    failures = []
    for address in file.addresses:
        try:
            found = _from(address, work / ".fetched", fetched)
            actual = file_sha256(found)
            if actual != file.sha256 and not (file.blob and git_blob(found) == file.blob):
                raise InputError(f"sha256 {actual[:12]}…, expected {file.sha256[:12]}…")
            target = work / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, target)
            return
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            failures.append(f"{address}: {reason if len(reason) < _SHOWN else reason[:_SHOWN] + '…'}")
    raise MissingFileError(
        f"dataset {entry.name!r}: {file.name} could not be fetched. Tried {'; '.join(failures)}. {entry.manual(folder)}"
    )


def _from(address: str, into: Path, fetched: dict[str, Path]) -> Path:
    """The file at an address; ``archive#member`` is a member of an archive, which is fetched once."""
    url, _, member = address.partition("#")
    if url not in fetched:
        name = f"{len(fetched)}-{url.rsplit('/', 1)[-1]}"
        into.mkdir(parents=True, exist_ok=True)
        _LOG.info("Fetching %s", url)
        pooch.HTTPDownloader()(url, str(into / name), None)
        if member:
            extract(into / name, into / f"{name}.d")
        fetched[url] = into / (f"{name}.d" if member else name)
    found = fetched[url] / member if member else fetched[url]
    if not found.is_file():
        raise InputError(f"no {member!r} in the archive")
    return found
