"""Users' items, as models and evaluation read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Pairs:
    """Items by user, as a CSR without values.

    The items of user u are ``items[indptr[u]:indptr[u + 1]]``, ascending and distinct.

    Attributes:
        indptr: (U + 1,) int64.
        items: (P,) int64.
        edge_id: (P,) int64, the edge of each pair.
    """

    indptr: NDArray[np.int64]
    items: NDArray[np.int64]
    edge_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def users(self) -> NDArray[np.int64]:
        """(P,) int64, the user of each pair."""
        return np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))
