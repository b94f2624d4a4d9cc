"""Edges that were never there, put into a training set so that unlearning has to take them out again.

The attack of UnlearnRec (Chen et al., SIGIR 2025, https://arxiv.org/abs/2505.22649, section on evaluation): a model
trained on clean data names the item that each of some users wants least, and the user that wants each of some items
least; these pairs are added, the model is trained again, and the request asks for exactly these pairs. What a perfect
method gives back is a model trained on the clean data. Beside it, pairs drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.notes import Note
from graphrec.datasets.tables import PARTS, EdgeTable, edge_type_name
from graphrec.errors import InputError
from graphrec.evaluation.scoring import evaluating
from graphrec.models.base import GraphRecommender
from graphrec.randomness import derive, hash_bits, hash_integers

Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Injection:
    """A dataset with edges added to its training part.

    Attributes:
        data: the clean data and the added edges; what was there keeps its edge ids.
        clean: without them.
        users: (M,) int64 codes.
        items: (M,) int64 codes.
        edge_id: (M,) int64 ids of the added edges: what the request names.
    """

    data: RecDataset
    clean: RecDataset
    users: Codes
    items: Codes
    edge_id: Codes

    def __len__(self) -> int:
        return len(self.edge_id)


def inject_adversarial(
    model: GraphRecommender,
    data: RecDataset,
    *,
    users: float = 1.0,
    items: float = 1.0,
    seed: int = 0,
    block: int = 1024,
) -> Injection:
    """Add the lowest-scored item of a share of the users and the lowest-scored user of a share of the items.

    A pair that both sides choose is added once. Pairs of the data, of any part, are never chosen (the authors' code
    leaves such pairs in, and a pair that is injected twice breaks its residual graph): the least wanted of the others
    is. Users and items are drawn by a hash of their number.

    Args:
        model: trained on ``data``.
        data: the clean data.
        users: share of the users, in [0, 1]; 1 in the published ML-1M runs.
        items: share of the items, in [0, 1].
        seed: of the draw of users and items.
        block: users scored at a time.

    Raises:
        InputError: a share outside [0, 1], or a model of other data.
    """
    for name, share in (("users", users), ("items", items)):
        if not 0 <= share <= 1:
            raise InputError(f"the share of {name} must lie in [0, 1], found {share}.")
    if (model.num_users, model.num_items) != (data.num_users, data.num_items):
        raise InputError(
            f"the model has {model.num_users} users and {model.num_items} items, {data.name!r} has {data.num_users} "
            f"and {data.num_items}."
        )
    table = data.tables[data.target]
    device = model.device
    every = np.argsort(table.source, kind="stable")
    starts = np.searchsorted(table.source[every], np.arange(data.num_users + 1))
    known = torch.from_numpy(table.target[every].astype(np.int64)).to(device)
    worst_item = torch.empty(data.num_users, dtype=torch.int64, device=device)
    least = torch.full((data.num_items,), torch.inf, device=device)
    worst_user = torch.zeros(data.num_items, dtype=torch.int64, device=device)
    free = torch.zeros(data.num_users, dtype=torch.bool, device=device)
    with evaluating(model):
        for first in range(0, data.num_users, block):
            part = torch.arange(first, min(first + block, data.num_users), device=device)
            last = first + len(part)
            scores = model.score(part).clone()
            counts = torch.from_numpy(np.diff(starts[first : last + 1])).to(device)
            rows = torch.repeat_interleave(torch.arange(len(part), device=device), counts)
            scores[rows, known[starts[first] : starts[last]]] = torch.inf
            lowest, worst_item[part] = scores.min(1)
            free[part] = lowest < torch.inf
            lowest, at = scores.min(0)
            lower = lowest < least
            least[lower], worst_user[lower] = lowest[lower].to(least), part[at[lower]]
    by_user = _drawn(data.num_users, users, seed, "users") & free.cpu().numpy()
    by_item = _drawn(data.num_items, items, seed, "items") & (least < torch.inf).cpu().numpy()
    pairs = np.concatenate(
        [
            np.stack([np.flatnonzero(by_user), worst_item.cpu().numpy()[by_user]]),
            np.stack([worst_user.cpu().numpy()[by_item], np.flatnonzero(by_item)]),
        ],
        axis=1,
    )
    pairs = np.unique(pairs, axis=1)
    return inject(data, pairs[0], pairs[1])


def inject_random(data: RecDataset, count: int, *, seed: int = 0) -> Injection:
    """Add ``count`` pairs drawn uniformly among those that are in no part of the data.

    Raises:
        InputError: a count below 1, or more than half of the pairs that are free.
    """
    size = data.num_users * data.num_items
    table = data.tables[data.target]
    known = np.unique(_keys(table.source, table.target, data))
    if isinstance(count, bool) or not 1 <= count <= (size - len(known)) // 2:
        raise InputError(
            f"the number of injected edges must lie between 1 and {(size - len(known)) // 2}, half of the free pairs, "
            f"found {count}."
        )
    found, turn = np.empty(0, np.int64), 0
    while len(found) < count:
        number = torch.arange(2 * count + 16)
        drawn = hash_integers(derive(seed, "injected pairs"), size, number, turn).numpy()
        drawn = drawn[~np.isin(drawn, known) & ~np.isin(drawn, found)]
        _, first = np.unique(drawn, return_index=True)
        found, turn = np.concatenate([found, drawn[np.sort(first)]]), turn + 1
    found = found[:count]
    return inject(data, found // data.num_items, found % data.num_items)


def inject(data: RecDataset, users: Codes, items: Codes) -> Injection:
    """Add given pairs (M,), (M,) of codes to the training part.

    They get edge ids behind all others, in order of user and item; ratings are unknown, the weight is 1 and the time
    the latest of the data's, where there are such columns.

    Raises:
        InputError: a pair twice, one that is in the data already, or a code outside of it.
    """
    users, items = np.asarray(users, np.int64), np.asarray(items, np.int64)
    if users.shape != items.shape or users.ndim != 1:
        raise InputError(f"users and items must be two lists of one length, found {users.shape} and {items.shape}.")
    for name, codes, size in (("user", users, data.num_users), ("item", items, data.num_items)):
        if len(codes) and not 0 <= codes.min() <= codes.max() < size:
            raise InputError(f"codes of {name}s must lie in [0, {size}), found {codes.min()} to {codes.max()}.")
    table = data.tables[data.target]
    order = np.lexsort((items, users))
    users, items = users[order], items[order]
    keys = _keys(users, items, data)
    if (keys[1:] == keys[:-1]).any():
        raise InputError("a pair is to be injected twice; take out the duplicates.")
    if np.isin(keys, _keys(table.source, table.target, data)).any():
        raise InputError("a pair that is to be injected is in the data already, in one of its parts.")
    edge_id = (int(table.edge_id.max()) + 1 if len(table) else 0) + np.arange(len(keys))
    constants = {"part": PARTS["train"], "label": 1, "rating": np.nan, "weight": 1.0}
    new = {"source": users, "target": items, "edge_id": edge_id}
    for name, column in table.columns.items():
        if name in new:
            continue
        if name not in constants and name != "time":
            raise InputError(f"edges cannot be injected into interactions with a column {name!r}.")
        value = constants[name] if name in constants else column.max() if len(column) else 0
        new[name] = np.full(len(keys), value)
    joined = {name: np.concatenate([column, new[name].astype(column.dtype)]) for name, column in table.columns.items()}
    place = np.lexsort((joined["target"], joined["source"]))
    made = EdgeTable(table.edge_type, {name: column[place] for name, column in joined.items()})
    note = Note("injected", edge_type_name(data.target), len(keys), "added to the training part")
    return Injection(data.with_table(made, note), data, users, items, edge_id)


def _keys(users: NDArray[np.integer], items: NDArray[np.integer], data: RecDataset) -> Codes:
    return users.astype(np.int64) * data.num_items + items


def _drawn(size: int, share: float, seed: int, side: str) -> NDArray[np.bool_]:
    """Exactly ``round(share * size)`` of the numbers, those with the smallest hash."""
    chosen = np.zeros(size, bool)
    bits = hash_bits(derive(seed, f"injection/{side}"), torch.arange(size))
    chosen[torch.argsort(bits)[: round(share * size)].numpy()] = True
    return chosen
