"""What an explanation of a recommendation says, as plain values: written to JSON, read again, shown by a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import pandas as pd

from graphrec.errors import InputError
from graphrec.graphs.adjacency import EdgeType

Order = Literal["effect", "strength"]
ORDERS = ("effect", "strength")


@dataclass(frozen=True)
class Node:
    """A node: its type, raw id, and name where it has one."""

    node_type: str
    id: Any
    name: str | None

    def __str__(self) -> str:
        return self.name or f"{self.node_type} {self.id}"


@dataclass(frozen=True)
class Path:
    """One path from the user to the item.

    Attributes:
        nodes: from the user to the item.
        relations: what joins each node to the next; its name, and whether it is read backwards.
        edges: type and edge id of each.
        strength: see :func:`graphrec.influence.paths.paths_between`.
        drop: what the score loses when the path's triples are taken out of the graph; None where it was not asked.
        effect: the estimate of ``drop`` that candidates were ranked by, from the slopes of the score in the weights of
            the path's triples; None where there was no such ranking.
    """

    nodes: tuple[Node, ...]
    relations: tuple[tuple[str, bool], ...]
    edges: tuple[tuple[EdgeType, int], ...]
    strength: float
    drop: float | None
    effect: float | None = None

    def __str__(self) -> str:
        parts = [str(self.nodes[0])]
        for (name, inverse), node in zip(self.relations, self.nodes[1:], strict=True):
            parts.append(f"←{name}– {node}" if inverse else f"–{name}→ {node}")
        return " ".join(parts)


@dataclass(frozen=True)
class Support:
    """A training interaction of the user, and what the score loses without it.

    Attributes:
        item: what the user interacted with.
        edge_id: of the interaction.
        influence: estimated score without it less the score: negative where it supports the item; None where candidates
            were ranked by deletion.
        deleted: what the score loses when the interaction is deleted and the parameters stay. Of a closed form, which
            is solved again: what it loses altogether.
        unlearned: what it loses with the parameters after the removal step; None where there was none.
    """

    item: Node
    edge_id: int
    influence: float | None
    deleted: float
    unlearned: float | None

    @property
    def loss(self) -> float:
        """``unlearned`` where there is one, else ``deleted``."""
        return self.deleted if self.unlearned is None else self.unlearned


@dataclass(frozen=True)
class Because:
    """The interactions that support an item most.

    Attributes:
        verb: what the interactions are, the middle word of their edge type.
        by: what candidates were ranked by: ``influence``, ``deletion`` or ``solved again``.
        supports: most supporting first.
        controls: losses of the score without others of the user's interactions, drawn, to compare with: of the last of
            the measures that ``supports`` have.
        candidates: how many interactions of the user were ranked.
        interactions: how many the user has.
        facts: damping, relative_residual, gradient_norm, drift, span, spread, products, seconds, where there are such;
            see :mod:`graphrec.influence.trust`.
        note: why candidates were not ranked as asked, or what to keep in mind of the estimates; may be empty.
    """

    verb: str
    by: str
    supports: tuple[Support, ...]
    controls: tuple[float, ...]
    candidates: int
    interactions: int
    facts: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    def frame(self) -> pd.DataFrame:
        """A row for each interaction: item, influence, deleted, unlearned."""
        rows = [(str(one.item), one.influence, one.deleted, one.unlearned) for one in self.supports]
        return pd.DataFrame(rows, columns=["item", "influence", "deleted", "unlearned"])

    def sentence(self) -> str:
        """One line that names the interactions whose removal was found to cost something."""
        helping = [str(one.item) for one in self.supports if one.loss > 0]
        if not helping:
            return "No single training interaction of the user was found that the score rests on."
        return f"Because of the user's training interactions ({self.verb}) with: {', '.join(helping)}."

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "verb": self.verb,
            "ranked_by": self.by,
            "interactions": self.interactions,
            "candidates": self.candidates,
            "supports": [
                {
                    "item": one.item.id,
                    "item_name": one.item.name,
                    "edge_id": one.edge_id,
                    "influence": one.influence,
                    "drop_deleted": one.deleted,
                    "drop_unlearned": one.unlearned,
                }
                for one in self.supports
            ],
            "controls": list(self.controls),
            "facts": dict(self.facts),
            "note": self.note,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], item_type: str = "item") -> Self:
        """The other way of :meth:`to_dict`; ``item_type`` is the node type of the items."""
        supports = tuple(
            Support(
                Node(item_type, one["item"], one["item_name"]),
                int(one["edge_id"]),
                one["influence"],
                one["drop_deleted"],
                one["drop_unlearned"],
            )
            for one in values["supports"]
        )
        return cls(
            values["verb"],
            values["ranked_by"],
            supports,
            tuple(values["controls"]),
            int(values["candidates"]),
            int(values["interactions"]),
            dict(values["facts"]),
            str(values.get("note", "")),
        )


@dataclass(frozen=True)
class Explanation:
    """Why a user is shown an item.

    Attributes:
        user: the user.
        item: the item.
        score: the model's.
        rank: the item's place in the user's list of items without a training edge, from 1.
        strength_by: ``attention``: the model's own; ``degree``: the model has none, and every node listens to all its
            neighbours alike; empty: the model reads no knowledge graph, and there are no paths.
        paths: as ``order`` says.
        controls: what the score loses when as many other triples of the same relations and of the most alike degrees
            are taken out in place of the first path's, one number for each draw.
        tables: what the model says of itself (intents, relation weights), by title.
        because: the user's training interactions that the score rests on; None where they were not asked for.
        order: ``effect``: of the candidates, the strongest paths, those with the largest estimated effect on the score
            were measured by deletion and stand by what was measured; ``strength``: strongest first, whatever they do.
        order_note: why it is not the order that was asked for; empty where it is.
        candidates: how many of the strongest paths were looked at.
        alike: after so many paths that reach the item by the same triple, further ones come after the others; 0: no
            path has to wait.
        draws: how often control triples were to be taken out; 0: never.
    """

    user: Node
    item: Node
    score: float
    rank: int
    strength_by: str
    paths: tuple[Path, ...]
    controls: tuple[float, ...] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    because: Because | None = None
    order: Order = "strength"
    order_note: str = ""
    candidates: int = 0
    alike: int = 0
    draws: int = 0

    def frame(self) -> pd.DataFrame:
        """A row for each path: rank, path, strength, effect, drop."""
        rows = [(n, str(path), path.strength, path.effect, path.drop) for n, path in enumerate(self.paths, 1)]
        return pd.DataFrame(rows, columns=["rank", "path", "strength", "effect", "drop"])

    def order_sentence(self) -> str:
        """What the order of the paths rests on."""
        if not self.paths:
            return self.order_note
        by = {"attention": "attention", "degree": "shares by degree, for the model has no attention"}[self.strength_by]
        if self.order == "effect":
            if self.candidates == 1:
                return f"The only path that was looked at (strength: {by}), with its measured drop."
            said = (
                f"Of the {self.candidates} strongest paths (strength: {by}), those the score rests on most: picked "
                "by strength and by the score's slopes in the weights of their triples, ordered by the measured drop."
            )
            if self.alike:
                said += f" After {self.alike} that reach the item by the same triple, more of them come last."
            return said
        said = f"The strongest paths first (strength: {by}), whatever they do to the score."
        return f"{said} {self.order_note}".strip()

    def control_sentence(self) -> str:
        """What the first path's drop is to be compared with; nothing where no comparison was asked for."""
        if not self.paths or not (self.controls or self.draws):
            return ""
        if not self.controls:
            return "No control triples were found to compare with."
        mean = sum(self.controls) / len(self.controls)
        return (
            "Taking out other triples of the same relations and of similar degree instead of the first path's costs "
            f"{mean:.3g} on average ({len(self.controls)} {'draws' if len(self.controls) > 1 else 'draw'})."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "user_type": self.user.node_type,
            "user": self.user.id,
            "user_name": self.user.name,
            "item_type": self.item.node_type,
            "item": self.item.id,
            "item_name": self.item.name,
            "score": self.score,
            "rank": self.rank,
            "strength_by": self.strength_by,
            "order": self.order,
            "order_note": self.order_note,
            "candidates": self.candidates,
            "alike": self.alike,
            "draws": self.draws,
            "paths": [
                {
                    "rank": n,
                    "path": str(path),
                    "nodes": [{"type": x.node_type, "id": x.id, "name": x.name} for x in path.nodes],
                    "relations": [{"name": name, "inverse": inverse} for name, inverse in path.relations],
                    "edges": [{"type": "__".join(kind), "edge_id": number} for kind, number in path.edges],
                    "strength": path.strength,
                    "effect": path.effect,
                    "drop": path.drop,
                }
                for n, path in enumerate(self.paths, 1)
            ],
            "controls": list(self.controls),
            "tables": {title: table.to_dict("records") for title, table in self.tables.items()},
            "because": None if self.because is None else self.because.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The other way of :meth:`to_dict`.

        Raises:
            InputError: values that :meth:`to_dict` does not give.
        """
        try:
            return cls._from_dict(values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"no explanation: {type(error).__name__} {error}.") from error

    @classmethod
    def _from_dict(cls, values: Mapping[str, Any]) -> Self:
        because = values["because"]
        if values["order"] not in ORDERS or values["strength_by"] not in ("attention", "degree", ""):
            raise ValueError(f"order {values['order']!r}, strength by {values['strength_by']!r}")
        return cls(
            Node(values["user_type"], values["user"], values["user_name"]),
            Node(values["item_type"], values["item"], values["item_name"]),
            float(values["score"]),
            int(values["rank"]),
            values["strength_by"],
            tuple(_path(one) for one in values["paths"]),
            tuple(values["controls"]),
            {str(title): pd.DataFrame(rows) for title, rows in values["tables"].items()},
            None if because is None else Because.from_dict(because, values["item_type"]),
            values["order"],
            values["order_note"],
            int(values["candidates"]),
            int(values["alike"]),
            int(values.get("draws", 1)),
        )


def _path(values: Mapping[str, Any]) -> Path:
    edges = []
    for one in values["edges"]:
        source, name, target = str(one["type"]).split("__")
        edges.append(((source, name, target), int(one["edge_id"])))
    return Path(
        tuple(Node(one["type"], one["id"], one["name"]) for one in values["nodes"]),
        tuple((one["name"], bool(one["inverse"])) for one in values["relations"]),
        tuple(edges),
        float(values["strength"]),
        values["drop"],
        values["effect"],
    )
