r"""Layers of aggregation over one matrix, for the rows of a batch, with a backward pass of its own.

.. math:: S^k = \Pi E^k, \qquad E^{k+1} = \mathrm{drop}(\mathrm{aggregate}(E^k, S^k))

Only rows that the batch depends on are aggregated: the last layer for the batch alone, the one before for its
neighbours, and so on. For the backward pass the layers' inputs and sums are kept; what lies inside an aggregation is
formed again, in blocks of rows that stay in the cache. Large tensors are lent from a shelf and given back, for fresh
memory costs page faults.

Letters: N nodes, D width of the table, K layers, n rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.aggregators import Aggregator, Kind, aggregate, aggregate_gradients
from graphrec.layers.dropout import dropout_factors, random_words
from graphrec.layers.put_rows import put_rows
from graphrec.layers.spmm import listed_values, multiply, products_at_entries, spmm

BLOCK = 4096
"""Rows that are aggregated at a time on the CPU: their intermediate results stay in the cache."""


def layer_rows(
    matrix: Adjacency,
    tables: Sequence[Tensor],
    layers: Sequence[Aggregator],
    rows: Tensor | None = None,
    *,
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
    values: Tensor | None = None,
) -> list[Tensor]:
    """Some rows of E⁰ and of every layer.

    Args:
        matrix: Π, (N, N), its values fixed and not negative.
        tables: parts of E⁰, one below the other, together (N, D).
        layers: K aggregators, of widths that follow one another.
        rows: (n,) int64; may name a node more than once. None: all, n = N.
        dropout: share of the entries of each layer's output that are dropped.
        generator: where dropout's draws come from; None: nothing is dropped.
        values: (L,) of 0 or more in edge-list order, taking the place of the matrix's own.

    Returns:
        K + 1 tensors (n, D_k); differentiable twice in tables, parameters and ``values``.
    """
    widths = [table.shape[1] for table in tables]
    if sum(map(len, tables)) != matrix.shape[0] or matrix.shape[0] != matrix.shape[1] or len(set(widths)) != 1:
        raise InputError(
            f"tables must have {matrix.shape[0]} rows of one width together, found "
            f"{', '.join(str(tuple(table.shape)) for table in tables)}."
        )
    if not layers:
        x = torch.cat(list(tables))
        return [x if rows is None else x.index_select(0, rows)]
    learned = values is not None and values.requires_grad
    if values is not None:
        matrix = matrix.with_stored_values(matrix.stored(values.detach()))
    if rows is None:
        picked, index = matrix, torch.arange(matrix.shape[0], device=matrix.device)
        fields: list[Tensor | None] = [None] * len(layers)
    else:
        index, place = torch.unique(rows, return_inverse=True)
        picked = matrix.row_subset(index, edges=learned)
        # The derivative by an entry's value asks for its neighbour even where the value is 0.
        pattern = matrix.with_stored_values(None) if learned else matrix
        fields = receptive_fields(
            pattern, index, len(layers), pattern.row_subset(index, edges=False) if learned else picked
        )
    words: list[Tensor | None] = [None] * len(layers)
    if dropout and generator is not None:
        sizes = [matrix.shape[0] if nodes is None else len(nodes) for nodes in fields]
        words = [random_words((size, layer.width_out), generator) for size, layer in zip(sizes, layers, strict=True)]
    arguments = [layer.arguments() for layer in layers]
    plan = _Plan(
        matrix=matrix,
        picked=picked,
        index=index,
        fields=fields,
        words=words,
        dropout=dropout,
        kinds=[layer.kind for layer in layers],
        tables=len(tables),
        counts=[len(each) for each in arguments],
        learned=learned,
    )
    outputs = _Rows.apply(
        plan, values if learned else None, *tables, *(tensor for each in arguments for tensor in each)
    )
    return list(outputs) if rows is None else [output.index_select(0, place) for output in outputs]


def receptive_fields(
    matrix: Adjacency, index: Tensor, num_layers: int, picked: Adjacency | None = None
) -> list[Tensor | None]:
    """The nodes whose rows each of K layers has to give, ascending, so that the last has ``index``'s; None: all.

    A layer that needs more than nine tenths of the nodes is computed for all. ``picked`` are the matrix's rows of
    ``index``, where they are at hand.
    """
    fields: list[Tensor | None] = [index]
    if num_layers == 1:
        return fields
    picked = matrix.row_subset(index, edges=False) if picked is None else picked
    marks = torch.zeros(matrix.shape[0], 1, device=matrix.device, dtype=_dtype(matrix))
    marks[index] = 1.0
    # The neighbours of few nodes are listed; those of many are found by a product.
    near = picked.col if picked.values is None else picked.col[picked.values > 0]
    marks[near.long()] = 1.0
    for step in range(num_layers - 1):
        if step:
            marks = multiply(matrix.transposed, marks, add=marks).gt_(0)
        nodes = torch.nonzero(marks[:, 0])[:, 0]
        if len(nodes) > 0.9 * matrix.shape[0]:
            fields += [None] * (num_layers - len(fields))
            break
        fields.append(nodes)
    return fields[::-1]


def _dtype(matrix: Adjacency) -> torch.dtype:
    return torch.float32 if matrix.values is None else matrix.values.dtype


@dataclass(frozen=True)
class _Plan:
    matrix: Adjacency
    picked: Adjacency
    index: Tensor
    fields: list[Tensor | None]
    words: list[Tensor | None]
    dropout: float
    kinds: list[Kind]
    tables: int
    counts: list[int]
    learned: bool

    def split(self, tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], list[Sequence[Tensor]]]:
        """Tables, and the parameters of each layer."""
        tables, rest = tensors[: self.tables], tensors[self.tables :]
        arguments = []
        for count in self.counts:
            arguments.append(rest[:count])
            rest = rest[count:]
        return tables, arguments

    def drop(self, layer: int, x: Tensor, part: slice) -> Tensor:
        """``x``, rows ``part`` of the layer's field, with entries dropped; in place."""
        words = self.words[layer]
        return x if words is None else x.mul_(dropout_factors(words[part], self.dropout, x.dtype))

    @property
    def whole(self) -> bool:
        """Whether all rows are asked for, so that the layers' tables themselves are handed out."""
        return self.picked is self.matrix


