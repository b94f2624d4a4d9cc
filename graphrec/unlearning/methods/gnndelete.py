"""GNNDelete: matrices between the layers, near the forgotten edges alone, that make them look like non-edges."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from graphrec.errors import InputError, unknown
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.sampling import sample_negatives
from graphrec.models.base import Encoded, GraphRecommender
from graphrec.models.bpr_mf import BPRMF
from graphrec.randomness import derive, hash_integers
from graphrec.unlearning.emptied import emptied, start_anew
from graphrec.unlearning.layered import Layered, Pair, layered, not_layered
from graphrec.unlearning.methods.base import Exactness, Outcome, Task, Unlearner, timed
from graphrec.unlearning.methods.estimates import Estimate, Pace
from graphrec.unlearning.neighbourhood import balls, removed_mask

NonEdges = Literal["user", "any"]


class Operators(nn.Module):
    """A matrix (D, D) for the users and one for the items near the forgotten edges, after each layer.

    Attributes:
        rows: the nodes that are multiplied, users (m,) and items (n,), for the tables and after each layer.
        weights: by ``layer/side``; none where a layer has no operator.
    """

    def __init__(self, rows: Sequence[Pair], widths: Sequence[int], like: Tensor, ones: float | None) -> None:
        super().__init__()
        self.rows, self.weights = list(rows), nn.ParameterDict()
        for layer, width in enumerate(widths):
            for side in (0, 1) if layer or len(widths) == 1 else ():
                square = torch.eye(width) if ones is None else torch.full((width, width), ones)
                self.weights[f"{layer}/{side}"] = nn.Parameter(square.to(like))

    def forward(self, layer: int, pair: Pair) -> Pair:
        """The layer's output with the rows near the forgotten edges multiplied; all others as they were."""
        sides = []
        for side, (x, rows) in enumerate(zip(pair, self.rows[layer], strict=True)):
            name = f"{layer}/{side}"
            sides.append(x.index_copy(0, rows, x[rows] @ self.weights[name]) if name in self.weights else x)
        return sides[0], sides[1]


