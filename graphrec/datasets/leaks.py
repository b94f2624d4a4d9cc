"""Knowledge that may be made of what is tested: relations between items against who consumed both, in the test part."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.notes import Note
from graphrec.datasets.relations import edge_relations, is_knowledge
from graphrec.datasets.tables import edge_type_name
from graphrec.errors import InputError

# Words that shops and log files use for what users did; "similar" and "same" are no such words.
_BEHAVIOUR = frozenset(
    {
        *("also", "bought", "buy", "buys", "purchase", "purchased", "purchases", "cart", "basket"),
        *("view", "viewed", "views", "click", "clicked", "clicks", "watched", "visited", "session"),
        *("together", "cooccurs", "cooccurrence", "interacts", "interacted", "users", "customers"),
    }
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_BLOCK = 65_536


@dataclass(frozen=True)
class RelationLeak:
    """How often two items that a relation ties meet in the test part, against random pairs as popular.

    Attributes:
        relation: its name.
        through: ``pair`` for triples between two items; ``entity`` for items that the relation ties to the same entity.
        pairs: P, pairs of two different items.
        share: of them, how many have a user with one item in test and the other in test or train.
        expected: the same for random pairs whose items have the same number of test and training users.
        lift: share / expected; infinite where random pairs never meet.
        z: (share - expected) in standard errors.
        test_share: as ``share``, both items in test.
        test_expected: as ``expected``, both items in test.
        named: whether the name speaks of what users did (``also_bought``).
        possible: whether the relation may be made of tested interactions. Between items: lift and z are large, or the
            name says so; over an entity, where content ties items too: both.
    """

    relation: str
    through: Literal["pair", "entity"]
    pairs: int
    share: float
    expected: float
    lift: float
    z: float
    test_share: float
    test_expected: float
    named: bool
    possible: bool

    def __str__(self) -> str:
        lift = "which never do" if np.isinf(self.lift) else f"{self.lift:.1f} times as often as by chance"
        over = " with a common entity" if self.through == "entity" else ""
        name = "; its name speaks of what users did" if self.named else ""
        return (
            f"{self.relation}: {self.share:.2%} of {self.pairs:,} item pairs{over} meet in a test user, random pairs "
            f"as popular {self.expected:.2%} ({lift}){name}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, plain numbers."""
        return asdict(self)


def speaks_of_behaviour(relation: str) -> bool:
    """Whether a relation's name speaks of what users did."""
    return any(word.lower() in _BEHAVIOUR for word in _WORD.findall(relation))


Through = Literal["pair", "entity"]


def item_pairs(data: RecDataset, seed: int = 0) -> dict[tuple[str, Through], NDArray[np.int64]]:
    """(P, 2) pairs of different items that each relation ties, by its name and by what it ties them through.

    Triples between items are pairs themselves. For a triple between an item and an entity, another item that the same
    relation ties to the entity is drawn.
    """
    found: dict[tuple[str, Through], list[NDArray[np.int64]]] = {}
    for edge_type, table in data.tables.items():
        if not is_knowledge(edge_type) or "item" not in (edge_type[0], edge_type[2]):
            continue
        codes, names = edge_relations(data, table)
        pairs = np.stack([table.source, table.target], axis=1).astype(np.int64)
        through: Through = "pair" if edge_type[0] == edge_type[2] else "entity"
        for code in np.unique(codes).tolist():
            mine = pairs[codes == code]
            if through == "entity":
                place = 0 if edge_type[0] == "item" else 1
                mine = _sharing(mine[:, place], mine[:, 1 - place], _seed(seed, f"pairs of {names[code]}"))
            found.setdefault((names[code], through), []).append(mine[mine[:, 0] != mine[:, 1]])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _sharing(items: NDArray[np.int64], entities: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """For each (item, entity) whose entity has other items too, the item and one of these."""
    _, group = np.unique(entities, return_inverse=True)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(group, minlength=1))])
    place = np.empty(len(items), np.int64)
    place[order] = np.arange(len(items)) - starts[group[order]]
    size = starts[group + 1] - starts[group]
    step = 1 + (_uniform(seed, len(items)) * np.maximum(size - 1, 1)).astype(np.int64)
    other = items[order[starts[group] + (place + step) % size]] if len(items) else items
    return np.stack([items, other], axis=1)[size > 1]


