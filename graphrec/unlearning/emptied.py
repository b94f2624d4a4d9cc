"""Rows of the tables that nothing stands behind any more once a request is met."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.models.base import GraphRecommender
from graphrec.unlearning.methods.base import Task
from graphrec.unlearning.neighbourhood import degrees, touched_edges


def emptied(task: Task) -> dict[str, Tensor]:
    """Nodes whose rows have to start anew, codes (M,) ascending by node type, types without any left out.

    Those that the request names wholly, and users and other heads that keep none of their training edges though they
    had some. An item without edges is still drawn as a negative, so that its row goes on meaning something; it starts
    anew where the request names it.
    """
    graph, target = task.model.graph_inputs.graph, task.data.target
    found: dict[str, Tensor] = {
        name: torch.from_numpy(codes.copy()) for name, codes in task.resolved.nodes.items() if len(codes)
    }
    removed = task.removed
    if removed:
        touched, degree = touched_edges(graph, removed)[target[0]].cpu(), degrees(graph)[target[0]].cpu()
        lost = torch.nonzero((touched > 0) & (touched == degree)).flatten()
        found[target[0]] = torch.unique(torch.cat([found.get(target[0], lost[:0]), lost]))
    return {name: codes for name, codes in found.items() if len(codes)}


@torch.no_grad()
def start_anew(model: GraphRecommender, task: Task) -> dict[str, int]:
    """Give the rows of :func:`emptied` nodes their initial values: what a training without the data leaves there.

    Args:
        model: of the task's class, on what remains; changed in place.
        task: the request.

    Returns:
        how many rows of each node type.
    """
    gone = emptied(task)
    if not gone:
        return {}
    fresh, learned = dict(task.fresh().named_parameters()), dict(model.named_parameters())
    for name, node_type in model.row_parameters.items():
        if name in learned and node_type in gone:
            rows = gone[node_type].to(learned[name].device)
            learned[name][rows] = fresh[name].to(learned[name])[rows]
    model.train(model.training)  # what encoded() kept goes
    return {name: len(codes) for name, codes in gone.items()}
