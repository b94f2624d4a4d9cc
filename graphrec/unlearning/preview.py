"""What a request would touch, before anything is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.tables import PARTS, edge_type_name
from graphrec.models.base import GraphRecommender
from graphrec.runs import Run
from graphrec.unlearning.methods import METHODS
from graphrec.unlearning.methods.base import Task, Unlearner
from graphrec.unlearning.methods.estimates import Estimate, Pace
from graphrec.unlearning.resolve import Resolved, remaining


@dataclass(frozen=True)
class Preview:
    """What a request would touch.

    Attributes:
        edges: by edge type, and part where the type has parts: ``user__interacts__item/train``.
        nodes: users and items that go wholly, by node type.
        features: rows that go, by ``item/image``; texts by ``item/text``.
        users: with an edge of the ranked behaviour that goes.
        items: likewise.
        emptied_users: users who keep no training edge.
        emptied_items: items that keep no training edge.
        unknown: entries of the request that the dataset does not have, by kind.
        share: of the training edges of the ranked behaviour.
        shards: that hold an edge that goes, and how many there are; None where the model has none.
        seconds: estimates by method, once prepared where it needs that, without the evidence; 0 where nothing goes.
        basis: what each of them rests on.
        refused: methods that do not support the model, and why.
    """

    edges: Mapping[str, int]
    nodes: Mapping[str, int]
    features: Mapping[str, int]
    users: int
    items: int
    emptied_users: int
    emptied_items: int
    unknown: Mapping[str, int]
    share: float
    shards: tuple[int, int] | None
    seconds: Mapping[str, float]
    basis: Mapping[str, str]
    refused: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**vars(self), "shards": None if self.shards is None else list(self.shards)}


def preview(model: GraphRecommender, data: RecDataset, resolved: Resolved, run: Run | None = None) -> Preview:
    """Count what a resolved request would touch.

    Args:
        model: trained on ``data``.
        data: the dataset.
        resolved: the request.
        run: of the model: its seconds give the estimates.
    """
    edges: dict[str, int] = {}
    for edge_type, ids in resolved.edges.items():
        table = data.table(edge_type)
        if table.part is None:
            edges[edge_type_name(edge_type)] = len(ids)
            continue
        part = table.part[table.positions(ids)]
        for name, code in PARTS.items():
            if (part == code).any():
                edges[f"{edge_type_name(edge_type)}/{name}"] = int((part == code).sum())
    table = data.tables[data.target]
    rows = table.positions(resolved.edges.get(data.target, np.empty(0, np.int64)))
    gone = resolved.training(data).get(data.target, np.empty(0, np.int64))
    trained = data.interactions("train")
    left = trained.select(~np.isin(trained.edge_id, gone))
    features = {f"{node}/{name}": len(codes) for (node, name), codes in resolved.features.items()}
    features.update({f"{node}/text": len(codes) for node, codes in resolved.texts.items()})
    share = len(gone) / max(len(trained), 1)
    refused = {name: why for name, method in METHODS.items() if (why := method.refuses(model)) is not None}
    found = {} if run is None else estimates(model, data, resolved, run)
    return Preview(
        edges=edges,
        nodes={name: len(codes) for name, codes in resolved.nodes.items()},
        features=features,
        users=len(np.unique(table.source[rows])),
        items=len(np.unique(table.target[rows])),
        emptied_users=len(np.setdiff1d(trained.source, left.source)),
        emptied_items=len(np.setdiff1d(trained.target, left.target)),
        unknown={kind: len(entries) for kind, entries in resolved.unknown.items()},
        share=share,
        shards=_shards(model, data, gone),
        seconds={name: one.seconds for name, one in found.items()},
        basis={name: one.basis for name, one in found.items()},
        refused=refused,
    )


def estimates(
    model: GraphRecommender,
    data: RecDataset,
    resolved: Resolved,
    run: Run,
    methods: Sequence[str | Unlearner] | None = None,
) -> dict[str, Estimate]:
    """How long methods would take; some time a step of theirs for it, on this machine and this request.

    Args:
        model: trained on ``data``.
        data: the dataset.
        resolved: the request.
        run: of the model.
        methods: by name or with their options; None: all with their defaults. Those that do not support the model are
            left out.
    """
    gone, trained = resolved.training(data).get(data.target, ()), len(data.interactions("train"))
    fit, seed = dict(run.config.get("fit", {})), int(run.config.get("seed", 0))
    task = Task(model, data, remaining(data, resolved), resolved, seed=seed, fit=fit)
    pace = Pace.of(run, len(gone) / max(trained, 1))
    chosen = [METHODS[m]() if isinstance(m, str) else m for m in (METHODS if methods is None else methods)]
    able = [method for method in chosen if method.refuses(model) is None]
    if not task.removed:
        return {method.name: Estimate(0.0, {}, "nothing goes that the model was trained on") for method in able}
    found = {method.name: method.estimate(task, pace) for method in able}
    return {name: one for name, one in found.items() if one is not None}


def _shards(model: GraphRecommender, data: RecDataset, gone: np.ndarray) -> tuple[int, int] | None:
    touched = getattr(model, "shards_of_edges", None)
    if touched is None:
        return None
    import torch

    return len(torch.as_tensor(touched(torch.from_numpy(gone.copy()))).unique()), int(model.hparams["num_shards"])
