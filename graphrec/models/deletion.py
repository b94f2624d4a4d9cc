"""A trained model on fewer edges: the same parameters, everything made from edges made anew."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import EdgeType
from graphrec.models.base import GraphInputs, GraphRecommender


def without_edges(model: GraphRecommender, removed: Mapping[EdgeType, Tensor]) -> GraphRecommender:
    """A model with the parameters of ``model`` on the graph without some edges.

    Degrees, attention, neighbour lists and all else that the model lists in ``derived()`` are made from the edges that
    are left; a closed form is solved again. Parameters stay as they were trained: what the edges taught the model is
    still in them.

    Args:
        model: a trained model; not changed.
        removed: edge ids (M,) int64 by edge type. An empty mapping gives a model that differs from ``model`` only in
            that everything derived is of this moment.

    Raises:
        InputError: an edge type or an edge id that the model's graph does not have.
    """
    return with_inputs(model, inputs_without(model.graph_inputs, removed))


def with_inputs(model: GraphRecommender, inputs: GraphInputs) -> GraphRecommender:
    """A model with the parameters of ``model`` on other inputs of the same nodes; see :func:`without_edges`.

    Args:
        model: a trained model; not changed.
        inputs: with as many nodes of each type.
    """
    inputs = inputs.apply(lambda tensor: tensor.to(model.device))
    made = type(model).unfilled(inputs, model.hparams)
    learned, state = dict(made.named_parameters()), made.state_dict()
    # A buffer that follows the edges may have another length now; a parameter of another shape is an error.
    fitting = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name in learned or (name in state and state[name].shape == tensor.shape)
    }
    made.load_state_dict(fitting, strict=False)
    made = made.to(model.device)
    if not made.phases():
        made.solve()
        return made.eval()
    made.eval()
    with torch.no_grad():
        for name, derived in made.derived().items():
            # The rest is made of the edges alone, and the constructor has just done so.
            if name in state:
                setattr(made, name, derived.rebuild())
    return made


def inputs_without(inputs: GraphInputs, removed: Mapping[EdgeType, Tensor]) -> GraphInputs:
    """Inputs without some edges, given by edge id, labelled pairs included; see :func:`without_edges`."""
    graph, labelled = inputs.graph.clone(), inputs.labelled
    for edge_type, ids in removed.items():
        if edge_type not in graph.edge_types:
            raise InputError(f"the model's graph has no edges of type {'__'.join(edge_type)}.")
        store = graph[edge_type]
        ids = ids.to(store.edge_id)
        gone, known = torch.isin(store.edge_id, ids), torch.isin(ids, store.edge_id)
        if labelled is not None and edge_type == inputs.target:
            known |= torch.isin(ids, labelled.edge_id)  # a pair labelled 0 is no edge of the graph
            kept = ~torch.isin(labelled.edge_id, ids)
            labelled = labelled.apply(operator.itemgetter(kept))
        strange = ids[~known]
        if len(strange):
            raise InputError(f"{'__'.join(edge_type)} has no edge {int(strange[0])} in the model's graph.")
        count = store.edge_index.shape[1]
        for name, value in list(store.items()):
            if isinstance(value, Tensor) and value.dim() and value.shape[-1 if name == "edge_index" else 0] == count:
                store[name] = value[:, ~gone] if name == "edge_index" else value[~gone]
    return replace(inputs, graph=graph, labelled=labelled)
