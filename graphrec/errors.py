"""Errors that a person can act on: what was found, where, and what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something given to graphrec is wrong; the message names it, what was found and what was expected."""


class MissingFileError(InputError, FileNotFoundError):
    """A file or folder that is needed is not there; the message says which and where to put it."""

    def __str__(self) -> str:
        return ValueError.__str__(self)


def check_at_least(least: int, **numbers: float) -> None:
    """Refuse numbers, by the names of their arguments, that are below ``least``.

    Raises:
        InputError: the first of them that is.
    """
    for name, number in numbers.items():
        if number < least:
            raise InputError(f"{name} must be {least} or more, found {number}.")


def unknown(kind: str, name: str, choices: Iterable[str]) -> InputError:
    """An :class:`InputError` for a name that is not among ``choices``, with the nearest known one.

    Args:
        kind: what the name stands for, as a person would say it ("model", "metric", "option").
        name: the name that was given.
        choices: the names that exist.
    """
    known = sorted(choices)
    folded = {choice.casefold(): choice for choice in known}
    near = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.5)
    hint = f" Did you mean {folded[near[0]]!r}?" if near else ""
    return InputError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(known)}.")
