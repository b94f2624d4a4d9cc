"""``python -m graphrec.training.worker FOLDER RANK``: one of the processes that share a training."""

from __future__ import annotations

import sys
from pathlib import Path

from graphrec.training.launch import work

if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))
