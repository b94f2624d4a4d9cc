"""The rows of people and things that are gone wholly, taken out of a model's tables."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.models.base import GraphRecommender
from graphrec.runs.tensors import load_weights


def kept_rows(
    tensors: Mapping[str, Tensor], row_types: Mapping[str, str], keep: Mapping[str, NDArray[np.bool_]]
) -> dict[str, Tensor]:
    """Named tensors with the rows of some nodes taken out.

    Args:
        tensors: by name.
        row_types: names of tensors with a row for each node, and the nodes' type.
        keep: (N,) bool by node type; types that are not there stay whole.
    """
    out = {}
    for name, tensor in tensors.items():
        mask = keep.get(row_types.get(name, ""))
        out[name] = tensor if mask is None else tensor[torch.from_numpy(mask).to(tensor.device)]
    return out


def compacted_model(
    model: GraphRecommender, data: RecDataset, keep: Mapping[str, NDArray[np.bool_]]
) -> GraphRecommender:
    """The model on a dataset that has fewer nodes: its rows of those that stay, everything derived made anew.

    Args:
        model: trained, on the same edges; not changed.
        data: the dataset without the nodes that go, see :func:`graphrec.unlearning.resolve.compacted`.
        keep: which nodes stay, (N,) bool by node type.

    Raises:
        InputError: a parameter has another shape on the smaller tables and no row for each node.
    """
    inputs = model.inputs_on(data, keep)
    made = type(model).unfilled(inputs.apply(lambda tensor: tensor.to(model.device)), model.hparams).to(model.device)
    if not made.phases():
        made.solve()
        return made.eval()
    rows = kept_rows(model.state_dict(), model.row_parameters, keep)
    learned, state, derived = dict(made.named_parameters()), made.state_dict(), made.derived()
    for name, tensor in rows.items():
        if name in learned and learned[name].shape != tensor.shape:
            raise InputError(
                f"{type(model).__name__}: {name} has shape {tuple(tensor.shape)}, without the nodes that go "
                f"{tuple(learned[name].shape)}; row_parameters has to say whose rows it holds."
            )
    load_weights(made, {name: tensor for name, tensor in rows.items() if name not in derived}, type(model).__name__)
    made.eval()
    with torch.no_grad():
        for name, entry in derived.items():
            # It names nodes by numbers that have moved; what is no buffer was made by the constructor.
            if name in state:
                setattr(made, name, entry.rebuild())
    return made
