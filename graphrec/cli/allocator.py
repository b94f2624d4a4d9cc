"""The C library's allocator, set so that large temporaries are reused instead of mapped afresh."""

from __future__ import annotations

import os
import platform
import sys

_NAME = "GLIBC_TUNABLES"
_MARK = "GRAPHREC_RESTARTED"
# Above every tensor of a training step, in bytes: such a request is served from memory that the process
# already holds.
_TUNABLES = "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592"


def restart_with_reused_memory() -> None:
    """Start this very command again, once, with glibc told to keep the memory of large temporaries.

    By default glibc maps every request above 128 KiB (at most 32 MiB, as it learns) anew and gives it back
    when it is freed, so each large temporary of a training step costs a page fault for every 4 KiB of it: a
    quarter to a half of a step's time was seen to go there. The thresholds are read when a process starts,
    and there is no way to set them for torch's allocator later; hence the restart. The process keeps its
    number, its open files and its signals, so nothing outside sees it. Where the C library is another one, or
    somebody has set the variable, nothing is done.
    """
    if sys.platform != "linux" or _NAME in os.environ or _MARK in os.environ:
        return
    if platform.libc_ver()[0] != "glibc" or not sys.executable:
        return
    environment = {**os.environ, _NAME: _TUNABLES, _MARK: "1"}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
