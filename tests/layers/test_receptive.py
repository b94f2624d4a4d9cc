from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from graphrec.errors import InputError
from graphrec.graphs.adjacency import Adjacency
from graphrec.layers import receptive
from graphrec.layers.aggregators import KINDS, Aggregator, Kind, aggregate, aggregate_gradients
from graphrec.layers.dropout import dropout_factors, kept_entries, random_words

NODES = 23


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receptive, "BLOCK", 5)


def matrix(edges: int = 30) -> Adjacency:
    torch.manual_seed(0)
    ends = torch.randint(NODES, (2, edges))
    return Adjacency.from_edges(ends, (NODES, NODES)).with_values(torch.rand(edges, dtype=torch.float64))


def world(kind: Kind, widths: list[int]) -> tuple[list[Tensor], list[Aggregator]]:
    torch.manual_seed(1)
    layers = [Aggregator(kind, *pair).double() for pair in pairwise(widths)]
    tables = [torch.randn(size, widths[0], dtype=torch.float64, requires_grad=True) for size in (9, 14)]
    return tables, layers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("widths", [[4, 3], [4, 3, 2], [4, 4, 3, 2]])
@pytest.mark.parametrize("rows", [[3, 20, 3], None])
def test_rows_equal_dense_layers(kind: Kind, widths: list[int], rows: list[int] | None) -> None:
    adj, (tables, layers) = matrix(), world(kind, widths)
    index = None if rows is None else torch.tensor(rows)
    outputs = receptive.layer_rows(adj, tables, layers, index)
    x = torch.cat(tables)
    expected = [x]
    for layer in layers:
        x = layer(x, adj.to_dense() @ x)
        expected.append(x)
    if index is not None:
        expected = [x[index] for x in expected]
    wanted = [*tables, *(parameter for layer in layers for parameter in layer.parameters())]
    weights = [torch.randn_like(x) for x in expected]
    first = torch.autograd.grad(outputs, wanted, weights, retain_graph=True)
    # What the first pass gave back is formed again for the second.
    second = torch.autograd.grad(outputs, wanted, weights)
    slow = torch.autograd.grad(expected, wanted, weights)
    for triple in (*zip(outputs, outputs, expected, strict=True), *zip(first, second, slow, strict=True)):
        torch.testing.assert_close(triple[0], triple[2])
        torch.testing.assert_close(triple[1], triple[2])


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_with_dropout(kind: Kind) -> None:
    adj, (tables, layers) = matrix(), world(kind, [4, 3, 2])
    rows = torch.tensor([3, 20, 3])

    def function(*given: Tensor) -> tuple[Tensor, ...]:
        stream = torch.Generator().manual_seed(3)
        return tuple(receptive.layer_rows(adj, given, layers, rows, dropout=0.4, generator=stream))

    assert torch.autograd.gradcheck(function, tables)
    assert torch.autograd.gradgradcheck(function, tables)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [[3, 20, 3], None])
def test_values_of_entries_have_gradients(kind: Kind, rows: list[int] | None) -> None:
    """Also those that are 0, whose neighbours no other result depends on."""
    adj, (tables, layers) = matrix(), world(kind, [4, 3, 2])
    index = None if rows is None else torch.tensor(rows)
    values = torch.rand(30, dtype=torch.float64)
    values[::3] = 0.0
    values.requires_grad_()
    dense = torch.zeros(NODES, NODES, dtype=torch.float64)
    stored = adj.stored(values)
    dense = dense.index_put((adj.rows().long(), adj.col.long()), stored, accumulate=True)
    outputs = receptive.layer_rows(adj, tables, layers, index, values=values)
    x = torch.cat(tables)
    expected = [x]
    for layer in layers:
        x = layer(x, dense @ x)
        expected.append(x)
    if index is not None:
        expected = [x[index] for x in expected]
    wanted = [values, *tables, *(parameter for layer in layers for parameter in layer.parameters())]
    for chosen in (slice(None), slice(1, None), slice(0, 2)):  # some outputs may be used by nobody
        weights = [torch.randn_like(x) for x in expected[chosen]]
        kept = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
        ours = torch.autograd.grad(outputs[chosen], wanted, weights, **kept)
        theirs = torch.autograd.grad(expected[chosen], wanted, weights, **kept)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)

    def function(given: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        return tuple(receptive.layer_rows(adj, others, layers, index, values=given))

    # Of positive values alone: a receptive field knows no values below 0.
    positive = values.detach().clamp_min(0.1).requires_grad_()
    assert torch.autograd.gradcheck(function, (positive, *tables))
    assert torch.autograd.gradgradcheck(function, (positive, *tables))


def test_fields_are_what_the_rows_depend_on() -> None:
    adj = matrix(12)
    index = torch.tensor([2, 7])
    reached = {int(node) for node in index}
    expected: list[list[int]] = []
    for _ in range(2):
        for row, col in zip(adj.rows().tolist(), adj.col.tolist(), strict=True):
            reached |= {col} if row in {*index.tolist(), *(expected[-1] if expected else [])} else set()
        expected.append(sorted(reached))
    fields = receptive.receptive_fields(adj, index, 3)
    assert [None if nodes is None else nodes.tolist() for nodes in fields] == [*expected[::-1], [2, 7]]
    everything = torch.arange(NODES)
    assert receptive.receptive_fields(adj, everything, 2)[0] is None


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_an_aggregation_by_hand(kind: Kind) -> None:
    torch.manual_seed(0)
    layer = Aggregator(kind, 4, 3).double()
    own, sums = (torch.randn(6, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    grad = torch.randn(6, 3, dtype=torch.float64)
    out = aggregate(kind, own, sums, layer.arguments())
    torch.testing.assert_close(out, layer(own, sums))
    expected = torch.autograd.grad(
        out, [own, sums, *layer.arguments()], grad, allow_unused=True, materialize_grads=True
    )
    with torch.no_grad():
        to_own, to_sums, to_arguments = aggregate_gradients(kind, own, sums, layer.arguments(), grad)
    for ours, theirs in zip([to_own, to_sums, *to_arguments], expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_kept_entries_are_as_many_as_asked_for() -> None:
    kept = kept_entries((500, 401), 0.1, torch.Generator().manual_seed(0))
    assert kept.shape == (500, 401)
    assert abs(float(kept.double().mean()) - 0.9) < 0.002
    again = kept_entries((500, 401), 0.1, torch.Generator().manual_seed(0))
    assert torch.equal(kept, again)
    assert kept_entries((3, 5), 0.0, torch.Generator()).all()
    with pytest.raises(InputError, match="dropout"):
        kept_entries((3,), 1.0, torch.Generator())


def test_factors_are_those_of_the_kept_entries() -> None:
    for p in (0.0, 0.1, 0.5, 0.999):
        streams = [torch.Generator().manual_seed(0) for _ in range(2)]
        kept = kept_entries((200, 301), p, streams[0])
        words = random_words((200, 301), streams[1])
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            expected = kept.to(torch.float64) * (1 / (1 - p))
            torch.testing.assert_close(dropout_factors(words, p, dtype), expected.to(dtype))


def test_tables_that_do_not_fit_are_refused() -> None:
    tables, layers = world("bi", [4, 3])
    with pytest.raises(InputError, match="23 rows"):
        receptive.layer_rows(matrix(), tables[:1], layers)
