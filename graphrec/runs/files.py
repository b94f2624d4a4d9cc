"""Files and folders that are whole or absent: temporary names, fsync, one rename; and the lock on an output folder."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from safetensors import SafetensorError

from graphrec.errors import InputError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's entries, on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def clear_errors(path: Path, what: str, kept: str = "") -> Iterator[None]:
    """Turn a full disk, a read-only folder and the like into one :class:`InputError` that names the path.

    Args:
        path: what is being written.
        what: the thing, as a person would say it ("run", "checkpoint").
        kept: a sentence about what is untouched.
    """
    try:
        yield
    except InputError:
        raise
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"the {what} could not be written to {path}: {reason}. {kept}".strip()) from error


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def remove_leftovers(path: Path) -> None:
    """Remove what writers of ``path`` that were killed left beside it."""
    for leftover in path.parent.glob(f"{path.name}.tmp-*"):
        process = leftover.name.removeprefix(f"{path.name}.tmp-").split("-")[0]
        if process.isdigit() and not _alive(int(process)):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Replace one file atomically.

    Args:
        path: the file; the one there stays until the new one is complete.
        write: writes the new content to the path it is given.
    """
    temporary = _temporary(path)
    try:
        write(temporary)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """One more name for a file, or a copy where the file system gives none (another device, no hard links)."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
            raise
        shutil.copy2(source, target)


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Replace a folder atomically.

    Args:
        path: the folder; the one there stays whole until the new one is complete.
        fill: fills the empty folder it is given; may make folders in it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    temporary = _temporary(path)
    try:
        temporary.mkdir()
        fill(temporary)
        for folder, _, names in os.walk(temporary):
            for name in names:
                sync(Path(folder) / name)
            sync(Path(folder))
        replace_folder(temporary, path)
    finally:
        # After a failure this is the unfinished one.
        if temporary.exists():
            shutil.rmtree(temporary)


def replace_folder(new: Path, path: Path) -> None:
    """Put a complete folder in the place of another atomically; the old one is removed.

    Args:
        new: on the same file system; gone afterwards.
        path: the folder; what is there stays whole until ``new`` has its place.
    """
    _put_in_place(new, path)
    sync(path.parent)
    # After an exchange this is the old folder.
    if new.exists():
        shutil.rmtree(new)


def _put_in_place(new: Path, path: Path) -> None:
    if not path.exists():
        os.rename(new, path)
        return
    if _exchange(new, path):
        return
    # Where the file system cannot exchange two folders there is a moment with none under the name; a reader that comes
    # after a crash in it finds the old one by recover().
    aside = path.with_name(f"{path.name}.old")
    if aside.exists():
        shutil.rmtree(aside)
    os.rename(path, aside)
    try:
        os.rename(new, path)
    except OSError:
        os.rename(aside, path)
        raise
    shutil.rmtree(aside)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step where the system offers it (Linux: renameat2)."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    result = renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), ctypes.c_uint(_RENAME_EXCHANGE))
    if result == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), str(second))


def recover(path: Path) -> None:
    """Bring back the old folder where a crash came between moving it aside and putting the new one in its place."""
    aside = path.with_name(f"{path.name}.old")
    if not path.exists() and aside.is_dir():
        os.rename(aside, path)


class FolderLock:
    """A lock on a folder that ends with the process that holds it, however it ends.

    Args:
        folder: made when it is not there; the lock is its file ``lock``.
        message: what to tell whoever finds the lock taken.
    """

    def __init__(self, folder: Path, message: str) -> None:
        self.folder, self.message = folder, message
        self._descriptor: int | None = None

    def __enter__(self) -> FolderLock:
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.folder / "lock"
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                os.close(descriptor)
                raise InputError(f"{self.message} (process {holder or 'unknown'} holds {file}).") from None
            # The holder before may have removed the folder between our open and its release: then this locks no file.
            if file.exists() and os.stat(file).st_ino == os.fstat(descriptor).st_ino:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                self._descriptor = descriptor
                return self
            os.close(descriptor)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
