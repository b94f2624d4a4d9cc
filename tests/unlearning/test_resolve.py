"""Requests met with a dataset, against set logic written out; and the dataset that is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.datasets import Builder, RecDataset
from graphrec.errors import InputError
from graphrec.unlearning import ForgetRequest, TimeRange, compacted, remaining, resolve
from graphrec.unlearning.resolve import counts

INTERACTS, VIEWS = ("user", "interacts", "item"), ("user", "views", "item")
TRUSTS, TAGGED = ("user", "trusts", "user"), ("item", "tagged", "tag")


def world() -> RecDataset:
    """Two behaviours, trust, tags, a knowledge graph, features, texts and names, all small."""
    draws = np.random.default_rng(4)
    users = [f"u{number}" for number in range(8)]
    items = [f"i{number}" for number in range(10)]
    pairs = [(u, i) for u in users for i in draws.choice(items, 5, replace=False)]
    frame = pd.DataFrame(pairs, columns=["user", "item"])
    frame["time"] = draws.integers(0, 100, len(frame))
    frame["part"] = np.where(np.arange(len(frame)) % 5 == 4, "test", "train")
    builder = Builder()
    builder.nodes("user", users)
    builder.nodes("item", items)
    builder.interactions(frame, user="user", item="item", time="time", part="part")
    views = frame.iloc[::3].assign(item=lambda f: f["item"].map(lambda i: f"i{(int(i[1:]) + 1) % 10}"))
    builder.links(
        views[["user", "item"]].drop_duplicates(), source=("user", "user"), relation="views", target=("item", "item")
    )
    builder.links(
        pd.DataFrame({"user": users, "friend": users[1:] + users[:1]}),
        source=("user", "user"),
        relation="trusts",
        target=("user", "friend"),
    )
    builder.tags(
        pd.DataFrame({"item": items, "tag": ["t1", "t2"] * 5, "user": (users * 2)[:10]}),
        item="item",
        tag="tag",
        user="user",
    )
    builder.triples(
        pd.DataFrame({"item": items, "rel": ["made_by", "in_genre"] * 5, "value": ["a", "b", "c", "a", "b"] * 2}),
        head=("item", "item"),
        relation="rel",
        tail=("entity", "value"),
    )
    builder.features("item", items, draws.normal(size=(10, 3)).astype(np.float32), name="image")
    builder.features("user", users, draws.normal(size=(8, 2)).astype(np.float32), name="profile")
    builder.texts("item", items, [f"about {item}" for item in items])
    builder.names("user", users, [f"Name of {user}" for user in users])
    return builder.build()


DATA = world()


def rows(data: RecDataset, edge_type: tuple[str, str, str]) -> list[dict[str, Any]]:
    """The rows of a table with raw ids."""
    table = data.tables[edge_type]
    out = []
    for row in range(len(table)):
        entry = {
            "id": int(table.edge_id[row]),
            "source": data.vocabularies[edge_type[0]].raw[table.source[row]],
            "target": data.vocabularies[edge_type[2]].raw[table.target[row]],
        }
        if table.time is not None:
            entry["time"] = table.time[row]
        if table.user is not None:
            entry["user"] = data.vocabularies["user"].raw[table.user[row]]
        if table.relation is not None:
            entry["relation"] = data.relations.raw[table.relation[row]]
        out.append(entry)
    return out


def expected(request: ForgetRequest) -> dict[tuple[str, str, str], set[int]]:
    """Edge ids that a request names, by the plainest reading of each selector."""
    found: dict[tuple[str, str, str], set[int]] = {}
    for edge_type in DATA.tables:
        source, name, target = edge_type
        for row in rows(DATA, edge_type):
            ends = {source: row["source"], target: row["target"]}
            of_user = [row[e] for e, kind in (("source", source), ("target", target)) if kind == "user"]
            of_user += [row["user"]] if "user" in row else []
            of_item = [row[e] for e, kind in (("source", source), ("target", target)) if kind == "item"]
            hit = any(user in request.users for user in of_user) or any(item in request.items for item in of_item)
            if (source, target) == ("user", "item"):
                hit |= (ends["user"], ends["item"]) in request.pairs
                hit |= any(name == b and user in (None, ends["user"]) for b, user in request.behaviours)
            for span in request.time:
                if "time" in row and span.start <= row["time"] < span.end:
                    hit |= span.user is None or span.user in of_user
            if "relation" in row:
                hit |= row["relation"] in request.relations
                hit |= (row["source"], row["relation"], row["target"]) in request.triples
            hit |= row["id"] in request.edges.get("__".join(edge_type), ())
            if hit:
                found.setdefault(edge_type, set()).add(row["id"])
    return found


users = st.sampled_from([f"u{n}" for n in range(9)])
items = st.sampled_from([f"i{n}" for n in range(11)])


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        ForgetRequest,
        users=st.lists(users, max_size=2).map(tuple),
        items=st.lists(items, max_size=2).map(tuple),
        pairs=st.lists(st.tuples(users, items), max_size=4).map(tuple),
        behaviours=st.lists(st.tuples(st.just("views"), st.none() | users), max_size=1).map(tuple),
        time=st.lists(
            st.builds(TimeRange, st.integers(0, 90).map(float), st.integers(91, 99).map(float), users), max_size=2
        ).map(tuple),
        relations=st.lists(st.sampled_from(["made_by", "in_genre", "none"]), max_size=1).map(tuple),
        triples=st.lists(
            st.tuples(items, st.sampled_from(["made_by", "in_genre"]), st.sampled_from("abcd")), max_size=3
        ).map(tuple),
        edges=st.dictionaries(
            st.just("user__interacts__item"), st.lists(st.integers(0, 60), max_size=3).map(tuple), max_size=1
        ),
    )
)
def test_selectors_name_what_set_logic_names(request: ForgetRequest) -> None:
    found = resolve(request, DATA)
    wanted = expected(request)
    assert {name: set(ids.tolist()) for name, ids in found.edges.items()} == wanted
    for ids in found.edges.values():
        assert (np.diff(ids) > 0).all()
    left = remaining(DATA, found)
    for edge_type, table in DATA.tables.items():
        kept = set(left.tables[edge_type].edge_id.tolist())
        assert kept == set(table.edge_id.tolist()) - wanted.get(edge_type, set())
    assert left.vocabularies == DATA.vocabularies
    trained = found.training(DATA)
    part = DATA.tables[INTERACTS]
    for number in trained.get(INTERACTS, ()):
        assert part.part is not None and part.part[part.positions([number])[0]] == 0


def test_a_user_s_request_covers_all_that_is_known_of_them() -> None:
    found = resolve(ForgetRequest(users=("u3",)), DATA)
    parts = DATA.tables[INTERACTS].part
    assert parts is not None
    named = parts[DATA.tables[INTERACTS].positions(found.edges[INTERACTS])]
    assert set(named.tolist()) == {0, 2}, "training and test rows"
    assert len(found.edges[TRUSTS]) == 2, "who they trust, and who trusts them"
    assert any(name[2] == "tag" for name in found.edges), "tags they assigned"
    left = remaining(DATA, found)
    assert not left.features["user", "profile"][3].any() and not left.feature_masks["user", "profile"][3]
    assert left.names["user"][3] is None and left.names["user"][2] == "Name of u2"
    assert DATA.features["user", "profile"][3].any(), "the dataset itself is as it was"
    small = compacted(DATA, found)
    assert "u3" not in small.vocabularies["user"] and small.num_users == 7
    kept = small.tables[INTERACTS].edge_id
    assert kept.tolist() == left.tables[INTERACTS].edge_id.tolist()
    raw = small.vocabularies["user"].raw[small.tables[INTERACTS].source]
    assert raw.tolist() == left.vocabularies["user"].raw[left.tables[INTERACTS].source].tolist()


def test_an_item_s_features_and_texts_go_alone() -> None:
    found = resolve(ForgetRequest(features=(("i2", None),), texts=("i4",)), DATA)
    assert not found.edges and not found.empty
    left = remaining(DATA, found)
    assert not left.features["item", "image"][2].any() and left.features["item", "image"][3].any()
    assert left.texts["item"][4] is None and left.texts["item"][2] == "about i2"
    assert left.fingerprint != DATA.fingerprint
    assert compacted(DATA, found).num_items == DATA.num_items


def test_unknown_ids_are_reported_or_refused() -> None:
    request = ForgetRequest(
        users=("u1", "nobody"),
        items=(-4,),
        pairs=(("u1", "nothing"),),
        relations=("sings",),
        triples=(("x", "y", "z"),),
    )
    found = resolve(request, DATA)
    assert found.unknown == {
        "users": ("nobody",),
        "items": (-4,),
        "pairs": (("u1", "nothing"),),
        "relations": ("sings",),
        "triples": (("x", "y", "z"),),
    }
    with pytest.raises(InputError, match="5 of what the request names"):
        resolve(request, DATA, strict=True)
    assert counts(found)["unknown/users"] == 1 and counts(found)["nodes/users"] == 1


def test_an_empty_request_is_the_dataset_itself() -> None:
    found = resolve(ForgetRequest(), DATA)
    assert found.empty and len(found) == 0
    assert remaining(DATA, found) is DATA and compacted(DATA, found) is DATA


def test_bad_requests_say_what_is_wrong() -> None:
    everybody = tuple(DATA.vocabularies["user"].raw.tolist())
    with pytest.raises(InputError, match=r"all \d+ training interactions.*nothing would be left"):
        resolve(ForgetRequest(users=everybody), DATA)
    with pytest.raises(InputError, match="edge ids mean something else here"):
        resolve(ForgetRequest(edges={"user__interacts__item": (1,)}, fingerprint="0" * 64), DATA)
    resolve(ForgetRequest(edges={"user__interacts__item": (1,)}, fingerprint=DATA.fingerprint), DATA)
    with pytest.raises(InputError, match="unknown behaviour 'buy'"):
        resolve(ForgetRequest(behaviours=(("buy", None),)), DATA)
    with pytest.raises(InputError, match=r"unknown feature 'imag'.*'image'"):
        resolve(ForgetRequest(features=(("i1", "imag"),)), DATA)
    with pytest.raises(InputError, match="unknown edge type"):
        resolve(ForgetRequest(edges={"user__buys__item": (1,)}), DATA)
    other = DATA.without(DATA.tables[INTERACTS].edge_id[:1])
    with pytest.raises(InputError, match="resolve it again"):
        remaining(other, resolve(ForgetRequest(users=("u1",)), DATA))


def test_times_are_asked_of_data_that_has_them() -> None:
    builder = Builder()
    builder.interactions(pd.DataFrame({"u": [1, 2], "i": [1, 2]}), user="u", item="i")
    with pytest.raises(InputError, match="has no times"):
        resolve(ForgetRequest(time=(TimeRange(0, 1),)), builder.build())
