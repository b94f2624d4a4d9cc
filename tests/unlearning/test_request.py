"""Requests: read from JSON, tables and frames, and told apart from what only looks like one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphrec.errors import InputError, MissingFileError
from graphrec.unlearning import ForgetRequest, TimeRange

ids = st.one_of(st.integers(0, 50), st.text("abcü1", min_size=1, max_size=3))
requests = st.builds(
    ForgetRequest,
    users=st.lists(ids, max_size=3).map(tuple),
    items=st.lists(ids, max_size=3).map(tuple),
    pairs=st.lists(st.tuples(ids, ids), max_size=3).map(tuple),
    behaviours=st.lists(st.tuples(st.sampled_from(["views", "buys"]), st.none() | ids), max_size=2).map(tuple),
    time=st.lists(
        st.builds(TimeRange, st.integers(0, 5).map(float), st.integers(6, 9).map(float), st.none() | ids), max_size=2
    ).map(tuple),
    relations=st.lists(ids, max_size=2).map(tuple),
    triples=st.lists(st.tuples(ids, ids, ids), max_size=2).map(tuple),
    features=st.lists(st.tuples(ids, st.none() | st.just("image")), max_size=2).map(tuple),
    texts=st.lists(ids, max_size=2).map(tuple),
    edges=st.dictionaries(
        st.just("user__interacts__item"), st.lists(st.integers(0, 9), min_size=1).map(tuple), max_size=1
    ),
    fingerprint=st.none() | st.just("f" * 64),
)


@given(requests)
def test_what_is_written_is_what_is_read(request: ForgetRequest) -> None:
    assert ForgetRequest.from_dict(json.loads(json.dumps(request.to_dict()))) == request


@given(requests, st.randoms())
def test_the_digest_does_not_depend_on_the_order_but_on_the_salt(request: ForgetRequest, random: Any) -> None:
    plain = request.to_dict()
    for value in plain.values():
        if isinstance(value, list):
            random.shuffle(value)
    shuffled = ForgetRequest.from_dict(plain)
    assert shuffled.digest(b"salt" * 4) == request.digest(b"salt" * 4)
    assert request.digest(b"salt" * 4) != request.digest(b"tlas" * 4)


def test_every_key_is_optional_and_an_empty_request_asks_for_nothing() -> None:
    assert not ForgetRequest.from_dict({})
    assert ForgetRequest.from_dict({"users": ["u"]})
    assert not ForgetRequest(fingerprint="f")


def test_the_example_of_the_documentation() -> None:
    found = ForgetRequest.from_dict(
        {
            "users": [],
            "items": [],
            "pairs": [["u", "i"]],
            "behaviours": ["views"],
            "time": [{"user": None, "from": 0, "to": 1}],
            "triples": [["h", "r", "t"]],
            "edges": {"user__interacts__item": [5]},
        }
    )
    assert found.pairs == (("u", "i"),) and found.time == (TimeRange(0, 1),)
    assert found.behaviours == (("views", None),) and found.edges == {"user__interacts__item": (5,)}


def test_a_range_may_be_open_on_one_side() -> None:
    found = ForgetRequest.from_dict({"time": [{"user": 3, "to": 9}]})
    assert found.time == (TimeRange(-math.inf, 9, 3),)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"user": [1]}, "Did you mean 'users'"),
        ({"users": "u1"}, "users must be a list, found 'u1'"),
        ({"users": [None]}, r"users\[0\] must be a whole number or a string, found None"),
        ({"users": [True]}, r"users\[0\] must be"),
        ({"pairs": [["u"]]}, r"pairs\[0\] must be a list of 2 ids, found \['u'\]"),
        ({"pairs": ["ui"]}, r"pairs\[0\] must be a list of 2 ids"),
        ({"time": [{"from": 3, "to": 3}]}, r"time\[0\]: from must be below to, found 3 and 3"),
        ({"time": [{"from": "x"}]}, r"time\[0\]: from must be a number, found 'x'"),
        ({"time": [{"since": 3}]}, "unknown key of"),
        ({"behaviours": [{"user": 3}]}, r"behaviours\[0\]: behaviour must be a name"),
        ({"features": [{"item": 1, "name": 2}]}, r"features\[0\]: name must be the name of a feature"),
        ({"edges": [1]}, "edges must be lists of edge ids by edge type"),
        ({"edges": {"t": [-1]}}, "an edge id is a whole number from 0 on, found -1"),
        ({"fingerprint": 3}, "fingerprint must be a string"),
        ([1], "expected an object"),
    ],
)
def test_a_malformed_request_is_refused_with_its_place(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ForgetRequest.from_dict(values)


def test_malformed_json_is_named_by_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text('{"users": [1],\n "items": [2,]}')
    with pytest.raises(InputError, match="line 2, column 14"):
        ForgetRequest.from_file(file)
    file.write_bytes(b'{"users": ["\xff"]}')
    with pytest.raises(InputError, match="byte 12 is no UTF-8"):
        ForgetRequest.from_file(file)
    with pytest.raises(MissingFileError):
        ForgetRequest.from_file(tmp_path / "none.json")
    with pytest.raises(InputError, match=r"expected a \.json"):
        other = tmp_path / "request.txt"
        other.write_text("")
        ForgetRequest.from_file(other)


def test_rows_of_a_table_name_what_they_fill_in(tmp_path: Path) -> None:
    file = tmp_path / "request.csv"
    file.write_text("user,item,behaviour\nu1,,\n,i1,\nu2,i2,\nu3,,views\n,,buys\nu1,,\n")
    found = ForgetRequest.from_file(file)
    assert found.users == ("u1",) and found.items == ("i1",) and found.pairs == (("u2", "i2"),)
    assert found.behaviours == (("views", "u3"), ("buys", None))


def test_columns_of_other_names_are_told_and_the_rest_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "request.tsv"
    file.write_text("uid\tiid\tval\n1\t2\t5.0\n1\t3\t4.0\n")
    assert ForgetRequest.from_file(file, {"user": "uid", "item": "iid"}).pairs == (("1", "2"), ("1", "3"))
    with pytest.raises(InputError, match=r"unknown column of .*'uid'"):
        ForgetRequest.from_file(file)
    with pytest.raises(InputError, match=r"unknown column of .*'sku'"):
        ForgetRequest.from_file(file, {"item": "sku"})
    file.write_text("user\titem\n1\n")
    with pytest.raises(InputError, match="line 2: 1 fields, the header has 2"):
        ForgetRequest.from_file(file)


def test_frames_of_triples_and_numbers() -> None:
    frame = pd.DataFrame({"head": ["a", None], "relation": ["r", "s"], "tail": ["b", None]})
    found = ForgetRequest.from_frame(frame)
    assert found.triples == (("a", "r", "b"),) and found.relations == ("s",)
    numbers = pd.DataFrame({"user": [1.0, float("nan")], "item": [2, 3]})
    assert ForgetRequest.from_frame(numbers) == ForgetRequest(pairs=((1, 2),), items=(3,))
    with pytest.raises(InputError, match="row 1: head is no selector"):
        ForgetRequest.from_frame(pd.DataFrame({"head": ["a"]}))


def test_ids_from_arrays_are_plain() -> None:
    users = np.array([3, 4])
    found = ForgetRequest(users=tuple(users), pairs=((users[0], users[1]),), time=(TimeRange(0, 1, users[0]),))
    assert found == ForgetRequest(users=(3, 4), pairs=((3, 4),), time=(TimeRange(0, 1, 3),))
    assert found.digest(b"s" * 16) == ForgetRequest.from_dict(found.to_dict()).digest(b"s" * 16)
