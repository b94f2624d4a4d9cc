"""Ctrl-C and SIGTERM: the first asks the training to end in order, the second ends it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from graphrec.runs import Run


class Interrupted(KeyboardInterrupt):
    """A training was asked to stop, and has.

    Attributes:
        run: the run as far as it came; None where it has no folder.
        exit_code: what a command ends with: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, run: Run, number: int) -> None:
        super().__init__(f"interrupted; the run so far is in {run.path}")
        self.run, self.exit_code = run, 128 + number


class Signals:
    """Listens for SIGINT and SIGTERM while it is entered, in the main thread.

    Attributes:
        number: the signal that came, None before.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def asked_to_stop(self) -> bool:
        """Whether one came."""
        return self.number is not None

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            raise SystemExit(128 + number)
        self.number = number

    def listen(self) -> None:
        """Be the one that hears; to be called again after something else (Lightning) has put its ear there."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.signal(number, self._heard)
                self._before.setdefault(number, before)

    def __enter__(self) -> Signals:
        self.listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