@dataclass
class _State:
    """What the forward pass leaves for the backward pass: E⁰ to Eᴷ⁻¹, S⁰ to Sᴷ⁻¹ (the last for the rows alone)."""

    tables: list[Tensor] = field(default_factory=list)
    sums: list[Tensor] = field(default_factory=list)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, values: Tensor | None, *tensors: Tensor) -> Any:
        outputs, state = _forward(plan, tensors)
        ctx.set_materialize_grads(False)
        if any(ctx.needs_input_grad):
            ctx.plan, ctx.state = plan, state
            ctx.save_for_backward(values, *tensors)
        else:
            _give_back(plan, state)
            _Shelf(plan.matrix).take_back(state.sums[:-1])
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        plan, (values, *tensors) = ctx.plan, ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph of this pass is wanted: the same by operations that can be recorded
            outputs, given = _recorded(plan, values, tensors), [values, *tensors]
            wanted = [tensor for tensor, asked in zip(given, ctx.needs_input_grad[1:], strict=True) if asked]
            reached = [number for number, grad in enumerate(grads) if grad is not None]
            ends, weights = [outputs[number] for number in reached], [grads[number] for number in reached]
            found = iter(torch.autograd.grad(ends, wanted, weights, create_graph=True, allow_unused=True))
            return None, *(next(found) if asked else None for asked in ctx.needs_input_grad[1:])
        # What was lent is given back by the first pass; another one through the same graph forms it again.
        state = ctx.state or _forward(plan, tensors)[1]
        ctx.state = None
        return None, *_backward(plan, tensors, state, grads)


def _give_back(plan: _Plan, state: _State) -> None:
    """The layers' tables, but for those that are handed out."""
    if not plan.whole:
        _Shelf(plan.matrix).take_back(state.tables[1:])


