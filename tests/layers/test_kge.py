"""Scorers of triples: against loops over single triples, torch_geometric's models on equal tables, and gradcheck."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import kge as theirs

from graphrec.errors import InputError
from graphrec.layers.kge import (
    SCORERS,
    DistMult,
    Projected,
    RotatE,
    TransE,
    TransH,
    TransR,
    TripleScorer,
    project_by_relation,
)

NODES, RELATIONS, WIDTH = 9, 4, 6
EVERY = [
    TransE("l1"),
    TransE("l2", "nodes"),
    TransE("squared", "all"),
    TransE("dot"),
    TransH("l1", "all"),
    TransH("l2"),
    TransR(),
    TransR("squared", "all"),
    TransR("l1"),
    DistMult(),
    RotatE(),
    RotatE("l2", "nodes"),
]


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tables_of(scorer: TripleScorer, seed: int = 0) -> dict[str, Tensor]:
    width = 5 if isinstance(scorer, TransR) else None
    shapes = scorer.shapes(RELATIONS, WIDTH, width)
    return {name: torch.randn(shape, generator=stream(seed), dtype=torch.float64) for name, shape in shapes.items()}


def triples(count: int = 30, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    heads, tails = torch.randint(NODES, (2, count), generator=stream(seed))
    return heads, torch.randint(RELATIONS, (count,), generator=stream(seed + 1)), tails


def nodes(seed: int = 3) -> Tensor:
    return torch.randn(NODES, WIDTH, generator=stream(seed), dtype=torch.float64)


def by_hand(scorer: TripleScorer, head: Tensor, relation: int, tail: Tensor, tables: dict[str, Tensor]) -> float:
    """One triple's score, from the papers' equations."""

    def shorten(x: Tensor, wanted: bool) -> Tensor:
        return x / x.norm() if wanted else x

    ends = scorer.normalised != "none"
    if isinstance(scorer, RotatE):
        head, tail = shorten(head, ends), shorten(tail, ends)
        half = WIDTH // 2
        turned = torch.complex(head[:half], head[half:]) * torch.exp(1j * tables["phases"][relation])
        moduli = (turned - torch.complex(tail[:half], tail[half:])).abs()
        return -float(moduli.sum() if scorer.distance == "modulus" else moduli.norm())
    if isinstance(scorer, TransH):
        unit = tables["normals"][relation] / tables["normals"][relation].norm()
        head, tail = head - (unit @ head) * unit, tail - (unit @ tail) * unit
    if isinstance(scorer, TransR):
        head, tail = head @ tables["matrices"][relation], tail @ tables["matrices"][relation]
    vector = shorten(tables["vectors"][relation], scorer.normalised == "all")
    head, tail = shorten(head, ends), shorten(tail, ends)
    if isinstance(scorer, DistMult):
        return float((head * vector * tail).sum())
    if scorer.distance == "dot":
        return float((head + vector) @ tail)
    gap = head + vector - tail
    return -float({"l1": gap.abs().sum(), "l2": gap.norm(), "squared": gap @ gap}[scorer.distance])


@pytest.mark.parametrize("scorer", EVERY, ids=str)
def test_against_single_triples(scorer: TripleScorer) -> None:
    tables, x = tables_of(scorer), nodes()
    heads, relations, tails = triples()
    found = scorer(x[heads], relations, x[tails], tables)
    expected = [by_hand(scorer, x[h], int(r), x[t], tables) for h, r, t in zip(heads, relations, tails, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("scorer", EVERY, ids=str)
def test_corrupted_tails_and_all_nodes_score_alike(scorer: TripleScorer) -> None:
    tables, x = tables_of(scorer), nodes()
    heads, relations, tails = triples()
    corrupted = torch.randint(NODES, (len(heads), 3), generator=stream(9))
    batch = scorer.projected(x[heads], relations, x[tails], x[corrupted], tables)
    assert isinstance(batch, Projected)
    positive, negative = scorer.scores(batch)
    torch.testing.assert_close(positive, scorer(x[heads], relations, x[tails], tables))
    for column in range(3):
        other = scorer(x[heads], relations, x[corrupted[:, column]], tables)
        torch.testing.assert_close(negative[:, column], other)
    with pytest.raises(InputError, match="no corrupted tails"):
        scorer.scores(batch._replace(corrupted=None))
    every = torch.arange(NODES).repeat(len(heads))
    repeated = relations.repeat_interleave(NODES)
    by_tail = scorer.score_all(x[heads], relations, x, tables, missing="tail")
    one_by_one = scorer(x[heads.repeat_interleave(NODES)], repeated, x[every], tables)
    torch.testing.assert_close(by_tail, one_by_one.view(-1, NODES), atol=1e-6, rtol=1e-6)
    by_head = scorer.score_all(x[tails], relations, x, tables, missing="head")
    one_by_one = scorer(x[every], repeated, x[tails.repeat_interleave(NODES)], tables)
    torch.testing.assert_close(by_head, one_by_one.view(-1, NODES), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("scorer", EVERY, ids=str)
def test_derivatives(scorer: TripleScorer) -> None:
    names = list(tables_of(scorer))
    heads, relations, tails = triples(5)
    corrupted = torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7], [8, 0]])
    tensors = [nodes().requires_grad_(), *(table.requires_grad_() for table in tables_of(scorer).values())]

    def both(x: Tensor, *tables: Tensor) -> Tensor:
        named = dict(zip(names, tables, strict=True))
        positive, negative = scorer.scores(scorer.projected(x[heads], relations, x[tails], x[corrupted], named))
        return torch.cat([positive, negative.flatten()])

    assert torch.autograd.gradcheck(both, tensors)
    if scorer.distance != "l1":
        assert torch.autograd.gradgradcheck(both, tensors)


def test_one_product_for_each_relation_is_the_product_of_each_row() -> None:
    x = torch.randn(40, 3, WIDTH, generator=stream(), dtype=torch.float64, requires_grad=True)
    matrices = torch.randn(7, WIDTH, 5, generator=stream(1), dtype=torch.float64, requires_grad=True)
    relations = torch.randint(5, (40,), generator=stream(2))  # 5 and 6 never occur
    upstream = torch.randn(40, 3, 5, generator=stream(3), dtype=torch.float64)
    found = project_by_relation(x, relations, matrices)
    expected = torch.bmm(x, matrices[relations])
    torch.testing.assert_close(found, expected)
    ours = torch.autograd.grad(found, [x, matrices], upstream)
    plain = torch.autograd.grad(expected, [x, matrices], upstream)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(project_by_relation(x[:, 0], relations, matrices), expected[:, 0])
    assert project_by_relation(x[:0], relations[:0], matrices).shape == (0, 3, 5)
    with pytest.raises(InputError, match="matrices"):
        project_by_relation(x, relations[:3], matrices)


def copied(model: theirs.KGEModel) -> tuple[Tensor, Tensor]:
    return model.node_emb.weight.detach(), model.rel_emb.weight.detach()


@pytest.mark.parametrize("power", [1, 2])
def test_transe_is_that_of_torch_geometric(power: int) -> None:
    model = theirs.TransE(NODES, RELATIONS, WIDTH, p_norm=float(power))
    # Theirs divides nodes by their norm of the same power: rows of that norm 1 are left alone by both.
    model.node_emb.weight.data = torch.nn.functional.normalize(model.node_emb.weight.data, p=power, dim=-1)
    x, vectors = copied(model)
    heads, relations, tails = triples()
    ours = TransE("l1" if power == 1 else "l2", "none" if power == 1 else "nodes")
    found = ours(x[heads], relations, x[tails], {"vectors": vectors})
    torch.testing.assert_close(found, model(heads, relations, tails).detach())


def test_distmult_is_that_of_torch_geometric() -> None:
    model = theirs.DistMult(NODES, RELATIONS, WIDTH)
    x, vectors = copied(model)
    heads, relations, tails = triples()
    found = DistMult()(x[heads], relations, x[tails], {"vectors": vectors})
    torch.testing.assert_close(found, model(heads, relations, tails).detach())


def test_rotate_is_that_of_torch_geometric() -> None:
    model = theirs.RotatE(NODES, RELATIONS, WIDTH // 2, margin=0.0)
    real, phases = copied(model)
    x = torch.cat([real, model.node_emb_im.weight.detach()], 1)
    heads, relations, tails = triples()
    found = RotatE("l2")(x[heads], relations, x[tails], {"phases": phases})
    torch.testing.assert_close(found, model(heads, relations, tails).detach())


def test_special_cases_meet() -> None:
    """A matrix of ones on the diagonal makes TransR of TransE, a normal of zero TransH, a phase of zero RotatE."""
    x, (heads, relations, tails) = nodes(), triples()
    vectors = tables_of(TransE())["vectors"]
    plain = TransE("squared", "all")(x[heads], relations, x[tails], {"vectors": vectors})
    identity = torch.eye(WIDTH, dtype=torch.float64).expand(RELATIONS, -1, -1)
    by_matrix = TransR("squared", "all")(x[heads], relations, x[tails], {"vectors": vectors, "matrices": identity})
    torch.testing.assert_close(by_matrix, plain)
    zeros = {"vectors": vectors, "normals": torch.zeros_like(vectors)}
    torch.testing.assert_close(TransH("squared", "all")(x[heads], relations, x[tails], zeros), plain)
    still = RotatE("l2")(x[heads], relations, x[tails], {"phases": torch.zeros(RELATIONS, WIDTH // 2).double()})
    apart = torch.linalg.vector_norm(x[heads] - x[tails], dim=1)
    torch.testing.assert_close(still, -apart)


def test_normalised_vectors_have_length_one_and_bound_the_distance() -> None:
    scorer = TransR("squared", "all")
    tables, x, (heads, relations, tails) = tables_of(scorer), nodes(), triples()
    batch = scorer.projected(x[heads], relations, x[tails], x[tails].unsqueeze(1), tables)
    for rows in (batch.heads, batch.vectors, batch.tails):
        torch.testing.assert_close(rows.norm(dim=-1), torch.ones(30, dtype=torch.float64))
    scores = scorer(x[heads], relations, x[tails], tables)
    assert (scores <= 0).all() and (scores >= -9).all()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="modulus"):
        TransE("modulus")
    with pytest.raises(InputError, match="dot product"):
        DistMult("l2")
    with pytest.raises(InputError, match="angles"):
        RotatE(normalised="all")
    with pytest.raises(InputError, match="even width"):
        RotatE().shapes(2, 5)
    with pytest.raises(InputError, match="as wide as nodes"):
        TransE().shapes(2, 6, 4)
    with pytest.raises(InputError, match="normalised"):
        TransE("l2", "some")  # type: ignore[arg-type]
    assert TransR().shapes(2, 6, 4) == {"vectors": (2, 4), "matrices": (2, 6, 4)}
    assert set(SCORERS) == {"transe", "transh", "transr", "distmult", "rotate"}
