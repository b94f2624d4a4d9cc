from __future__ import annotations

import decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.datasets import Vocabulary
from graphrec.errors import InputError

WORDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=6)


def reference(values: list[Any]) -> list[Any]:
    """Sorted distinct ids: as numbers when all are whole and written plainly, by code points otherwise."""
    texts = [str(value) for value in values]
    if all(text.isascii() and text.isdigit() and str(int(text)) == text for text in texts):
        return sorted({int(text) for text in texts})
    return sorted(set(texts))


@settings(deadline=None, max_examples=80)
@given(st.lists(st.one_of(WORDS, st.integers(0, 2**62).map(str)), min_size=1, max_size=30))
def test_strings_agree_with_the_plain_definition(values: list[str]) -> None:
    try:
        vocabulary = Vocabulary.from_values(values)
    except InputError:
        assert all(_is_number(value) for value in values)
        return
    expected = reference(values)
    assert vocabulary.raw.tolist() == expected
    codes = vocabulary.encode(values)
    assert [str(value) for value in vocabulary.decode(codes)] == values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(0, 2**63 - 1), max_size=40), st.lists(st.integers(0, 2**63 - 1), max_size=10))
def test_numbers_agree_with_the_plain_definition(values: list[int], others: list[int]) -> None:
    vocabulary = Vocabulary.from_values(np.array(values, np.int64))
    expected = sorted(set(values))
    assert vocabulary.raw.tolist() == expected
    codes = vocabulary.encode(np.array(others, np.int64), unknown="mark")
    assert codes.tolist() == [expected.index(value) if value in expected else -1 for value in others]


@pytest.mark.parametrize("order", [[3, 10, 9], [10, 9, 3]])
def test_integers_sort_as_numbers_whatever_the_order_of_appearance(order: list[int]) -> None:
    for values in (order, [str(value) for value in order], np.array(order, np.uint16)):
        assert Vocabulary.from_values(values).raw.tolist() == [3, 9, 10]


def test_leading_zeros_make_strings() -> None:
    assert Vocabulary.from_values(["007", "7"]).raw.tolist() == ["007", "7"]


def test_a_vocabulary_of_numbers_takes_numbers_as_strings_and_the_other_way_round() -> None:
    numbers = Vocabulary.from_values([5, 7, 11])
    assert numbers.encode(["7", "11", "x", "07", "-5", "9" * 30], unknown="mark").tolist() == [1, 2, -1, -1, -1, -1]
    words = Vocabulary.from_values(["5", "a"])
    assert words.encode([5, 6], unknown="mark").tolist() == [0, -1]


@pytest.mark.parametrize("make", [list, np.array, pd.Series, pl.Series, pa.array, pd.Categorical])
def test_every_kind_of_column_is_taken(make: Any) -> None:
    assert Vocabulary.from_values(make(["b", "a", "b"])).raw.tolist() == ["a", "b"]


def test_sparse_and_dense_numbers_give_the_same_codes() -> None:
    generator = np.random.default_rng(0)
    small = np.unique(generator.integers(0, 500, 200))
    probe = generator.integers(0, 600, 300)
    dense, sparse = Vocabulary(small), Vocabulary(np.append(small, 2**60))
    assert dense._lookup is not None and sparse._lookup is None
    assert (dense.encode(probe, unknown="mark") == sparse.encode(probe, unknown="mark")).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, -2], "row 1: id -2 is negative"),
        ([1, 2**63], "row 1: 9223372036854775808 does not fit in 64 bits"),
        (np.array([1, 2**63], np.uint64), "row 1: id 9223372036854775808 is above"),
        ([1, 2**70], "row 1: .* does not fit in 64 bits"),
        ([1.0, 2.0], "row 0: id 1.0 is a decimal number"),
        ([1, None], "row 1: no id"),
        (["a", None], "row 1: no id"),
        (pd.Series([1.0, float("nan")]), "row 1: no id"),
        (["a", ""], "row 1: an empty id"),
        (["1", "-2"], "row 1: id '-2' is negative"),
        (["1", "2.5"], "row 1: id '2.5' is a decimal number"),
        (["1", "1e5"], "row 1: id '1e5' is a decimal number"),
        (["1", "9" * 20], "row 1: id 9{20} is above"),
        ([True, False], "type bool"),
        (["a", 1], "row 1: 1 is int, the rows before are str"),
        ([[1], [2]], "type list"),
        ([decimal.Decimal("1.5")], "row 0: id 1.5 is a decimal number"),
        (pd.Series(pd.to_datetime(["2020-01-01"])), "type timestamp"),
        (np.zeros((2, 2), np.int64), "one dimension"),
    ],
)
def test_what_cannot_be_an_id_is_refused_with_its_row(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Vocabulary.from_values(values, "user")


def test_an_unknown_id_is_named_or_marked() -> None:
    vocabulary = Vocabulary.from_values(["a", "b"], "item")
    with pytest.raises(InputError, match=r"row 1: unknown item 'z' \(1 unknown in all\)"):
        vocabulary.encode(["a", "z"])
    assert vocabulary.encode(["a", "z"], unknown="mark").tolist() == [0, -1]
    assert "a" in vocabulary and "z" not in vocabulary and None not in vocabulary


def test_a_code_outside_is_refused() -> None:
    with pytest.raises(InputError, match="item 2 is outside 0 to 1"):
        Vocabulary.from_values(["a", "b"], "item").decode([0, 2])


def test_raw_ids_are_read_only() -> None:
    for vocabulary in (Vocabulary.from_values([1]), Vocabulary.from_values(["a"])):
        with pytest.raises(ValueError, match="read-only"):
            vocabulary.raw[0] = 5


def test_an_empty_vocabulary_knows_nothing() -> None:
    vocabulary = Vocabulary.from_values([])
    assert len(vocabulary) == 0
    assert vocabulary.encode([1], unknown="mark").tolist() == [-1]
    assert vocabulary.encode(["x"], unknown="mark").tolist() == [-1]
