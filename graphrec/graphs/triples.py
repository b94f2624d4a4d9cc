"""Triples (head, relation, tail): which are known, corrupted ones that are not, and batches of them.

Everything runs on the device of the triples. Every draw is a hash of what it is for (seed, head, relation, number of
the example, round), see :mod:`graphrec.randomness`, so that it does not depend on which other triples there are.
Letters: N nodes, R relations, T known triples, B examples, n corrupted tails of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.relational import RelationalGraph
from graphrec.randomness import derive, hash_bits, hash_integers

_ROUNDS = 8
_BLOCK = 1 << 17
_CELLS = 1 << 22
_FILTERED = 1 << 16

Candidates = slice | Tensor | None


@dataclass(frozen=True, eq=False)
class TripleIndex:
    """Known triples as sorted 64-bit keys ``(h R + r) N + t``, so that membership is one bisection.

    Attributes:
        keys: (T,) int64, ascending and distinct.
        num_nodes: N; heads and tails are numbered in one range.
        num_relations: R.
    """

    keys: Tensor
    num_nodes: int
    num_relations: int
    cache: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_triples(
        cls, heads: Tensor, relations: Tensor, tails: Tensor, num_nodes: int, num_relations: int
    ) -> TripleIndex:
        """The index of some triples; one that is given twice is known once.

        Args:
            heads: (E,) integers in [0, N).
            relations: (E,) integers in [0, R).
            tails: (E,) integers in [0, N).
            num_nodes: N.
            num_relations: R.

        Raises:
            InputError: lengths differ, an id lies outside its range, or N² R does not fit into 63 bits.
        """
        if num_nodes * num_nodes * num_relations > 2**63 - 1:
            raise InputError(
                f"keys of triples over {num_nodes:,} nodes and {num_relations:,} relations do not fit into 63 bits; "
                "number the nodes without gaps, or keep fewer relations."
            )
        if not heads.shape == relations.shape == tails.shape or heads.dim() != 1:
            raise InputError(
                f"heads, relations and tails must be (E,) alike, found {tuple(heads.shape)}, "
                f"{tuple(relations.shape)} and {tuple(tails.shape)}."
            )
        columns = {"head": (heads, num_nodes), "relation": (relations, num_relations), "tail": (tails, num_nodes)}
        for name, (ids, size) in columns.items():
            if len(ids) and not (int(ids.min()) >= 0 and int(ids.max()) < size):
                at = int(torch.nonzero((ids < 0) | (ids >= size))[0])
                raise InputError(f"triple {at} has {name} {int(ids[at])}, expected 0 to {size - 1}.")
        keys = (heads.long() * num_relations + relations.long()) * num_nodes + tails.long()
        ascending = len(keys) < 2 or bool((keys[1:] > keys[:-1]).all())
        return cls(keys if ascending else torch.unique(keys), num_nodes, num_relations)

    def __len__(self) -> int:
        """T."""
        return int(self.keys.shape[0])

    def _key(self, heads: Tensor, relations: Tensor, tails: Tensor | int) -> Tensor:
        return (heads * self.num_relations + relations) * self.num_nodes + tails

    def contains(self, heads: Tensor, relations: Tensor, tails: Tensor) -> Tensor:
        """Whether each (h, r, t) is known, boolean of the shape that the three int64 tensors broadcast to."""
        wanted = self._key(heads, relations, tails).contiguous()
        if len(self) == 0:
            return torch.zeros(wanted.shape, dtype=torch.bool, device=wanted.device)
        if wanted.device.type != "cpu" or len(self) < _FILTERED or wanted.numel() < 256:
            return self._found(wanted)
        # Hardly any corrupted triple is a fact: bits that fit into the cache tell so, and few are looked up among keys.
        flat = wanted.view(-1)
        place = _places(flat, self._filter())
        likely = torch.nonzero((self._filter()[place >> 3] >> (place & 7).to(torch.uint8)) & 1)[:, 0]
        known = torch.zeros_like(flat, dtype=torch.bool)
        known[likely] = self._found(flat[likely])
        return known.view(wanted.shape)

    def _found(self, wanted: Tensor) -> Tensor:
        at = torch.searchsorted(self.keys, wanted).clamp_(max=len(self) - 1)
        return self.keys[at] == wanted

    def _filter(self) -> Tensor:
        """Eight bits or more for each triple, packed: that of a known triple's hash is set."""
        if "filter" not in self.cache:
            with torch.inference_mode(False):  # what is kept must serve training too
                bits = torch.zeros(1 << (8 * len(self) - 1).bit_length(), dtype=torch.uint8, device=self.keys.device)
                packed = bits.new_zeros(len(bits) // 8)
                for start in range(0, len(self), _BLOCK):
                    bits[_places(self.keys[start : start + _BLOCK], packed)] = 1
                for bit, column in enumerate(bits.view(-1, 8).unbind(1)):
                    packed |= column << bit
                self.cache["filter"] = packed
        kept: Tensor = self.cache["filter"]
        return kept

    def span(self, heads: Tensor, relations: Tensor, low: int = 0, high: int | None = None) -> tuple[Tensor, Tensor]:
        """First key and one past the last of the known tails in [low, high) of each (h, r), int64 positions."""
        first = torch.searchsorted(self.keys, self._key(heads, relations, low).contiguous())
        end = self._key(heads, relations, self.num_nodes if high is None else high).contiguous()
        return first, torch.searchsorted(self.keys, end)

    def tails(self) -> Tensor:
        """Tail of each known triple, (T,) int64, ascending within a (head, relation)."""
        if "tails" not in self.cache:
            self.cache["tails"] = self.keys % self.num_nodes
        kept: Tensor = self.cache["tails"]
        return kept

    @property
    def reversed(self) -> TripleIndex:
        """The index of (tail, relation, head), made once."""
        if "reversed" not in self.cache:
            pairs = self.keys // self.num_nodes
            turned = (self.tails(), pairs % self.num_relations, pairs // self.num_relations)
            self.cache["reversed"] = TripleIndex.from_triples(*turned, self.num_nodes, self.num_relations)
        made: TripleIndex = self.cache["reversed"]
        return made

    def apply(self, function: Callable[[Tensor], Tensor]) -> TripleIndex:
        """The same index with ``function`` applied to its tensor: a move to a device."""
        return TripleIndex(function(self.keys), self.num_nodes, self.num_relations)


def _places(keys: Tensor, packed: Tensor) -> Tensor:
    """The bit of each key in a packed filter whose number of bits is a power of two."""
    return hash_bits(0, keys) & (8 * len(packed) - 1)


def triple_index(graph: RelationalGraph) -> TripleIndex:
    """The index of all edges of a graph, made once and kept with it."""
    if "triple_index" not in graph.cache:
        with torch.inference_mode(False):  # what is kept must serve training too
            ends = graph.heads(), graph.relation, graph.tails()
            graph.cache["triple_index"] = TripleIndex.from_triples(*ends, graph.num_nodes, graph.num_relations)
    kept: TripleIndex = graph.cache["triple_index"]
    return kept


def corrupted_tails(
    index: TripleIndex,
    heads: Tensor,
    relations: Tensor,
    count: int = 1,
    *,
    seed: int,
    candidates: Candidates = None,
    keys: Tensor | None = None,
    saturated: Literal["any", "error"] = "any",
) -> Tensor:
    """Tails t' drawn uniformly among the candidates for which (h, r, t') is not known.

    A draw is uniform over the candidates; one that is known is drawn again. What still meets known triples after a few
    rounds (heads linked to almost every candidate) is drawn exactly, by rank among the candidates left.

    Args:
        index: the known triples.
        heads: (B,) int64.
        relations: (B,) int64.
        count: n.
        seed: a seed of this epoch or batch.
        candidates: nodes a tail may be: a slice of node numbers (users and entities of a layout are ranges), a list of
            distinct ones (P,), or None for all N.
        keys: (B,) int64, what tells examples of one (h, r) apart. With the true tails as keys an example's draws do not
            depend on which other examples there are; None: the number of the example.
        saturated: what an example gets whose (h, r) is known with every candidate: ``any`` candidate uniformly, or an
            ``error``.

    Returns:
        (B, n) int64.

    Raises:
        InputError: no candidates, or out of range; ``saturated="error"`` and an example has no tail left.
    """
    if count < 1:
        raise InputError(f"the number of corrupted triples must be 1 or more, found {count}.")
    chosen = _chosen(candidates, index.num_nodes)
    keys = torch.arange(len(heads), device=heads.device) if keys is None else keys
    seed = derive(seed, "corrupted")
    # In blocks that stay in the cache: all of it is passes over short arrays.
    step = max(1, _BLOCK // count)
    parts = [
        _corrupted(index, heads[part], relations[part], keys[part], count, seed, chosen, saturated)
        for part in (slice(start, start + step) for start in range(0, len(heads), step))
    ]
    return torch.cat(parts) if parts else heads.new_empty(0, count)


def corrupted_heads(
    index: TripleIndex,
    relations: Tensor,
    tails: Tensor,
    count: int = 1,
    *,
    seed: int,
    candidates: Candidates = None,
    keys: Tensor | None = None,
    saturated: Literal["any", "error"] = "any",
) -> Tensor:
    """Heads h' drawn uniformly among the candidates for which (h', r, t) is not known, (B, n) int64.

    As :func:`corrupted_tails`, with heads and tails in each other's place.
    """
    return corrupted_tails(
        index.reversed, tails, relations, count, seed=seed, candidates=candidates, keys=keys, saturated=saturated
    )


def _chosen(candidates: Candidates, num_nodes: int) -> tuple[int, int] | Tensor:
    """The range [low, high) of the candidates, or the list of them."""
    if isinstance(candidates, Tensor):
        if len(candidates) == 0:
            raise InputError("there are no candidates to draw corrupted triples from.")
        return candidates
    low, high, step = (candidates or slice(None)).indices(num_nodes)
    if candidates is not None and ((candidates.stop or 0) > num_nodes or step != 1):
        raise InputError(f"candidates must be a range of nodes within 0 to {num_nodes}, found {candidates}.")
    if high <= low:
        raise InputError("there are no candidates to draw corrupted triples from.")
    return low, high


def _corrupted(
    index: TripleIndex,
    heads: Tensor,
    relations: Tensor,
    keys: Tensor,
    count: int,
    seed: int,
    chosen: tuple[int, int] | Tensor,
    saturated: str,
) -> Tensor:
    number = torch.arange(count, device=heads.device).repeat(len(heads))
    heads, relations, keys = (ids.long().repeat_interleave(count) for ids in (heads, relations, keys))
    size = len(chosen) if isinstance(chosen, Tensor) else chosen[1] - chosen[0]

    def draw(some: Tensor | slice, turn: int) -> Tensor:
        at = hash_integers(seed, size, heads[some], relations[some], keys[some], number[some], turn)
        return chosen[at] if isinstance(chosen, Tensor) else at + chosen[0]

    drawn = draw(slice(None), 0)
    again = torch.nonzero(index.contains(heads, relations, drawn))[:, 0]
    for turn in range(1, _ROUNDS):
        if len(again) == 0:
            return drawn.view(-1, count)
        fresh = draw(again, turn)
        drawn[again] = fresh
        again = again[index.contains(heads[again], relations[again], fresh)]
    if len(again):
        who = heads[again], relations[again]
        bits = hash_integers(seed, 2**62, *who, keys[again], number[again], _ROUNDS)
        if isinstance(chosen, Tensor):
            found, empty = _by_rank_in_list(index, *who, bits, chosen)
        else:
            found, empty = _by_rank_in_range(index, *who, bits, *chosen)
        if saturated == "error" and bool(empty.any()):
            head, relation = (int(ids[empty][0]) for ids in who)
            raise InputError(
                f"head {head} is linked by relation {relation} to every candidate, so that no triple can be corrupted."
            )
        drawn[again] = torch.where(empty, drawn[again], found)
    return drawn.view(-1, count)


def _by_rank_in_range(
    index: TripleIndex, heads: Tensor, relations: Tensor, bits: Tensor, first: int, stop: int
) -> tuple[Tensor, Tensor]:
    """An unknown tail in [first, stop) for each example by random bits, and whether it has none."""
    start, end = index.span(heads, relations, first, stop)
    left = stop - first - (end - start)
    rank = bits % left.clamp_min(1)
    low, high = torch.zeros_like(rank), end - start
    tails = index.tails()
    for _ in range(int(high.max()).bit_length()):
        # Finds how many known tails lie before the wanted one: those with (tail - first - number before) <= rank.
        middle = (low + high) >> 1
        at = (start + middle).clamp_max(len(index) - 1)
        before = (middle < high) & (tails[at] - first - middle <= rank)
        low = torch.where(before, middle + 1, low)
        high = torch.where(before, high, middle)
    return first + rank + low, left == 0


def _by_rank_in_list(
    index: TripleIndex, heads: Tensor, relations: Tensor, bits: Tensor, chosen: Tensor
) -> tuple[Tensor, Tensor]:
    """The same among listed candidates, every one of them looked up; in blocks."""
    found, empty = torch.empty_like(heads), torch.empty_like(heads, dtype=torch.bool)
    step = max(1, _CELLS // len(chosen))
    for start in range(0, len(heads), step):
        part = slice(start, start + step)
        free = ~index.contains(heads[part, None], relations[part, None], chosen[None, :])
        left = free.sum(1)
        rank = bits[part] % left.clamp_min(1)
        found[part] = chosen[(free.cumsum(1) > rank[:, None]).to(torch.uint8).argmax(1)]
        empty[part] = left == 0
    return found, empty


def triple_order(heads: Tensor, relations: Tensor, tails: Tensor, *, seed: int) -> Tensor:
    """A random order of triples for one epoch, (E,) int64 positions.

    Sorted by a hash of (h, r, t), so that taking one triple away leaves the order of the others.
    """
    return torch.argsort(hash_bits(derive(seed, "triples"), heads, relations, tails), stable=True)


def triples_by_head(adj: Adjacency, count: int, *, seed: int, batch: int = 0) -> Tensor:
    """Triples of one batch: heads uniformly among the nodes that have one, then one of each head's uniformly.

    Heads are drawn without replacement inside a batch, with replacement where more are asked for than there are; what
    KGAT and the models after it do.

    Args:
        adj: (N, N), rows are heads; a relational graph's ``adjacency``.
        count: B.
        seed: a seed of this epoch.
        batch: the number of the batch in its epoch.

    Returns:
        (B,) int64, positions in the stored order of ``adj``.

    Raises:
        InputError: there is no triple.
    """
    if len(adj) == 0:
        raise InputError("there are no triples to draw from.")
    if "out_degrees" not in adj.pattern_cache:
        degree = adj.degrees(0)
        adj.pattern_cache["out_degrees"] = degree, torch.nonzero(degree)[:, 0]
    degree, active = adj.pattern_cache["out_degrees"]
    heads = _heads(degree, active, count, derive(seed, "heads"), batch)
    number = torch.arange(count, device=adj.device) if count > len(active) else 0  # tells apart a head drawn twice
    return adj.rowptr[heads].long() + hash_integers(derive(seed, "tails"), degree[heads], batch, heads, number)


def _heads(degree: Tensor, active: Tensor, count: int, seed: int, batch: int) -> Tensor:
    """Nodes of one batch among the active ones, those with a degree; see :func:`triples_by_head`."""
    size = len(degree)
    if count > len(active):
        number = torch.arange(count, device=degree.device)
        return active[hash_integers(seed, len(active), batch, number)]
    share = count / len(active)
    if share < 0.25 and len(active) > size / 8:
        # The first B different nodes of a sequence of uniform draws: a sort of about B numbers instead of N.
        expected = -size * math.log1p(-share)
        number = torch.arange(int(expected + 4 * math.sqrt(size / len(active) * expected) + 8), device=degree.device)
        nodes = hash_integers(seed, size, batch, number)
        order = torch.argsort(nodes, stable=True)
        ranked = nodes[order]
        first = torch.ones_like(ranked, dtype=torch.bool)
        first[1:] = ranked[1:] != ranked[:-1]
        kept = torch.zeros_like(first)
        kept[order] = first & (degree[ranked] > 0)
        nodes = nodes[kept]
        if len(nodes) >= count:
            return nodes[:count]
    bits = hash_bits(seed, batch, active)
    return active[torch.topk(bits, count, largest=False).indices]
