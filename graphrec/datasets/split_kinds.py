"""The ways of splitting interactions into train, valid and test: each gives the part of every row of a table.

Ratios per user are rounded as RecBole does (evaluation practice of ``RO,RS`` and ``TO,RS``): of n interactions a later
part takes floor(ratio * n) and train takes the rest; then, from the last part to the first, a part that would be empty
although 0 < ratio * n < 1 takes one interaction from train, as long as train has more than one. So every user keeps at
least one training interaction.

Random draws are hashes of (seed, user, item): no draw depends on the number of rows or their order, so that taking rows
away leaves all other users' assignment as it was, and moves the user's own by at most the rounding. Positives and
labelled negatives are split apart, by the same rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from graphrec.datasets.cuts import Parts, cut_by_group, draws, hashes, ranks, times_of, user_groups
from graphrec.datasets.tables import PARTS, EdgeTable
from graphrec.errors import InputError, unknown

TRAIN, VALID, TEST = PARTS["train"], PARTS["valid"], PARTS["test"]


def _check_ratios(ratios: Sequence[float], what: str) -> None:
    total = sum(ratios)
    if any(not 0 <= ratio <= 1 for ratio in ratios) or ratios[0] <= 0 or abs(total - 1) > 1e-6:
        raise InputError(f"{what}: ratios {tuple(ratios)} must lie in 0 to 1, add up to 1 and leave some for train.")


def _check_fraction(fraction: float, what: str) -> None:
    if not 0 < fraction < 1:
        raise InputError(f"{what}: fraction {fraction} must lie between 0 and 1.")


@dataclass(frozen=True)
class Split:
    """A way of splitting; :meth:`assign` gives the part of each row.

    Every split has a string form: its name, a colon and its numbers (``random:.8,.1,.1``), then, where they are not the
    default, further settings such as ``;seed=3``.
    """

    name: ClassVar[str] = ""

    def assign(self, table: EdgeTable) -> Parts:
        """The part of each row of a table sorted by (user, item), (E,) int8."""
        raise NotImplementedError

    def others(self, tables: Mapping[str, EdgeTable], assigned: EdgeTable) -> dict[str, Parts]:
        """Parts for the other behaviours, where a split concerns these too; by the name of the behaviour."""
        return {}

    def numbers(self) -> tuple[object, ...]:
        """What stands behind the colon."""
        return ()

    def __str__(self) -> str:
        text = self.name + (":" if self.numbers() else "") + ",".join(_short(value) for value in self.numbers())
        seed = getattr(self, "seed", 0)
        return text + (f";seed={seed}" if seed else "")


@dataclass(frozen=True)
class RatioSplit(Split):
    """Any split whose parts are shares of the rows.

    Attributes:
        ratios: of train, valid and test; two numbers are train and test.
    """

    ratios: tuple[float, ...] = (0.8, 0.1, 0.1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratios", _three(self.ratios, self.name))

    def numbers(self) -> tuple[object, ...]:
        """The ratios."""
        return self.ratios


@dataclass(frozen=True)
class RandomSplit(RatioSplit):
    """Per user, at random, with ratios.

    Attributes:
        ratios: of train, valid and test; two numbers are train and test.
        seed: of the draws.
    """

    name: ClassVar[str] = "random"
    seed: int = 0

    def assign(self, table: EdgeTable) -> Parts:
        """Each user's interactions in the order of their hashes, cut by the ratios."""
        return cut_by_group(user_groups(table), draws(self.seed, table), self.ratios)


@dataclass(frozen=True)
class RandomPairs(RatioSplit):
    """At random over all rows, whoever's they are, with ratios (the 6:2:2 of click prediction).

    A user may be left without a training interaction.

    Attributes:
        ratios: of train, valid and test.
        seed: of the draws.
    """

    name: ClassVar[str] = "random_pairs"
    ratios: tuple[float, ...] = (0.6, 0.2, 0.2)
    seed: int = 0

    def assign(self, table: EdgeTable) -> Parts:
        """All rows in the order of their hashes, cut by the ratios."""
        group = np.zeros(len(table), np.int64)
        return cut_by_group(group, draws(self.seed, table), self.ratios)


