"""Fixtures that every part of the suite shares."""

from __future__ import annotations

import os
from pathlib import Path

# Small tensors gain nothing from a second thread, and two suites on one machine would spin against each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder that holds the real datasets; the test is skipped where $GRAPHREC_DATA names none."""
    root = os.environ.get("GRAPHREC_DATA")
    if not root:
        pytest.skip("$GRAPHREC_DATA is not set: the real datasets are not at hand")
    path = Path(root)
    if not path.is_dir():
        pytest.skip(f"$GRAPHREC_DATA names {path}, which is not a folder")
    return path


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the suite out of the user's cache of converted datasets."""
    base = tmp_path_factory.getbasetemp() / "graphrec-cache"
    monkeypatch.setenv("GRAPHREC_CACHE", str(base))
