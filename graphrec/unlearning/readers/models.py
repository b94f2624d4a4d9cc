"""``model.safetensors``: rows of nodes that are gone, and everything made of edges against the edges that are left."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.models.closed_form import ItemWeights
from graphrec.models.deletion import without_edges
from graphrec.unlearning.readers.findings import Kind, Notes, some
from graphrec.unlearning.readers.sought import Subject

MODEL = "model.safetensors"


def read_model(subject: Subject, notes: Notes) -> bool:
    """Compare every tensor of the model with what it may hold; False where the model cannot be made."""
    try:
        weights, model = subject.run.weights(), subject.model
    except (InputError, RuntimeError, KeyError, ValueError, TypeError) as error:
        notes.find("unreadable file", MODEL, f"the model cannot be made from it ({type(error).__name__}: {error})")
        return False
    state, learned, derived = model.state_dict(), dict(model.named_parameters()), model.derived()
    sizes = {int(model.graph_inputs.graph[name].num_nodes) for name in model.graph_inputs.graph.node_types}
    sizes |= {int(store.edge_index.shape[1]) for store in model.graph_inputs.graph.edge_stores}
    for name, tensor in weights.items():
        if name not in state:
            notes.find("unknown file", MODEL, f"{name!r} is no part of the model")
        elif name not in learned and name not in derived and tensor.dim() and tensor.shape[0] in sizes:
            notes.find("unknown file", MODEL, f"{name!r} has a row for each node or edge and is not made of the edges")
        if subject.old is not None:
            rows = subject.old.found_in(tensor)
            if rows:
                notes.find(
                    "embedding row", MODEL, f"{name!r} has {some(rows, 'row')} of the run before, of who is gone"
                )
    _read_derived(subject, state, set(derived), notes)
    what = "what is made of edges against the training graph"
    full = subject.old is not None
    notes.check(MODEL, f"rows of who is gone, and {what}" if full else what, full)
    return True


def _read_derived(subject: Subject, state: dict[str, Tensor], derived: set[str], notes: Notes) -> None:
    """Make what is made of edges again, from the run's edges and parameters, and compare."""
    saved = derived.intersection(state)
    if not saved:
        return
    again = without_edges(subject.model, {}).state_dict()
    for name in sorted(saved):
        if name not in again or not _same(state[name], again[name]):
            notes.find(_kind(subject, state[name]), MODEL, f"{name!r} is not what the training graph makes of it")


def _kind(subject: Subject, tensor: Tensor) -> Kind:
    if subject.sought is not None and subject.sought.is_old_degree(tensor, subject.codes):
        return "degree"
    whole = not tensor.is_floating_point() and tensor.dtype != torch.bool
    return "neighbour" if whole or isinstance(subject.model, ItemWeights) else "derived"


def _same(stored: Tensor, made: Tensor) -> bool:
    """Equal; numbers with decimals up to rounding, which the machine decides."""
    if stored.shape != made.shape or stored.dtype != made.dtype:
        return False
    if torch.equal(stored, made):
        return True
    if not stored.is_floating_point() or bool((made == made.round()).all()):
        return False
    return torch.allclose(stored, made, rtol=1e-5, atol=1e-5 * float(made.abs().max()))
