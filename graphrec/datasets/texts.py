"""Strings of nodes: texts, names, kinds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray


class Texts(Mapping[str, NDArray[Any]]):
    """Strings of the nodes of each type, arrow inside, numpy objects (str or None) outside."""

    def __init__(self, arrays: Mapping[str, pa.Array] | None = None) -> None:
        self.arrow: dict[str, pa.Array] = dict(arrays or {})
        self._made: dict[str, NDArray[Any]] = {}

    def __getitem__(self, node_type: str) -> NDArray[Any]:
        if node_type not in self._made:
            values = self.arrow[node_type].to_numpy(zero_copy_only=False).astype(object)
            values.setflags(write=False)
            self._made[node_type] = values
        return self._made[node_type]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrow)

    def __len__(self) -> int:
        return len(self.arrow)

    def take(self, node_type: str, keep: NDArray[Any]) -> Texts:
        """The same with only some nodes of one type."""
        if node_type not in self.arrow:
            return self
        return Texts({**self.arrow, node_type: self.arrow[node_type].take(pa.array(keep))})
