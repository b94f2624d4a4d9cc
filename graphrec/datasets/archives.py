"""Archives, unpacked without leaving their folder."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from graphrec.errors import InputError, MissingFileError

LIMIT = 64 * 2**30
_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError,
    NotImplementedError, ValueError, UnicodeDecodeError,
)  # fmt: skip


def is_archive(path: Path) -> bool:
    """Whether a file is a zip, or a tar that may be compressed."""
    if not path.is_file() or path.suffix in (".npz", ".npy"):
        return False
    if path.suffix == ".zip":
        return True
    return path.name.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"))


def extract(archive: Path, into: Path, *, limit: int = LIMIT) -> Path:
    """Unpack an archive into a folder that is not there yet; all of it, or nothing.

    Args:
        archive: a zip or tar file.
        into: the folder to make.
        limit: the most bytes the content may have.

    Returns:
        ``into``, or the one folder in it when the archive holds nothing else.

    Raises:
        InputError: a member would land outside the folder, is a link or a device, the content is larger than ``limit``,
            or the archive is damaged. Nothing is left behind.
    """
    if not archive.is_file():
        raise MissingFileError(f"{archive} is not there.")
    into.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{into.name}-", dir=into.parent))
    try:
        left = limit
        try:
            for name, stream in _members(archive):
                left = _write(archive, work / name, stream, left, limit)
        except InputError:
            raise
        except _BROKEN as error:
            raise InputError(f"{archive}: damaged or cut short ({error}). Copy or download it again.") from error
        os.replace(work, into)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return only_folder(into)


def only_folder(folder: Path) -> Path:
    """The one folder that a folder holds, or the folder itself when it holds anything else."""
    inside = [child for child in folder.iterdir() if child.name != "__MACOSX"]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def safe_name(archive: Path, name: str) -> PurePosixPath:
    """The path of a member, checked to stay below the folder it is unpacked in."""
    path = PurePosixPath(name)
    windows = PureWindowsPath(name)
    if path.is_absolute() or windows.is_absolute() or windows.drive or ".." in (*path.parts, *windows.parts):
        raise InputError(f"{archive}: member {name!r} would be written outside its folder. Don't use this archive.")
    if "\0" in name:
        raise InputError(f"{archive}: member {name!r} has a NUL in its name.")
    return path


def _members(archive: Path) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """The plain files of an archive with their checked names."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                name = safe_name(archive, info.filename)
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise InputError(f"{archive}: member {info.filename!r} is a link or device. Expected plain files.")
                if not info.is_dir():
                    with opened.open(info) as stream:
                        yield name, stream
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            name = safe_name(archive, member.name)
            if member.isdir():
                continue
            if not member.isreg():
                raise InputError(f"{archive}: member {member.name!r} is a link or device. Expected plain files.")
            content = tar.extractfile(member)
            if content is not None:
                with content:
                    yield name, content


def _write(archive: Path, path: Path, stream: IO[bytes], left: int, limit: int) -> int:
    """Copy one member; returns how many bytes may still follow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        while block := stream.read(2**20):
            left -= len(block)
            if left < 0:
                raise InputError(
                    f"{archive}: more than {limit:,} bytes of content. If that is right, unpack it by hand."
                )
            file.write(block)
    return left
