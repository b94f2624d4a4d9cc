"""DiffKG: a knowledge graph pruned by diffusion, and a contrast between recommending with it and with the whole one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, check_at_least, unknown
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.relational import RelationalGraph
from graphrec.layers.contrastive import cross_view_contrast
from graphrec.layers.denoiser import Precision
from graphrec.layers.reconstruction import Candidates
from graphrec.models.base import Derived, EdgeWeight, Encoded, GraphInputs, PairBatch, Phase, target_weight
from graphrec.models.diffkg_presets import PRESETS
from graphrec.models.diffkg_pruning import PrunedKnowledge, Pruning, Rows
from graphrec.models.diffkg_views import Attention, LoopedMatrix, item_rows, summed_layers
from graphrec.models.pairwise import Initialisation
from graphrec.models.phase_parts import adam

Main = Literal["original", "pruned"]


@dataclass(frozen=True, kw_only=True)
class ViewBatch(PairBatch):
    """Pairs, and what the mean of their ranking loss is multiplied by."""

    rank_scale: float = 1.0


class DiffKG(PrunedKnowledge):
    r"""DiffKG (Jiang et al., WSDM 2024, https://arxiv.org/abs/2312.16890).

    Items come from attention over the knowledge graph, users from their table; both are summed over the layers of a
    linear propagation with self-loops. For a graph G of triples, ``F(G)`` is

    .. math:: x'_h = \frac{\mathrm{drop}(x_h + \sum_t \alpha_{ht} x_t)}{\|\cdot\|}, \quad
              \alpha = \mathrm{softmax}_h\, \mathrm{LReLU}_{.2}([x_h \| x_t] W \cdot \rho_r), \quad
              X^{res} \leftarrow \lambda_r X^{res} + X', \quad
              E^* = \sum_{k=0}^K \hat A^k [U; X^{res}_{items}]

    An epoch has three phases. ``diffusion`` trains a denoiser on the rows of the graph (:mod:`graphrec.layers
    .diffusion`), each a node's neighbours with inverse relations, one relation for an ordered pair: the loss is
    :math:`(1 - \lambda_0)` times the weighted error of reconstruction and :math:`\lambda_0` times that of
    collaborative guidance. ``rebuild`` keeps the pairs that the denoiser names, its ``rebuild_k`` strongest in each
    row, both ways, where they are in the graph: the pruned graph never has a fact that the graph has not. ``pairs``
    trains the rest on

    .. math:: \frac1B \sum -\log \sigma(y_{ui} - y_{uj}) + \lambda \sum_\theta \|\theta\|^2 + \lambda_c \big(
              \mathrm{NCE}(V_{items}, M_{items}) + \mathrm{NCE}(V_{users}, M_{users}) \big)

    on the main view M and the other one V; the scores are M's. The contrast's anchors are the batch's nodes in V, its
    candidates all users (items) in M; the regulariser is over whole tables, without ½.

    Where paper and code differ, the code is followed: all entities' rows are diffused, not the items' (the paper's;
    here ``rows="items"``), and the pruned graph is a subset. Two of its habits are mended unless a preset brings them
    back: with ``main="pruned"`` it scores with the randomly thinned graph of the last epoch (``thinned_scores``), and
    the last, short batch of an epoch is divided by the size of a whole one (``nominal_divisor``). Its figures are of
    the epoch that is best on the test part.

    On small data the contrast's temperature decides, not the diffusion: for clicks on Last.FM (``music``, one seed) the
    AUC was .858 without contrast, .856 with τ = 1, and .849 and .773 with τ = .1 and λ_c = .01 and .1.

    Args:
        inputs: the dataset or the inputs taken from it, with triples.
        dim: D.
        num_layers: K, layers on the interactions.
        kg_layers: hops of attention; at 0 items come from their table.
        message_dropout: share of entries dropped after each hop.
        residual: λ_r; at 0 the last hop is all that counts.
        attention: ``relation``, as above; ``mean`` over the neighbours.
        max_tails: heads with more edges keep that many of the whole graph, a draw that holds for the training; the
            denoiser sees all. None: all are kept.
        main: which view is the main one, that of the ``original`` graph or of the ``pruned``.
        pruning: ``diffusion``; or ``random``, without a denoiser: all of the graph is thinned.
        keep_rate: share of the pruned graph's edges kept in an epoch, a draw for each.
        thinned_scores: see above.
        nominal_divisor: see above.
        contrast_weight: λ_c; at 0 the other view is not made.
        temperature: of the contrast.
        steps: of the diffusion.
        noise_scale: of its variances; see :func:`graphrec.layers.diffusion.variance_schedule`.
        noise_min: the lowest variance, times the scale.
        noise_max: the largest.
        hidden: width of the denoiser.
        guidance: λ_0, the share of collaborative guidance.
        rebuild_k: columns of each row that are named.
        rows: whether ``all`` nodes' rows are diffused and rebuilt or those of ``items``.
        candidates: whether a row names its strongest among ``all`` columns, of which those not in the graph are lost,
            or among those ``stored`` in the row, for which nothing wider than the denoiser is computed.
        noised_start: steps of noise on rows before they are reconstructed.
        precision: ``bfloat16`` trains and ranks wide layers in half precision.
        row_batch_size: rows of a step of the diffusion, whose memory is that number times N floats, twice at most.
        diffusion_lr: learning rate of the denoiser's Adam.
        num_negatives: of each positive.
        init: of the tables; ``xavier`` in the paper.
        init_scale: standard deviation under ``normal``.
        lr: learning rate of Adam.
        reg: λ.
        batch_size: B.
        seed: seeds initial weights and the draw of ``max_tails``.
    """

    presets = PRESETS
    convention: ClassVar[str] = "diffkg"

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 64,
        num_layers: int = 2,
        kg_layers: int = 1,
        message_dropout: float = 0.1,
        residual: float = 0.5,
        attention: Attention = "relation",
        max_tails: int | None = None,
        main: Main = "original",
        pruning: Pruning = "diffusion",
        keep_rate: float = 0.5,
        thinned_scores: bool = False,
        nominal_divisor: bool = False,
        contrast_weight: float = 0.1,
        temperature: float = 0.1,
        steps: int = 5,
        noise_scale: float = 0.1,
        noise_min: float = 1e-4,
        noise_max: float = 0.02,
        hidden: int = 1000,
        guidance: float = 0.5,
        rebuild_k: int = 1,
        rows: Rows = "all",
        candidates: Candidates = "all",
        noised_start: int = 0,
        precision: Precision = "float32",
        row_batch_size: int = 1024,
        diffusion_lr: float = 1e-3,
        num_negatives: int = 1,
        init: Initialisation = "xavier",
        init_scale: float = 0.1,
        lr: float = 1e-3,
        reg: float = 1e-5,
        batch_size: int = 1024,
        seed: int = 0,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "inputs", "__class__")}
        _check(given)
        prunes = main == "pruned" or contrast_weight > 0
        super().__init__(inputs, prunes=prunes, loss="bpr", shared_negatives=False, positives="edge", **given)
        self.hparams = given
        self.num_layers, self.kg_layers, self.residual = num_layers, kg_layers, residual
        self.message_dropout, self.attention, self.max_tails = message_dropout, attention, max_tails
        self.main, self.thinned_scores, self.nominal_divisor = main, thinned_scores, nominal_divisor
        self.contrast_weight, self.temperature = contrast_weight, temperature
        relations = self.knowledge.num_relations
        self.relation_embedding = nn.Parameter(torch.empty(relations, dim))
        self.attention_weight = nn.Parameter(torch.empty(2 * dim, dim))
        stream = randomness.generator(seed, "initialisation/attention")
        nn.init.xavier_uniform_(self.relation_embedding, generator=stream)
        nn.init.xavier_uniform_(self.attention_weight, gain=nn.init.calculate_gain("relu"), generator=stream)
        self.matrix = self.propagation_matrix()
        looped = LoopedMatrix.of(self.graph_inputs)
        self.user_loops: Tensor
        self.item_loops: Tensor
        self.register_buffer("user_loops", looped.users, persistent=False)
        self.register_buffer("item_loops", looped.items, persistent=False)
        self.original = self.limited()

    def limited(self) -> RelationalGraph:
        """The graph with at most ``max_tails`` edges at each head, those whose hashes are smallest."""
        graph = self.knowledge
        if self.max_tails is None:
            return graph
        draws = randomness.hash_uniform(randomness.derive(self.seed, "tails"), graph.heads(), graph.tails())
        order = torch.argsort(draws, stable=True)
        order = order[torch.argsort(graph.heads()[order], stable=True)]
        rank = torch.arange(len(order), device=order.device) - graph.adjacency.rowptr[graph.heads()[order]]
        kept = torch.zeros(len(graph), dtype=torch.bool, device=order.device)
        kept[order[rank < self.max_tails]] = True
        return graph.subset(kept)

    def views(
        self, names: Sequence[Main], edge_weight: EdgeWeight = None, generator: torch.Generator | None = None
    ) -> list[Encoded]:
        """E* of each named view, side by side through one propagation.

        Args:
            names: of the views.
            edge_weight: weights of interactions and triples.
            generator: where dropout draws from; None: nothing is dropped.
        """
        thinned = self.training or self.thinned_scores
        graphs = [self.original if name == "original" else self.pruned(thinned) for name in names]
        known = edge_weight if isinstance(edge_weight, Mapping) else None
        items = item_rows(
            graphs,
            self.node_table(),
            self.relation_embedding,
            self.attention_weight,
            hops=self.kg_layers,
            residual=self.residual,
            attention=self.attention,
            message_dropout=self.message_dropout,
            generator=generator,
            edge_weights=[graph.weights(known) for graph in graphs],
        )
        weight = target_weight(edge_weight, self.graph_inputs.target)
        loops, values = (self.user_loops, self.item_loops), None
        if weight is not None:
            looped = LoopedMatrix.of(self.graph_inputs, weight)
            loops, values = (looped.users, looped.items), looped.values
        table = items[0] if len(items) == 1 else torch.cat(items, 1)
        final = summed_layers(self.matrix, loops, self.user_embedding, table, self.num_layers, values)
        return [Encoded(*sides) for sides in zip(*(side.split(self.dim, 1) for side in final), strict=True)]

    @property
    def weights_delete(self) -> bool:
        """With all tails of the whole graph as the main view, for the scores are its alone."""
        return self.main == "original" and self.max_tails is None

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        """E* of the main view, (U, D) and (I, D), without dropout."""
        return self.views([self.main], edge_weight)[0]

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[PairBatch]:
        """The training edges once, in a drawn order."""
        for batch in super().batches(epoch, generator):
            own = {entry.name: getattr(batch, entry.name) for entry in fields(batch)}
            scale = len(batch) / self.batch_size if self.nominal_divisor else 1.0
            yield ViewBatch(**own, rank_scale=scale)

    def pair_loss(self, batch: PairBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The terms ``rank``, ``reg`` and ``contrast`` of one batch; see the class."""
        generator = batch.generator if self.training else None
        names: list[Main] = [self.main]
        if self.contrast_weight:
            names.append("pruned" if self.main == "original" else "original")
        main, *others = self.views(names, edge_weight, generator)
        users, items = main.users[batch.users], main.items[batch.items]
        negatives = main.items[batch.negatives.reshape(-1)].view(len(batch), -1, self.dim)
        difference = (negatives * users.unsqueeze(1)).sum(-1) - (users * items).sum(-1, keepdim=True)
        scale = batch.rank_scale if isinstance(batch, ViewBatch) else 1.0
        terms = {"rank": scale * self.batch_weight(batch, functional.softplus(difference).mean(1))}
        if self.reg:
            squares = sum(
                (parameter.square().sum() for parameter in self.recommender_parameters()), start=users.new_zeros(())
            )
            terms["reg"] = self.reg * squares * batch.weight.mean()
        for other in others:
            contrast = cross_view_contrast(other.items, main.items, batch.items, temperature=self.temperature)
            contrast = contrast + cross_view_contrast(
                other.users, main.users, batch.users, temperature=self.temperature
            )
            terms["contrast"] = self.contrast_weight * self.batch_weight(batch, contrast)
        return terms

    def recommender_parameters(self) -> list[nn.Parameter]:
        """All parameters but the denoiser's."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("denoiser.")]

    def phases(self) -> Sequence[Phase]:
        """``diffusion``, ``rebuild`` and ``pairs``; the first two where the pruned graph needs them."""
        own = tuple(self.recommender_parameters())
        return (*self.pruning_phases(), Phase("pairs", self.batches, self.pair_loss, own, adam(self.lr)))

    def propagation_matrix(self) -> Adjacency:
        """The users x items block of the normalised matrix with self-loops, from the present inputs."""
        return self.graph_inputs.adjacency().with_values(LoopedMatrix.of(self.graph_inputs).values)

    def derived(self) -> Mapping[str, Derived]:
        """The typed edges, the part of them that has at most ``max_tails`` at a head, what was pruned, the matrix."""
        return {
            **super().derived(),
            "original": Derived(tuple(self.knowledge_types()), self.limited),
            "matrix": Derived((self.graph_inputs.target,), self.propagation_matrix),
            "user_loops": Derived((self.graph_inputs.target,), lambda: LoopedMatrix.of(self.graph_inputs).users),
            "item_loops": Derived((self.graph_inputs.target,), lambda: LoopedMatrix.of(self.graph_inputs).items),
        }


def _check(given: Mapping[str, Any]) -> None:
    for name, words in (
        ("attention", ("relation", "mean")),
        ("main", ("original", "pruned")),
    ):
        if given[name] not in words:
            raise unknown(name, given[name], words)
    check_at_least(0, num_layers=given["num_layers"], kg_layers=given["kg_layers"])
    if given["max_tails"] is not None and given["max_tails"] < 1:
        raise InputError(f"max_tails must be a positive whole number or None, found {given['max_tails']}.")
    if not 0 <= given["message_dropout"] < 1:
        raise InputError(f"message_dropout must lie in [0, 1), found {given['message_dropout']}.")
    if given["contrast_weight"] < 0:
        raise InputError(f"contrast_weight must be 0 or more, found {given['contrast_weight']}.")
