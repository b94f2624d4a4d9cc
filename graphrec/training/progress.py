"""The progress of a training on a terminal (one line that is rewritten) or in a log (a line an epoch)."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TextIO

_WIDTH = 20


def duration(seconds: float) -> str:
    """``8.3 s``, ``2:05``, ``1:02:05``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Shows epoch, loss, seconds, time left and the metric that selects.

    Args:
        epochs: of the whole training.
        enabled: whether to show anything.
        stream: default: standard error.
        every: seconds between two showings within an epoch, and between two lines of a log.
    """

    def __init__(self, epochs: int, enabled: bool = True, stream: TextIO | None = None, every: float = 0.2) -> None:
        self.epochs, self.enabled = epochs, enabled
        self.stream = stream or sys.stderr
        self.live = enabled and self.stream.isatty()
        self.every = every if self.live else max(every, 1.0)
        self._last = -float("inf")
        self._epoch_seconds: list[float] = []
        self._metric = ""
        self._pending = ""
        self._width = 0

    def due(self) -> bool:
        """Whether :meth:`step` would show anything now; asked before a loss is read from the device."""
        return self.live and time.monotonic() - self._last >= self.every

    def step(self, epoch: int, done: int, total: int | None, loss: float, seconds: float) -> None:
        """Show where an epoch stands, on a terminal: ``done`` of ``total`` steps (None: not known)."""
        if not self.live:
            return
        share = done / total if total else None
        bar = f"[{'#' * int(_WIDTH * share):<{_WIDTH}}]" if share is not None else f"step {done}"
        left = ""
        if share:
            left = f"  left {duration(seconds / share * (self.epochs - epoch - share))}"
        self._show(f"epoch {epoch + 1}/{self.epochs} {bar} loss {loss:.4f}  {duration(seconds)}{left}{self._metric}")

    def epoch(self, epoch: int, loss: float, seconds: float, metrics: Mapping[str, float]) -> None:
        """Show a finished epoch; ``seconds`` with its evaluation, ``metrics`` the one that selects, if there is one."""
        self._epoch_seconds = [*self._epoch_seconds[-9:], seconds]
        if metrics:
            self._metric = "".join(f"  {name} {value:.4f}" for name, value in metrics.items())
        mean = sum(self._epoch_seconds) / len(self._epoch_seconds)
        left = duration(mean * (self.epochs - epoch - 1))
        line = f"epoch {epoch + 1}/{self.epochs}  loss {loss:.4f}  {duration(seconds)}  left {left}{self._metric}"
        if self.live or time.monotonic() - self._last >= self.every or epoch + 1 == self.epochs:
            self._pending = ""
            self._show(line)
        else:
            self._pending = line

    def say(self, text: str) -> None:
        """Show a line that stays."""
        self.close()
        if self.enabled:
            print(text, file=self.stream, flush=True)

    def close(self) -> None:
        """End the line that is being rewritten; a log gets the last epoch if it was held back."""
        if self._pending and self.enabled:
            self._show(self._pending)
            self._pending = ""
        if self.live and self._width:
            print(file=self.stream, flush=True)
            self._width = 0

    def _show(self, line: str) -> None:
        if not self.enabled:
            return
        self._last = time.monotonic()
        if self.live:
            print(f"\r{line:<{self._width}}", end="", file=self.stream, flush=True)
            self._width = len(line)
        else:
            print(line, file=self.stream, flush=True)