@dataclass(frozen=True)
class GNNDelete(Unlearner):
    r"""GNNDelete (Cheng et al., ICLR 2023, https://arxiv.org/abs/2302.13406).

    The trained parameters stay as they are. After layer l of the propagation on the graph that remains, the nodes S_l
    within l hops of an end of a forgotten edge are multiplied by a matrix; these deletion operators alone are trained:

    .. math:: h^l_v \leftarrow h^l_v W^l \;\; (v \in S_l), \qquad
              L = \alpha\, \mathrm{MSE}\big(y_{ui}, y_{ui'}\big)_{(u, i) \in F}
              + (1 - \alpha)\, \mathrm{MSE}\big(y_{ab}, y^{\mathrm{before}}_{ab}\big)_{a, b \in S_K}

    with a random non-edge i' for each forgotten edge, drawn anew each step (deleted-edge consistency), and pairs of a
    user and an item of S_K, not in F, drawn anew each step (neighbourhood influence). Users and items have operators
    of their own. A model without layers (BPRMF) has one pair of operators, on the ends of F.

    **It masks, it does not remove**: what F taught the tables is still in every number made from them, so the outcome
    is ``heuristic`` and can be claimed no higher than L2, by measurement. The tables themselves are not kept: the
    outcome is a :class:`~graphrec.models.bpr_mf.BPRMF` whose tables are the final representations. Nodes outside S_K
    have theirs from before, bit for bit; rows of users who keep no training edge are made from their initial values. A
    second request on the outcome can act on the tables alone.

    Published, and here under ``paper_exact``: every entry of W starts at 1e-3, which wipes the neighbourhood out
    before the first step; weight decay 5e-4; α = 1/2; non-edges from the whole matrix; all pairs of nodes alike (a
    sample of them here: S_K² pairs do not fit a recommender), compared after a sigmoid, which is flat where a
    recommender's scores are, so that the order of the lists is lost. By default W starts as the identity, without
    decay; i' is drawn for the same user, for users' scores differ in level; both terms compare scores, divided by the
    standard deviation of the training edges' scores; and a share of the pairs that are held are training edges.

    A K-hop ball is the whole graph on dense data (ml-100k: two hops), and one matrix for all of it cannot tell a
    forgotten pair from one that stays. Measured, the method is then no nearer to retraining than doing nothing.

    Attributes:
        steps: of Adam; published: up to 3,000.
        lr: of Adam.
        balance: α.
        pairs: how many pairs of S_K a step compares.
        edge_share: share of these that are training edges.
        non_edges: ``user``: i' for the same user; ``any``: any pair that is no training edge.
        weight_decay: of Adam, towards 0.
        paper_exact: the published start, decay, non-edges, pairs and losses, whatever those options say.
    """

    name: ClassVar[str] = "gnndelete"
    exactness: ClassVar[Exactness] = "heuristic"
    steps: int = 300
    lr: float = 1e-3
    balance: float = 0.02
    pairs: int = 16384
    edge_share: float = 0.5
    non_edges: NonEdges = "user"
    weight_decay: float = 0.0
    paper_exact: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "pairs"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, found {getattr(self, name)}.")
        if not self.lr > 0 or self.weight_decay < 0:
            raise InputError(f"lr must be above 0 and weight_decay 0 or more, found {self.lr}, {self.weight_decay}.")
        if not (0 <= self.balance <= 1 and 0 <= self.edge_share <= 1):
            raise InputError(f"balance and edge_share must lie in [0, 1], found {self.balance} and {self.edge_share}.")
        if self.non_edges not in ("user", "any"):
            raise unknown("non_edges", self.non_edges, ("user", "any"))

    @classmethod
    def refuses(cls, model: GraphRecommender | type[GraphRecommender]) -> str | None:
        """Operators stand between layers that pass tables on."""
        return not_layered(model)

    def estimate(self, task: Task, pace: Pace) -> Estimate:
        """Its steps, after two of them were timed."""
        if task.data.target not in task.removed:
            return pace.of_training(0.1, "a tenth of an epoch in history.csv: no step is taken")
        first = pace.timed((self.name, 1), lambda: lambda: self._masked_in(task, 1))
        third = pace.timed((self.name, 3), lambda: lambda: self._masked_in(task, 3))
        one = max((third - first) / 2, first / 100)
        return Estimate(
            first + (self.steps - 1) * one, {"steps": self.steps}, f"{self.steps} steps of {one:.2g} s, timed"
        )

    def _masked_in(self, task: Task, steps: int) -> None:
        replace(self, steps=steps)._masked(task, task.rebuilt().eval())

    def unlearn(self, task: Task) -> Outcome:
        """Train the operators; bake what they give into tables."""
        if task.resolved.empty:
            return Outcome(copy.deepcopy(task.model), self.exactness, {"request": 0.0})
        seconds: dict[str, float] = {}
        with timed(seconds, "request"):
            model = task.rebuilt().eval()
            if task.data.target not in task.removed:  # nothing goes that the model was trained on
                start_anew(model, task)
                facts: dict[str, float | int | str] = {"steps": 0}
            else:
                model, facts = self._masked(task, model)
        return Outcome(model, self.exactness, seconds, facts)

    def _masked(self, task: Task, model: GraphRecommender) -> tuple[GraphRecommender, dict[str, float | int | str]]:
        layers = layered(model.requires_grad_(False))
        with torch.no_grad():
            encoded = copy.deepcopy(task.model).eval().encode()
        before = Encoded(encoded.users.detach(), encoded.items.detach())
        operators = self._operators(task, layers)
        facts = self._train(task, layers, operators, before)
        start_anew(model, task)
        gone, tables = emptied(task), []
        with torch.no_grad():
            after = layers.encode(operators)
            sides = zip(
                (0, 2), (before.users, before.items), (after.users, after.items), operators.rows[-1], strict=True
            )
            for end, old, made, near in sides:
                rows = torch.unique(torch.cat([near, gone.get(task.data.target[end], near[:0]).to(near)]))
                tables.append(old.index_copy(0, rows, made[rows]))
        facts |= {"users_near": len(operators.rows[-1][0]), "items_near": len(operators.rows[-1][1])}
        return as_tables(task, tables[0], tables[1]), facts

    def _operators(self, task: Task, layers: Layered) -> Operators:
        target = task.data.target
        near = balls(task.model.graph_inputs.graph, {target: task.removed[target]}, len(layers.steps))
        rows = [(torch.nonzero(ball[target[0]])[:, 0], torch.nonzero(ball[target[2]])[:, 0]) for ball in near]
        widths: list[int] = []

        def measure(layer: int, pair: Pair) -> Pair:
            widths.append(pair[0].shape[1])
            return pair

        with torch.no_grad():
            layers.encode(measure)
        return Operators(rows, widths, layers.ego()[0], 1e-3 if self.paper_exact else None)

    def _train(
        self, task: Task, layers: Layered, operators: Operators, before: Encoded
    ) -> dict[str, float | int | str]:
        target, inputs = task.data.target, task.model.graph_inputs
        edges = inputs.graph[target].edge_index
        users, items = edges[:, removed_mask(inputs.graph, task.removed)[target]]
        forgotten = Adjacency.from_edges(torch.stack([users, items]), (task.data.num_users, task.data.num_items))
        decay, balance = (5e-4, 0.5) if self.paper_exact else (self.weight_decay, self.balance)
        optimiser = torch.optim.Adam(operators.parameters(), lr=self.lr, weight_decay=decay)
        near_users, near_items = operators.rows[-1]
        draw = torch.arange(self.pairs, device=users.device)
        deleted = kept = users.new_zeros((), dtype=before.users.dtype)
        edge_ends = edges[:, self._held(edges, forgotten, operators)]
        held = int(len(draw) * (0.0 if self.paper_exact else self.edge_share)) if edge_ends.shape[1] else 0
        spread = _scores(before, *edges).std().clamp_min(1e-6)
        for step in range(self.steps):
            seed = derive(task.seed, "gnndelete", step)
            encoded = layers.encode(operators)
            own = users
            if self.paper_exact or self.non_edges == "any":
                place = torch.arange(len(users), device=users.device)
                own = hash_integers(derive(seed, "users"), task.data.num_users, place)
            others = sample_negatives(inputs.adjacency(), own, 1, seed=seed)[:, 0]
            deleted = mse_loss(_scores(encoded, users, items), _scores(encoded, own, others))
            a = near_users[hash_integers(derive(seed, "near users"), len(near_users), draw)]
            b = near_items[hash_integers(derive(seed, "near items"), len(near_items), draw)]
            if held:
                place = hash_integers(derive(seed, "near edges"), edge_ends.shape[1], draw[:held])
                a, b = (torch.cat([end[place], x[held:]]) for end, x in zip(edge_ends, (a, b), strict=True))
            known = forgotten.contains(a, b)
            now, then = _scores(encoded, a, b), _scores(before, a, b)
            if self.paper_exact:
                apart = now.sigmoid() - then.sigmoid()
            else:
                apart, deleted = (now - then) / spread, deleted / spread.square()
            kept = apart.square().masked_fill(known, 0.0).sum() / (~known).sum().clamp_min(1)
            optimiser.zero_grad()
            (balance * deleted + (1 - balance) * kept).backward()
            optimiser.step()
        return {"steps": self.steps, "deleted": float(deleted.detach()), "kept": float(kept.detach())}

    @staticmethod
    def _held(edges: Tensor, forgotten: Adjacency, operators: Operators) -> Tensor:
        """Training edges that stay and lie between nodes near the forgotten ones, places (m,)."""
        near = [torch.zeros(size, dtype=torch.bool, device=edges.device) for size in forgotten.shape]
        for mask, rows in zip(near, operators.rows[-1], strict=True):
            mask[rows] = True
        inside = near[0][edges[0]] & near[1][edges[1]] & ~forgotten.contains(edges[0], edges[1])
        return torch.nonzero(inside)[:, 0]


def _scores(encoded: Encoded, users: Tensor, items: Tensor) -> Tensor:
    return (encoded.users[users] * encoded.items[items]).sum(-1)


def as_tables(task: Task, users: Tensor, items: Tensor) -> BPRMF:
    """A BPRMF on what remains whose tables are final representations, (U, D) and (I, D)."""
    names = set(inspect.signature(BPRMF.__init__).parameters) - {"self", "inputs"}
    settings = {name: value for name, value in task.model.hparams.items() if name in names}
    settings |= {"dim": users.shape[1], "init": "normal"}
    model = BPRMF(BPRMF.inputs(task.remaining, **settings), **settings).to(users.device)
    with torch.no_grad():
        model.user_embedding.copy_(users)
        model.item_embedding.copy_(items)
    return model.eval()
