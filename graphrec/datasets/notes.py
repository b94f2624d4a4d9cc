"""What was done to data before it became the dataset it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """Something that was removed, merged, moved, or kept by a policy, and how much of it.

    Attributes:
        action: what was done ("merged", "removed", "kept", "split", …).
        subject: what it was done to ("user__interacts__item").
        count: how many.
        detail: why, as a person would say it.
    """

    action: str
    subject: str
    count: int
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.action} {self.count:,} {self.subject}" + (f": {self.detail}" if self.detail else "")