@dataclass(frozen=True)
class TimeSplit(RatioSplit):
    """Per user, by time, with ratios: the earliest train, the latest test. Equal times go by item id.

    Attributes:
        ratios: of train, valid and test.
    """

    name: ClassVar[str] = "time"

    def assign(self, table: EdgeTable) -> Parts:
        """Each user's interactions in the order of their times, cut by the ratios."""
        return cut_by_group(user_groups(table), times_of(table, self.name), self.ratios)


@dataclass(frozen=True)
class GlobalTimeSplit(Split):
    """By two moments on the common timeline: train before the first, test from the second on.

    Other behaviours that have times are cut at the same moments. Users may be left without training interactions; the
    notes count them, and ``filter_cold`` drops theirs.

    Attributes:
        at: the two moments; empty: taken from the ratios.
        ratios: shares of all interactions that determine the moments.
    """

    name: ClassVar[str] = "global_time"
    at: tuple[float, ...] = ()
    ratios: tuple[float, ...] = (0.8, 0.1, 0.1)

    def __post_init__(self) -> None:
        if self.at:
            if len(self.at) not in (1, 2) or list(self.at) != sorted(self.at):
                raise InputError(f"{self.name}: expected one or two moments, the earlier one first, got {self.at}.")
        else:
            object.__setattr__(self, "ratios", _three(self.ratios, self.name))

    def moments(self, table: EdgeTable) -> tuple[float, float]:
        """Where valid and test begin."""
        if self.at:
            return self.at[0], self.at[-1]
        times = np.sort(times_of(table, self.name))
        edges = [min(int(np.floor(share * len(times) + 1e-9)), len(times) - 1) for share in np.cumsum(self.ratios[:2])]
        if not len(times):
            return 0.0, 0.0
        first, second = times[edges[0]], times[edges[1]]
        return first, (np.inf if self.ratios[2] == 0 else second)

    def assign(self, table: EdgeTable) -> Parts:
        """By comparing each time with the two moments."""
        return self._at(table, *self.moments(table))

    def _at(self, table: EdgeTable, first: float, second: float) -> Parts:
        times = times_of(table, self.name)
        return ((times >= first).astype(np.int8) + (times >= second)).astype(np.int8)

    def others(self, tables: Mapping[str, EdgeTable], assigned: EdgeTable) -> dict[str, Parts]:
        """Other behaviours, cut at the same moments."""
        first, second = self.moments(assigned)
        return {name: self._at(table, first, second) for name, table in tables.items() if table.time is not None}

    def numbers(self) -> tuple[object, ...]:
        """The moments, or else the ratios."""
        return self.at or self.ratios


@dataclass(frozen=True)
class LeaveOneOut(Split):
    """Per user, the last interaction is test and the one before valid; somebody with two has no valid, with one only
    train.

    Attributes:
        by: ``time``, or ``random`` for random ones.
        seed: of the draws.
    """

    name: ClassVar[str] = "leave_one_out"
    by: Literal["time", "random"] = "time"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.by not in ("time", "random"):
            raise unknown("order of leave_one_out", str(self.by), ("time", "random"))

    def assign(self, table: EdgeTable) -> Parts:
        """The last ones of each user in the order of time or of the hashes."""
        keys = times_of(table, self.name) if self.by == "time" else draws(self.seed, table)
        group = user_groups(table)
        order, place, count = ranks(group, keys)
        from_end = count - place
        parts = np.zeros(len(table), np.int8)
        parts[order[(from_end == 1) & (count > 1)]] = TEST
        parts[order[(from_end == 2) & (count > 2)]] = VALID
        return parts

    def numbers(self) -> tuple[object, ...]:
        """The order, where it is not time."""
        return () if self.by == "time" else (self.by,)