def _forward(plan: _Plan, tensors: Sequence[Tensor]) -> tuple[list[Tensor], _State]:
    tables, arguments = plan.split(tensors)
    shelf, last = _Shelf(plan.matrix), len(arguments) - 1
    x = torch.cat(list(tables))  # no lent table: it is handed out, as E⁰ or as its gradient
    outputs, state = [_picked(plan, x)], _State([x.detach()])
    for layer in range(last):
        width = arguments[layer][1].shape[0]
        sums = multiply(plan.matrix, x, out=shelf.lend(x.shape[1], x))
        out = _layer_table(plan, shelf, width, x)
        for part, nodes, _ in _blocks(plan, layer):
            y = aggregate(plan.kinds[layer], _rows(x, nodes), _rows(sums, nodes), arguments[layer])
            _put(out, nodes, plan.drop(layer, y, part))  # other rows are read by nobody whose result counts
        x = out
        # As a tensor of its own: an output that the pass itself keeps would keep the pass.
        state.tables.append(x.detach())
        state.sums.append(sums)
        outputs.append(_picked(plan, x))
    sums = multiply(plan.picked, x)
    out = x.new_empty(len(sums), arguments[last][1].shape[0])
    for part in _parts(plan, len(sums)):
        y = aggregate(plan.kinds[last], outputs[last][part], sums[part], arguments[last])
        out[part] = plan.drop(last, y, part)
    outputs.append(out)
    state.sums.append(sums)
    return outputs, state


