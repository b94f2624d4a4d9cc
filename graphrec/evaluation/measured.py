"""What the results of all evaluations have in common: metrics by key, and the table of their users."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import unknown


class Measured(Mapping[str, float]):
    """A mapping of metrics by lower-case key (``recall@20``).

    Attributes:
        metrics: the values by key.
    """

    metrics: dict[str, float]

    def __getitem__(self, key: str) -> float:
        try:
            return self.metrics[key]
        except KeyError:
            # Mapping's own methods (get, in) count on KeyError; the message is for people.
            raise KeyError(str(unknown("metric", key, self.metrics))) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def to_dict(self, prefix: str = "") -> dict[str, Any]:
        """Flat JSON values: the metrics, counts, seconds and what was chosen, after ``prefix``."""
        return {f"{prefix}{key}": value for key, value in {**self.metrics, **self._facts()}.items()}

    @abstractmethod
    def _facts(self) -> dict[str, Any]:
        """What :meth:`to_dict` says besides the metrics."""

    def _told(self, of_what: str) -> str:
        shown = ", ".join(f"{key} {value:.4f}" for key, value in self.metrics.items() if "/" not in key)
        return f"{type(self).__name__}({of_what}: {shown})"


def user_table(data: RecDataset, users: Tensor, columns: Mapping[str, Tensor], facts: Mapping[str, str]) -> pa.Table:
    """A row for each user: ``user``, the raw id, and the columns; what has to be equal in a comparison is metadata.

    Args:
        data: of the users.
        users: (B,) numbers.
        columns: (B,) each.
        facts: by name.
    """
    raw = data.vocabularies[data.target[0]].decode(users.numpy())
    ids = pa.array(raw, type=pa.int64() if np.asarray(raw).dtype.kind in "iu" else pa.string())
    table = pa.table({"user": ids, **{name: pa.array(column.cpu().numpy()) for name, column in columns.items()}})
    return table.replace_schema_metadata({f"graphrec.{key}": value for key, value in facts.items()})