@dataclass(frozen=True)
class _ColdSplit(Split):
    side: ClassVar[str] = ""
    test: float = 0.1
    valid: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check_fraction(self.test, self.name)
        if not 0 <= self.valid < 1 - self.test:
            raise InputError(f"{self.name}: valid {self.valid} and test {self.test} leave nothing for train.")

    def nodes(self, table: EdgeTable) -> Parts:
        """The part of each node, indexed by code."""
        codes = table.source if self.side == "user" else table.target
        size = int(codes.max()) + 1 if len(codes) else 0
        active = np.flatnonzero(np.bincount(codes, minlength=size))
        order = np.argsort(hashes(self.seed, self.name, active), kind="stable")
        num_test, num_valid = int(self.test * len(active) + 1e-9), int(self.valid * len(active) + 1e-9)
        parts = np.zeros(size, np.int8)
        parts[active[order[:num_test]]] = TEST
        parts[active[order[num_test : num_test + num_valid]]] = VALID
        return parts

    def assign(self, table: EdgeTable) -> Parts:
        """The part of each row's node."""
        return self.nodes(table)[table.source if self.side == "user" else table.target]

    def others(self, tables: Mapping[str, EdgeTable], assigned: EdgeTable) -> dict[str, Parts]:
        """Other behaviours of the held-out nodes go where their interactions go: training has none of them."""
        parts = self.nodes(assigned)
        found = {}
        for name, table in tables.items():
            codes = table.source if self.side == "user" else table.target
            found[name] = np.where(codes < len(parts), parts[np.minimum(codes, len(parts) - 1)], 0).astype(np.int8)
        return found

    def numbers(self) -> tuple[object, ...]:
        """Test alone, or valid and test."""
        return (self.valid, self.test) if self.valid else (self.test,)


@dataclass(frozen=True)
class ColdItems(_ColdSplit):
    """A fraction of the items is held out with all interactions, of all behaviours. KG, tags and features stay.

    Users all of whose items are held out have no training interaction; the notes count them.

    Attributes:
        test: fraction of the items whose interactions are test.
        valid: fraction whose interactions are valid.
        seed: of the draws.
    """

    name: ClassVar[str] = "cold_items"
    side: ClassVar[str] = "item"


@dataclass(frozen=True)
class ColdUsers(_ColdSplit):
    """A fraction of the users is held out with all interactions, of all behaviours.

    Attributes:
        test: fraction of the users whose interactions are test.
        valid: fraction whose interactions are valid.
        seed: of the draws.
    """

    name: ClassVar[str] = "cold_users"
    side: ClassVar[str] = "user"


@dataclass(frozen=True)
class FixedSplit(Split):
    """The parts that came with the data.

    Attributes:
        valid: ``keep`` the valid part, or give it to ``train``.
    """

    name: ClassVar[str] = "fixed"
    valid: Literal["keep", "train"] = "keep"

    def __post_init__(self) -> None:
        if self.valid not in ("keep", "train"):
            raise unknown("treatment of the valid part", str(self.valid), ("keep", "train"))

    def assign(self, table: EdgeTable) -> Parts:
        """The table's own parts."""
        parts = _own_parts(table, self.name)
        return np.where(parts == VALID, TRAIN, parts).astype(np.int8) if self.valid == "train" else parts.copy()

    def numbers(self) -> tuple[object, ...]:
        """Nothing, or where the valid part goes."""
        return () if self.valid == "keep" else ("valid=train",)


@dataclass(frozen=True)
class HoldOutValid(Split):
    """A fraction of each user's training interactions becomes valid; test stays. A valid part that was there is train
    first.

    Attributes:
        fraction: of the training interactions.
        seed: of the draws.
    """

    name: ClassVar[str] = "valid"
    fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        _check_fraction(self.fraction, self.name)

    def assign(self, table: EdgeTable) -> Parts:
        """Each user's training interactions in the order of their hashes, cut at the fraction."""
        parts = np.zeros(len(table), np.int8) if table.part is None else table.part.copy()
        train = np.flatnonzero(parts != TEST)
        rows = table.select(train)
        parts[train] = cut_by_group(user_groups(rows), draws(self.seed, rows), (1 - self.fraction, self.fraction, 0.0))
        return parts

    def numbers(self) -> tuple[object, ...]:
        """The fraction."""
        return (self.fraction,)


def _three(ratios: Sequence[float], what: str) -> tuple[float, float, float]:
    if len(ratios) not in (2, 3):
        raise InputError(f"{what}: expected two or three ratios, got {len(ratios)}.")
    _check_ratios(ratios, what)
    return (ratios[0], 0.0, ratios[1]) if len(ratios) == 2 else (ratios[0], ratios[1], ratios[2])


def _short(value: object) -> str:
    return str(value) if isinstance(value, str) else f"{value:.12g}"


def _own_parts(table: EdgeTable, what: str) -> Parts:
    if table.part is None:
        raise InputError(f"split {what!r}: the data came without parts. Choose another split, such as random:.8,.1,.1.")
    return table.part
