"""``python -m graphrec.cli …``, the same as ``graphrec …``."""

from __future__ import annotations

import sys

from graphrec.cli import main

if __name__ == "__main__":
    sys.exit(main())