def leak_notes(data: RecDataset) -> list[Note]:
    """A note for each relation of items whose name speaks of what users did: what can be said without counting."""
    told = "named like what users did; graphrec.datasets.relation_leaks measures whether it tells the test part"
    counts: dict[str, int] = {}
    for edge_type, table in data.tables.items():
        if is_knowledge(edge_type) and "item" in (edge_type[0], edge_type[2]):
            codes, names = edge_relations(data, table)
            for code, count in enumerate(np.bincount(codes, minlength=len(names)).tolist()):
                if count and speaks_of_behaviour(names[code]):
                    counts[names[code]] = counts.get(names[code], 0) + count
    return [Note("possible leak", f"triples of {name}", count, told) for name, count in counts.items()]


def relation_leaks(
    data: RecDataset, *, draws: int = 5, seed: int = 0, min_lift: float = 2.0, min_z: float = 3.0
) -> tuple[RelationLeak, ...]:
    """Whether relations between items are made of interactions that are tested, as "also bought" is.

    A pair of items meets when a user has one of them in test and the other in test or train: that is what a model could
    read off the triple. The share of a relation's pairs (:func:`item_pairs`) that meet is held against random pairs:
    for each of them, both items are drawn anew among those with the same number of test users and as many training
    users (in powers of two). Items that are alike for other reasons meet more often than by chance too; a large lift is
    a question, not a proof.

    Args:
        data: a dataset with a test part.
        draws: random pairs for each pair.
        seed: of the draws.
        min_lift: smallest lift that is called possible.
        min_z: smallest z that is called possible.

    Returns:
        one entry a relation (and what it ties items through), the largest lift first; empty where none ties items.

    Raises:
        InputError: the dataset has no test part.
    """
    if "test" not in data.parts:
        raise InputError(f"{data.name} has no test part, so there is nothing that triples could tell; split it first.")
    test, train = (_users_of_items(data, part) for part in ("test", "train"))
    order, starts, group = _alike(test, train)
    found = []
    for (name, through), pairs in item_pairs(data, seed).items():
        if not len(pairs):
            continue
        share, test_share = _meet(pairs, test, train)
        drawn = np.concatenate([_drawn(pairs, order, starts, group, _seed(seed, name, turn)) for turn in range(draws)])
        drawn = drawn[drawn[:, 0] != drawn[:, 1]]
        expected, test_expected = _meet(drawn, test, train) if len(drawn) else (0.0, 0.0)
        lift = share / expected if expected else (np.inf if share else 1.0)
        pooled = (share * len(pairs) + expected * len(drawn)) / (len(pairs) + len(drawn))
        error = np.sqrt(max(pooled * (1 - pooled), 0.0) * (1 / len(pairs) + 1 / max(len(drawn), 1)))
        z = (share - expected) / error if error else 0.0
        named = speaks_of_behaviour(name)
        large = bool(lift >= min_lift and z >= min_z)
        possible = named or large if through == "pair" else named and large
        measured = (share, expected, float(lift), float(z), test_share, test_expected)
        found.append(RelationLeak(name, through, len(pairs), *measured, named, possible))
    return tuple(sorted(found, key=lambda leak: (-leak.lift, leak.relation)))


@dataclass(frozen=True)
class BehaviourLeak:
    """How many tested pairs another behaviour of the users holds too.

    Attributes:
        behaviour: its name.
        pairs: its distinct (user, item) pairs.
        shared: how many of them are test pairs.
        share: of the test pairs.
    """

    behaviour: str
    pairs: int
    shared: int
    share: float


