"""Notes speak to people: of interactions and items, not of the names that types have inside."""

from __future__ import annotations

import pytest

from graphrec.datasets.notes import Note


@pytest.mark.parametrize(
    ("note", "said"),
    [
        (
            Note("kept as train", "user__interacts__item", 21173, "no part is named for them"),
            "21,173 interactions kept as train: no part is named for them",
        ),
        (Note("removed", "user__interacts__item", 1), "1 interaction removed"),
        (Note("kept", "item", 149, "isolated: no edge"), "149 items kept, isolated: no edge"),
        (Note("removed", "entity", 1, "rare"), "1 entity removed: rare"),
        (
            Note("merged", "item__made_by__entity", 2, "stated again"),
            "2 'made by' edges from item to entity merged: stated again",
        ),
        (Note("joined", "rows of the catalogue", 3), "3 rows of the catalogue joined"),
        (Note("possible leak", "triples of seen_by", 7, "of users"), "possible leak: 7 triples of seen_by, of users"),
    ],
)
def test_what_a_note_says(note: Note, said: str) -> None:
    assert str(note) == said
