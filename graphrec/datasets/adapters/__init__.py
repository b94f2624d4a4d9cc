"""One module a format: ``recognise(path)`` by content, ``read(path, builder, **options)`` into the builder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from graphrec.datasets.adapters import (
    citeulike,
    hetrec,
    hin,
    lastfm,
    lightgcn,
    mmrec,
    movielens,
    recbole,
    s3rec,
    sslrec,
    unlearning_sets,
)
from graphrec.errors import InputError, unknown

__all__ = ["ADAPTERS", "VERSION", "Adapter", "adapter", "check_options", "recognise"]


# Raised whenever an adapter makes something else of the same files: copies in the cache are then made again.
VERSION = 1


@dataclass(frozen=True)
class Adapter:
    """A format: whether a path is in it, and how it is read into a builder."""

    name: str
    recognise: Callable[[Path], bool]
    read: Callable[..., None]

    @classmethod
    def of(cls, name: str, module: ModuleType) -> Adapter:
        """The adapter that a module of this package is."""
        return cls(name, module.recognise, module.read)


_MODULES = {
    "mmrec": mmrec,
    "recbole": recbole,
    "s3rec": s3rec,
    "movielens": movielens,
    "unlearning": unlearning_sets,
    "hetrec": hetrec,
    "lastfm": lastfm,
    "hin": hin,
    "citeulike": citeulike,
    "sslrec": sslrec,
    "lightgcn": lightgcn,
}

# The first that recognises a folder reads it: the narrower form stands before the wider one.
ADAPTERS: Mapping[str, Adapter] = MappingProxyType(
    {name: Adapter.of(name, module) for name, module in _MODULES.items()}
)


def recognise(path: Path) -> str | None:
    """The name of the format of ``path``, told by its content; None where no adapter knows it."""
    return next((name for name, known in ADAPTERS.items() if known.recognise(path)), None)


def adapter(name: str) -> Adapter:
    """The adapter of a format."""
    if name not in ADAPTERS:
        raise unknown("format", name, ADAPTERS)
    return ADAPTERS[name]


def check_options(name: str, options: Mapping[str, Any], also: Collection[str] = ()) -> None:
    """Refuse options that an adapter does not have.

    Args:
        name: of the format.
        options: what was given.
        also: names that the caller itself would have taken, for the nearest name.

    Raises:
        InputError: names the option and those there are.
    """
    known = [option for option in inspect.signature(adapter(name).read).parameters if option not in ("path", "builder")]
    for option in options:
        if option not in known:
            if not known and not also:
                raise InputError(f"format {name!r} has no options; got {option!r}.")
            raise unknown(f"option of format {name!r}", option, [*known, *also])
