"""Graph inputs and weights as safetensors: plain tensors, with sizes and names as JSON in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphrec.datasets.tables import edge_type_name
from graphrec.errors import InputError, MissingFileError
from graphrec.graphs.adjacency import EdgeType
from graphrec.models.base import GraphInputs
from graphrec.models.labelled import LabelledPairs


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any] | None = None) -> None:
    """Write named tensors, on whatever device, and a JSON header."""
    plain: dict[str, Tensor] = {}
    seen: dict[int, str] = {}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided:
            raise InputError(f"{name!r} is a {tensor.layout} tensor; keep its indices and values as plain tensors.")
        tensor = tensor.detach().cpu().contiguous()
        # Tensors that share memory are refused by the format; each is written in full.
        key = tensor.untyped_storage().data_ptr()
        whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        if not whole or (key in seen and tensor.numel()):
            tensor = tensor.clone()
        seen[key] = name
        plain[name] = tensor
    metadata = {"graphrec": json.dumps(header or {})}
    # The library leaves its files readable to their owner alone; a run is as readable as any other file made here.
    path.touch()
    mode = path.stat().st_mode
    save_file(plain, path, metadata=metadata)
    path.chmod(mode)


def read_tensors(path: Path, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Named tensors and the JSON header of a file.

    Raises:
        MissingFileError: the file is not there.
        InputError: it is no whole safetensors file.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} is missing.")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        header = json.loads(metadata.get("graphrec", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is no complete safetensors file: {error}.") from error
    return tensors, header


def _edge_type(name: str) -> EdgeType:
    source, relation, target = name.split("__")
    return source, relation, target


def _split(store: Mapping[str, Any], where: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, values = {}, {}
    for key, value in store.items():
        if isinstance(value, Tensor):
            tensors[key] = value
        elif isinstance(value, (bool, int, float, str)):
            values[key] = value
        elif not str(key).startswith("_"):
            raise InputError(
                f"{where} of the model's inputs holds {key!r}, a {type(value).__name__}; only tensors, numbers and "
                "words can be saved."
            )
    return tensors, values


def write_inputs(seen: Path, others: Path, inputs: GraphInputs) -> None:
    """Write the training edges of the ranked behaviour to ``seen``, all else (labels too) to ``others``.

    ``seen`` holds them as CSR: ``rowptr`` int64 (U+1,), ``col`` int32 (E,), sorted by (user, item), ``edge_id`` and the
    other attributes in that order, and ``position`` int64 (E,), the place of each in the model's edge list, where that
    is another. ``others`` is not written when there is nothing else.
    """
    graph, target = inputs.graph, inputs.target
    nodes: dict[str, Any] = {}
    rest: dict[str, Tensor] = {}
    for node_type in graph.node_types:
        tensors, nodes[node_type] = _split(graph[node_type], f"node type {node_type!r}")
        nodes[node_type]["num_nodes"] = int(graph[node_type].num_nodes)
        rest.update({f"node/{node_type}/{key}": value for key, value in tensors.items()})
    edges: dict[str, Any] = {}
    for edge_type in graph.edge_types:
        name = edge_type_name(edge_type)
        tensors, edges[name] = _split(graph[edge_type], f"edge type {name!r}")
        if edge_type != target:
            rest.update({f"edge/{name}/{key}": value for key, value in tensors.items()})
    if inputs.labelled is not None:
        rest.update({f"labelled/pairs/{key}": value for key, value in vars(inputs.labelled).items()})
    header = {"target": edge_type_name(target), "fingerprint": inputs.fingerprint}
    write_tensors(seen, _csr(inputs), {**header, "nodes": nodes, "edges": {header["target"]: edges[header["target"]]}})
    if rest or len(edges) > 1:
        write_tensors(others, rest, {**header, "edges": edges})


def _csr(inputs: GraphInputs) -> dict[str, Tensor]:
    store = inputs.graph[inputs.target]
    tensors, _ = _split(store, "the ranked behaviour")
    users, items = tensors.pop("edge_index").cpu()
    num_items = max(inputs.num_items, 1)
    order = torch.argsort(users * num_items + items, stable=True)
    rowptr = torch.zeros(inputs.num_users + 1, dtype=torch.int64)
    rowptr[1:] = torch.bincount(users, minlength=inputs.num_users).cumsum(0)
    out = {"rowptr": rowptr, "col": items[order].to(torch.int32)}
    for key, value in tensors.items():
        if value.dim() == 0 or len(value) != len(order):
            raise InputError(f"attribute {key!r} of the ranked behaviour has no row for each of its edges.")
        out[key] = value.cpu()[order]
    if not bool((order == torch.arange(len(order))).all()):
        out["position"] = order
    return out


def read_inputs(seen: Path, others: Path) -> GraphInputs:
    """The inputs that :func:`write_inputs` wrote."""
    tensors, header = read_tensors(seen)
    graph = HeteroData()
    for node_type, values in header["nodes"].items():
        for key, value in values.items():
            graph[node_type][key] = value
    target = _edge_type(header["target"])
    rowptr, col = tensors.pop("rowptr"), tensors.pop("col").to(torch.int64)
    users = torch.repeat_interleave(torch.arange(len(rowptr) - 1), rowptr.diff())
    position = tensors.pop("position", None)
    columns = {"edge_index": torch.stack([users, col]), **tensors}
    for key, value in columns.items():
        if position is not None:
            unsorted = torch.empty_like(value)
            unsorted[..., position] = value
            value = unsorted
        graph[target][key] = value
    for key, value in header["edges"][header["target"]].items():
        graph[target][key] = value
    labelled: dict[str, Tensor] = {}
    if others.exists():
        tensors, extra = read_tensors(others)
        for name, values in extra["edges"].items():
            for key, value in values.items():
                graph[_edge_type(name)][key] = value
        for name, value in tensors.items():
            kind, owner, key = name.split("/", 2)
            if kind == "labelled":
                labelled[key] = value
                continue
            graph[_edge_type(owner) if kind == "edge" else owner][key] = value
    return GraphInputs(graph, target, header["fingerprint"], LabelledPairs(**labelled) if labelled else None)


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Put saved weights into a model made with the same hyper-parameters.

    Parameters have to agree in name and shape. Buffers may have another shape or be None so far: a closed form makes
    them when it is solved.

    Args:
        model: changed in place.
        tensors: by state-dict name.
        where: the file, for messages.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    expected = set(dict(model.named_parameters()))
    missing = expected - set(tensors)
    if missing:
        raise InputError(f"{where} lacks {', '.join(sorted(missing))}, which {type(model).__name__} has.")
    plain = {}
    for name, tensor in tensors.items():
        owner_name, _, leaf = name.rpartition(".")
        try:
            owner = model.get_submodule(owner_name)
        except AttributeError:
            owner = None
        if owner is not None and leaf in owner._buffers:
            old = owner._buffers[leaf]
            if old is None or old.shape != tensor.shape:
                owner._buffers[leaf] = tensor.to(device if old is None else old.device)
                continue
        elif name not in expected:
            raise InputError(f"{where} holds {name!r}, which {type(model).__name__} has not.")
        else:
            shape = model.get_parameter(name).shape
            if shape != tensor.shape:
                raise InputError(
                    f"{where} holds {name!r} of shape {tuple(tensor.shape)}, {type(model).__name__} has {tuple(shape)}."
                )
        plain[name] = tensor
    model.load_state_dict(plain, strict=False)
