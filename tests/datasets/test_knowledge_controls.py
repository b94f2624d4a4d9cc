"""Permuted tails keep every count and lose what the triples say."""

from __future__ import annotations

import numpy as np
import pytest

from graphrec.datasets.knowledge_controls import permuted_tails
from graphrec.errors import InputError
from tests.models.planted import planted
from tests.models.planted_kg import planted_kg

TO_ENTITY = ("item", "related", "entity")


def test_degrees_stay_and_partners_change() -> None:
    data = planted_kg()
    found = permuted_tails(data, seed=3)
    before, after = data.table(TO_ENTITY), found.table(TO_ENTITY)
    for name in ("source", "target"):
        for relation in np.unique(before.relation):
            counts = [
                np.bincount(table.columns[name][table.relation == relation], minlength=100) for table in (before, after)
            ]
            assert np.array_equal(*counts)
    assert np.array_equal(np.sort(after.edge_id), before.edge_id)
    place = after.positions(before.edge_id)
    assert np.array_equal(after.source[place], before.source)
    assert np.array_equal(after.relation[place], before.relation)
    assert (after.target[place] != before.target).mean() > 0.5
    keys = after.source.astype(np.int64) * 1000 + after.target
    assert (np.diff(keys) >= 0).all()
    assert data.pairs("train").items.tolist() == found.pairs("train").items.tolist()
    assert permuted_tails(data, seed=3).fingerprint == found.fingerprint != permuted_tails(data, seed=4).fingerprint


def test_without_triples_there_is_nothing_to_permute() -> None:
    with pytest.raises(InputError, match="no triples"):
        permuted_tails(planted())