def behaviour_leaks(data: RecDataset) -> tuple[BehaviourLeak, ...]:
    """For each other edge type between users and items: how many of the test pairs it holds."""
    test = data.pairs("test")
    users = np.repeat(np.arange(data.num_users), np.diff(test.indptr))
    tested = np.unique(users * data.num_items + test.items)
    found = []
    for edge_type, table in data.tables.items():
        if edge_type == data.target or (edge_type[0], edge_type[2]) != ("user", "item"):
            continue
        pairs = np.unique(table.source.astype(np.int64) * data.num_items + table.target)
        shared = int(np.isin(pairs, tested, assume_unique=True).sum())
        found.append(BehaviourLeak(edge_type_name(edge_type), len(pairs), shared, shared / max(len(tested), 1)))
    return tuple(found)


def _users_of_items(data: RecDataset, part: str) -> scipy.sparse.csr_array:
    """(I, U) ones where a user has the item in a part."""
    table = data.interactions(part)
    ones = np.ones(len(table), np.float32)
    shape = (data.num_items, data.num_users)
    made = scipy.sparse.csr_array((ones, (table.target, table.source)), shape=shape)
    made.data[:] = 1.0
    return made


def _meet(pairs: NDArray[np.int64], test: scipy.sparse.csr_array, train: scipy.sparse.csr_array) -> tuple[float, float]:
    """The share of pairs with a user who has one item in test and the other in test or train; and with both in test."""
    either = both = 0
    for start in range(0, len(pairs), _BLOCK):
        left, right = pairs[start : start + _BLOCK].T
        in_test = _common(test, left, test, right)
        crossed = _common(test, left, train, right) | _common(train, left, test, right)
        either += int((in_test | crossed).sum())
        both += int(in_test.sum())
    return either / len(pairs), both / len(pairs)


def _common(
    one: scipy.sparse.csr_array, left: NDArray[np.int64], other: scipy.sparse.csr_array, right: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether rows of two matrices have a column in common."""
    return np.asarray(one[left].multiply(other[right]).sum(axis=1)).reshape(-1) > 0


def _alike(
    test: scipy.sparse.csr_array, train: scipy.sparse.csr_array
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Items in groups as popular: items ordered by group, where each group starts, the group of each item.

    Groups have the same number of test users and the same power of two of training users.
    """
    in_test = np.diff(test.indptr).astype(np.int64)
    in_train = np.frexp(np.diff(train.indptr).astype(np.float64))[1].astype(np.int64)
    _, group = np.unique(in_test * 64 + in_train, return_inverse=True)
    group = group.reshape(-1).astype(np.int64)
    order = np.argsort(group, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(group))])
    return order, starts, group


def _drawn(
    pairs: NDArray[np.int64],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    group: NDArray[np.int64],
    seed: int,
) -> NDArray[np.int64]:
    """For each pair, two items drawn from the groups of its items."""
    sides = []
    for side in (0, 1):
        mine = group[pairs[:, side]]
        size = starts[mine + 1] - starts[mine]
        uniform = _uniform(seed, len(pairs), side)
        sides.append(order[starts[mine] + (uniform * size).astype(np.int64)])
    return np.stack(sides, axis=1)


def _seed(seed: int, purpose: str, turn: int = 0) -> int:
    from graphrec.randomness import derive  # brings torch, which reading data does without

    return derive(seed, purpose, turn)


def _uniform(seed: int, size: int, *keys: int) -> NDArray[np.float64]:
    """(size,) uniform numbers in [0, 1), a hash of the place each."""
    import torch

    from graphrec.randomness import hash_uniform

    return np.asarray(hash_uniform(seed, torch.arange(size), *keys).numpy())


def leak_table(leaks: Sequence[RelationLeak]) -> str:
    """The entries as lines for a person."""
    return "\n".join(("possible leak: " if leak.possible else "") + str(leak) for leak in leaks)
