r"""Sums of relational messages brought to length 1, with a backward pass of its own.

.. math:: y_v = \frac{s_v}{\|s_v\|}, \qquad s_v = \mathrm{drop}\Big( \sum_{p \in v} \rho_{r_p} \odot x_{t_p} \Big)

Operations by row are done in blocks that stay in the cache, and of what lies between x and y only the lengths are
kept. Letters: n nodes below, m above, P pairs of relation and tail, R' relations, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from graphrec.graphs.adjacency import Adjacency
from graphrec.layers.spmm import multiply, spmm

_BLOCK = 2048
_SMALLEST = 1e-12


def unit_messages(
    matrix: Adjacency, x: Tensor, node: Tensor, relation: Tensor, relation_vectors: Tensor, kept: Tensor | None = None
) -> Tensor:
    """The sums y of the module, (m, D); zero for a row without messages. Differentiable twice in x and ρ.

    Args:
        matrix: (m, P), an entry for each edge, without values.
        x: (n, D).
        node: (P,) int64, the tail of each pair.
        relation: (P,) int64, its relation.
        relation_vectors: (R', D), ρ.
        kept: (m, D) bool, the entries that dropout keeps; they are not scaled, for the length takes any scale away.
    """
    rows: Tensor = _UnitMessages.apply(matrix, x, node, relation, relation_vectors, kept)
    return rows


def _recorded(
    matrix: Adjacency, x: Tensor, node: Tensor, relation: Tensor, relation_vectors: Tensor, kept: Tensor | None
) -> Tensor:
    """The same by operations that autograd records."""
    sums = spmm(matrix, x.index_select(0, node) * relation_vectors.index_select(0, relation))
    return normalize(sums if kept is None else sums * kept, eps=_SMALLEST)


class _UnitMessages(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        matrix: Adjacency,
        x: Tensor,
        node: Tensor,
        relation: Tensor,
        relation_vectors: Tensor,
        kept: Tensor | None,
    ) -> Tensor:
        messages = x.new_empty(len(node), x.shape[1])
        for part in _blocks(len(node)):
            block = torch.index_select(x, 0, node[part], out=messages[part])
            block.mul_(relation_vectors.index_select(0, relation[part]))
        rows = multiply(matrix, messages)
        lengths = x.new_empty(len(rows), 1)
        for part in _blocks(len(rows)):
            block = rows[part]
            if kept is not None:
                block.mul_(kept[part])
            torch.linalg.vector_norm(block, dim=1, keepdim=True, out=lengths[part])
            block.div_(lengths[part].clamp_min(_SMALLEST))
        ctx.matrix = matrix
        ctx.save_for_backward(x, node, relation, relation_vectors, kept, rows, lengths)
        return rows

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, node, relation, relation_vectors, kept, rows, lengths = ctx.saved_tensors
        if torch.is_grad_enabled():  # a graph of this pass is wanted
            made = _recorded(ctx.matrix, x, node, relation, relation_vectors, kept)
            asked = [tensor for tensor in (x, relation_vectors) if tensor.requires_grad]
            found = iter(torch.autograd.grad(made, asked, grads, create_graph=True))
            of_x, of_vectors = (next(found) if tensor.requires_grad else None for tensor in (x, relation_vectors))
            return None, of_x, None, None, of_vectors, None
        to_sums = torch.empty_like(rows)
        for part in _blocks(len(rows)):
            grad, row, length = grads[0][part], rows[part], lengths[part]
            along = torch.linalg.vecdot(grad, row).unsqueeze(1)
            block = torch.addcmul(grad, row, along, value=-1, out=to_sums[part])
            block.mul_(torch.where(length > 0, 1 / length.clamp_min(_SMALLEST), 0.0))
            if kept is not None:
                block.mul_(kept[part])
        to_messages = multiply(ctx.matrix.transposed, to_sums)
        to_x, to_vectors = torch.zeros_like(x), torch.zeros_like(relation_vectors)
        for part in _blocks(len(node)):
            block, tails, kinds = to_messages[part], node[part], relation[part]
            to_vectors.index_add_(0, kinds, block * x.index_select(0, tails))
            to_x.index_add_(0, tails, block.mul_(relation_vectors.index_select(0, kinds)))
        return None, to_x, None, None, to_vectors, None


def _blocks(size: int) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, size, _BLOCK)]
