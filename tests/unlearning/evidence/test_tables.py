"""Cells and tables of the evidence: what is not there is a dash, and a table without lines is nothing."""

from __future__ import annotations

import math

from graphrec.unlearning.evidence.tables import as_share, interval_cell, pairs_table, plain_number, row_cell, words


def test_numbers_and_cells_are_written_for_people() -> None:
    assert as_share(0.1234) == "12.3 %"
    assert plain_number(math.nan) == "–"
    assert plain_number(0.00001) == "0.0000"
    assert plain_number(12345.6) == "12,345.6"
    assert "–" in row_cell(None)
    assert 'class="number own"' in row_cell(None, own=True)
    assert "–" in interval_cell(None)
    assert words("nearest_neighbour") == "nearest neighbour"


def test_a_table_of_pairs_leaves_out_what_is_empty() -> None:
    made = pairs_table("A <caption>", {"kept": "1", "left out": ""})
    assert "kept" in made
    assert "left out" not in made
    assert "A &lt;caption&gt;" in made
    assert pairs_table("none", {"a": ""}) == ""
