"""``python -m graphrec``: the command line."""

from __future__ import annotations

import sys

from graphrec.cli import main

if __name__ == "__main__":
    sys.exit(main())