def _backward(
    plan: _Plan, tensors: Sequence[Tensor], state: _State, grads: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Of the values, the tables and the parameters."""
    tables, arguments = plan.split(tensors)
    shelf, last = _Shelf(plan.matrix), len(arguments) - 1
    own = state.tables[last].index_select(0, plan.index)  # and then its gradient
    to_sums = torch.empty_like(own)
    total = [torch.zeros_like(argument) for argument in arguments[last]]
    for part in _parts(plan, len(own)):
        to_out = grads[last + 1]
        grad = own.new_zeros(len(own[part]), arguments[last][1].shape[0]) if to_out is None else to_out[part].clone()
        to_own, to_sums[part], found = aggregate_gradients(
            plan.kinds[last], own[part], state.sums[last][part], arguments[last], plan.drop(last, grad, part)
        )
        own[part] = to_own
        _add(total, found)
    to_arguments = [total]
    to_values = _value_gradient(plan, plan.picked, to_sums, state.tables[last], None)
    current = _gradient_table(plan, shelf, state, last)
    back = plan.matrix.transposed if plan.whole else plan.picked.turned()
    multiply(back, to_sums, out=current)
    _add_rows(plan, current, own)
    _add_rows(plan, current, grads[last])
    for layer in range(last - 1, -1, -1):
        x, sums, below = state.tables[layer], state.sums[layer], _gradient_table(plan, shelf, state, layer)
        total = [torch.zeros_like(argument) for argument in arguments[layer]]
        for part, nodes, span in _blocks(plan, layer):
            grad = _rows(current, nodes)
            if plan.words[layer] is not None:
                grad = plan.drop(layer, grad.clone() if isinstance(nodes, slice) else grad, part)
            to_own, to_sums, found = aggregate_gradients(
                plan.kinds[layer], _rows(x, nodes), _rows(sums, nodes), arguments[layer], grad
            )
            # Neither the sums themselves nor the rows they were made with are needed any more.
            for table, rows in ((below, to_own), (sums, to_sums)):
                if not isinstance(nodes, slice):
                    table[span] = 0.0
                _put(table, nodes, rows)
            _add(total, found)
        to_arguments.append(total)
        to_values = _value_gradient(plan, plan.matrix, sums, x, to_values)
        multiply(plan.matrix.transposed, sums, out=below, add=below)
        _add_rows(plan, below, grads[layer])
        shelf.take_back([current, sums])
        current = below
    if plan.learned:
        _give_back(plan, state)
    to_tables = list(current.split([len(table) for table in tables]))
    return [to_values, *to_tables, *(each for found in reversed(to_arguments) for each in found)]


def _value_gradient(plan: _Plan, matrix: Adjacency, to_sums: Tensor, x: Tensor, before: Tensor | None) -> Tensor | None:
    r"""What a layer adds to the gradient of the entries' values, (L,): :math:`\partial S_h \cdot x_t`."""
    if not plan.learned:
        return None
    found = listed_values(matrix, products_at_entries(matrix, to_sums, x))
    return found if before is None else before.add_(found)


def _add_rows(plan: _Plan, table: Tensor, rows: Tensor | None) -> None:
    """Add to the rows that were asked for."""
    if rows is not None and plan.whole:
        table.add_(rows)
    elif rows is not None:
        table.index_add_(0, plan.index, rows)


def _layer_table(plan: _Plan, shelf: _Shelf, width: int, like: Tensor) -> Tensor:
    """Where a layer goes: a lent table, but where all of it is handed out."""
    return like.new_empty(shelf.size, width) if plan.whole else shelf.lend(width, like)


def _picked(plan: _Plan, x: Tensor) -> Tensor:
    return x if plan.whole else x.index_select(0, plan.index)


def _gradient_table(plan: _Plan, shelf: _Shelf, state: _State, layer: int) -> Tensor:
    """Where a layer's gradient goes: over the layer itself, but where that was handed out or is needed further."""
    table = state.tables[layer]
    if not plan.whole and not plan.learned:
        return table
    return torch.empty_like(table) if layer == 0 else shelf.lend(table.shape[1], table)


def _recorded(plan: _Plan, values: Tensor | None, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The outputs by operations that autograd records."""
    tables, arguments = plan.split(tensors)
    x = torch.cat(list(tables))
    outputs = [x.index_select(0, plan.index)]
    for layer, parameters in enumerate(arguments):
        x = aggregate(plan.kinds[layer], x, spmm(plan.matrix, x, values), parameters)
        words, nodes = plan.words[layer], plan.fields[layer]
        if words is not None:
            factor = dropout_factors(words, plan.dropout, x.dtype)
            x = x * (factor if nodes is None else torch.ones_like(x).index_copy(0, nodes, factor))
        outputs.append(x.index_select(0, plan.index))
    return outputs


def _blocks(plan: _Plan, layer: int) -> Iterator[tuple[slice, Tensor | slice, slice]]:
    """Parts of the layer's field, the nodes of each (a slice where the layer has all of them), and the span of nodes
    up to the next part's.
    """
    nodes, size = plan.fields[layer], plan.matrix.shape[0]
    if nodes is None:
        yield from ((part, part, part) for part in _parts(plan, size))
        return
    parts = list(_parts(plan, len(nodes))) or [slice(0, 0)]
    starts = [0, *(int(nodes[part.start]) for part in parts[1:]), size]
    for part, start, stop in zip(parts, starts[:-1], starts[1:], strict=True):
        yield part, nodes[part], slice(start, stop)


def _parts(plan: _Plan, size: int) -> Iterator[slice]:
    """Blocks of rows; on other devices than the CPU all rows are one."""
    step = BLOCK if plan.matrix.device.type == "cpu" else max(size, 1)
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def _add(total: Sequence[Tensor], found: Sequence[Tensor]) -> None:
    for whole, share in zip(total, found, strict=True):
        whole.add_(share)


def _rows(x: Tensor, nodes: Tensor | slice) -> Tensor:
    return x[nodes] if isinstance(nodes, slice) else x.index_select(0, nodes)


def _put(x: Tensor, nodes: Tensor | slice, rows: Tensor) -> None:
    if isinstance(nodes, slice):
        x[nodes] = rows
    else:
        put_rows(x, nodes, rows)


class _Shelf:
    """Tables (N, width) that are lent and given back; kept with the pattern of the matrix."""

    def __init__(self, matrix: Adjacency) -> None:
        self.size = matrix.shape[0]
        self.free: dict[Any, list[Tensor]] = matrix.pattern_cache.setdefault("row tables", {})

    def lend(self, width: int, like: Tensor) -> Tensor:
        """A table with leftovers in it, all of them finite."""
        free = self.free.get(self._key(width, like))
        return free.pop() if free else like.new_zeros(self.size, width)

    def take_back(self, tables: Sequence[Tensor]) -> None:
        """Tables that nobody uses any more."""
        for table in tables:
            self.free.setdefault(self._key(table.shape[1], table), []).append(table)

    def _key(self, width: int, like: Tensor) -> Any:
        return width, like.dtype, like.device, torch.is_inference_mode_enabled()
