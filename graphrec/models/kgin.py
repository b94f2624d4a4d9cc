"""KGIN: users through intents that mix relations, items through paths of relations in the knowledge graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal, get_args

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from graphrec import randomness
from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.graphs.adjacency import Adjacency
from graphrec.graphs.relational_fields import RelationalField, keep_edges_exactly, relational_fields
from graphrec.layers.dropout import kept_entries
from graphrec.layers.intents import Independence, independence
from graphrec.layers.relational import relation_messages
from graphrec.layers.spmm import spmm
from graphrec.layers.unit_messages import unit_messages
from graphrec.models.base import Batch, EdgeWeight, Encoded, GraphInputs, PairBatch, Preset, target_weight
from graphrec.models.knowledge import KnowledgeRecommender
from graphrec.models.pairwise import Initialisation, Loss, Pair, Positives
from graphrec.randomness import hash_uniform


class KGIN(KnowledgeRecommender):
    r"""Knowledge graph-based intent network (Wang et al., WWW 2021, https://arxiv.org/abs/2102.07057).

    Triples and their inverses are edges; users are no nodes of that graph. With relation vectors ρ, intents
    :math:`c_f = \sum_r \mathrm{softmax}_r(Q_f)\, \rho_r` and attention
    :math:`a_{uf} = \mathrm{softmax}_f \langle u^{l}, p_f \rangle`

    .. math::
        x_v^{l+1} &= \overline{\tfrac{1}{|N_v|} \sum_{(r, t) \in N_v} \rho_r \odot x_t^{l}}, \qquad
        m_u = \tfrac{1}{|I_u|} \sum_{i \in I_u} x_i^{l}, \qquad
        u^{l+1} = \overline{m_u \odot \big( 1 + \textstyle\sum_f a_{uf} c_f \big)} \\
        x^* &= \sum_{l=0}^{L} x^{l}, \qquad u^* = \sum_{l=0}^{L} u^{l}, \qquad y_{ui} = \langle u^*, x_i^* \rangle

    where the bar divides a row by its norm (so that the divisors of both means cancel, and are not computed). In
    training every step keeps ⌊(1 - p) E⌋ of the E triples, each interaction with probability 1 - p, and drops entries
    of each layer before the norm. λ is on u*, x*; the independence of the Q_f is a term of the loss.

    The default is the authors' code, which gave the published numbers: equation 7 of the paper has
    :math:`\sum_f a_{uf} c_f \odot m_u` alone, the code adds m_u. The code keeps interactions with the probability that
    it means to drop them with, the same number at its 0.5.

    Args:
        inputs: the dataset, with a knowledge graph, or the inputs taken from it.
        dim: width of the tables.
        num_layers: L.
        num_intents: number of intents f.
        independence: how intents are kept apart: ``distance``, ``cosine``, ``mutual_information``; see
            :func:`graphrec.layers.intents.independence`; or ``none``.
        independence_weight: its weight in the loss (1e-4 on Last-FM and iFashion, 1e-5 on Amazon-book).
        temperature: τ of ``mutual_information``.
        relational: whether messages are multiplied by ρ (off: the paper's ablation "w/o R").
        edge_dropout: share of triples left out of each step.
        interaction_dropout: share of interactions left out of each step.
        message_dropout: share of entries of each layer's output that are dropped in training.
        loss: ``bpr``, ``bce`` or ``softmax``; see :class:`PairwiseRecommender`.
        num_negatives: negatives of each positive, or of a batch where they are shared.
        shared_negatives: whether a batch shares its negatives.
        positives: ``user`` or ``edge``; see :class:`PairwiseRecommender`.
        init: ``normal``, ``xavier`` or ``spectral``, for the tables; ρ, p and Q are Xavier-uniform.
        init_scale: standard deviation of the initial entries, for ``normal`` and ``spectral``.
        lr: learning rate of Adam.
        reg: λ, on the final vectors.
        batch_size: B.
        seed: seeds the initial parameters.
    """

    convention: ClassVar[str] = "kgin"
    presets: ClassVar[Mapping[str, Preset]] = {
        "last-fm": Preset(model={"independence_weight": 1e-4}, note="The authors' setting for Last-FM and iFashion."),
        "amazon-book": Preset(model={"independence_weight": 1e-5}, note="The authors' setting for Amazon-book."),
    }

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        dim: int = 64,
        num_layers: int = 3,
        num_intents: int = 4,
        independence: Independence | Literal["none"] = "distance",
        independence_weight: float = 1e-4,
        temperature: float = 0.2,
        relational: bool = True,
        edge_dropout: float = 0.5,
        interaction_dropout: float = 0.5,
        message_dropout: float = 0.1,
        loss: Loss = "bpr",
        num_negatives: int = 1,
        shared_negatives: bool = False,
        positives: Positives = "edge",
        init: Initialisation = "xavier",
        init_scale: float = 0.1,
        lr: float = 1e-4,
        reg: float = 1e-5,
        batch_size: int = 1024,
        seed: int = 0,
    ) -> None:
        for name, size in (("num_layers", num_layers), ("num_intents", num_intents)):
            if size < 1:
                raise InputError(f"{name} must be a positive whole number, found {size}.")
        for name, share in (
            ("edge_dropout", edge_dropout),
            ("interaction_dropout", interaction_dropout),
            ("message_dropout", message_dropout),
        ):
            if not 0 <= share < 1:
                raise InputError(f"{name} must lie in [0, 1), found {share}.")
        if independence not in (kinds := (*get_args(Independence), "none")):
            raise unknown("independence", independence, kinds)
        if temperature <= 0:
            raise InputError(f"temperature must be above 0, found {temperature}.")
        super().__init__(
            inputs,
            dim=dim,
            num_layers=num_layers,
            num_intents=num_intents,
            independence=independence,
            independence_weight=independence_weight,
            temperature=temperature,
            relational=relational,
            edge_dropout=edge_dropout,
            interaction_dropout=interaction_dropout,
            message_dropout=message_dropout,
            loss=loss,
            num_negatives=num_negatives,
            shared_negatives=shared_negatives,
            positives=positives,
            init=init,
            init_scale=init_scale,
            lr=lr,
            reg=reg,
            batch_size=batch_size,
            seed=seed,
        )
        self.num_layers, self.relational = num_layers, relational
        self.independence: Independence | Literal["none"] = independence
        self.independence_weight, self.temperature = independence_weight, temperature
        self.edge_dropout, self.interaction_dropout = edge_dropout, interaction_dropout
        self.message_dropout = message_dropout
        relations = self.knowledge.num_relations
        self.relation_embedding = nn.Parameter(torch.empty(relations, dim))
        self.intent_embedding = nn.Parameter(torch.empty(num_intents, dim))
        self.intent_logits = nn.Parameter(torch.empty(num_intents, relations))
        stream = randomness.generator(seed, "initialisation/layers")
        for parameter in (self.relation_embedding, self.intent_embedding, self.intent_logits):
            nn.init.xavier_uniform_(parameter, generator=stream)

    def intent_vectors(self) -> Tensor:
        """The c_f, mixtures of relation vectors, (F, D)."""
        return self.intent_logits.softmax(1) @ self.relation_embedding

    def user_step(self, users: Tensor, sums: Tensor) -> Tensor:
        """``m ⊙ (1 + Σ_f a_uf c_f)`` before the norm, from (B, D) user vectors and (B, D) multiples of m."""
        attention = (users @ self.intent_embedding.T).softmax(1)
        return sums + sums * (attention @ self.intent_vectors())

    def encode(self, *, edge_weight: EdgeWeight = None) -> Encoded:
        """u* and x* of the items, (U, D) and (I, D)."""
        of_triples = self.knowledge_weight(edge_weight)
        of_pairs = target_weight(edge_weight, self.graph_inputs.target)
        matrix, items = self.graph_inputs.adjacency(), self.knowledge.nodes(self.graph_inputs.target[2])
        users: Tensor = self.user_embedding
        nodes = self.node_table()
        user_sum, item_sum = users, nodes[items]
        for _ in range(self.num_layers):
            users = normalize(self.user_step(users, spmm(matrix, nodes[items], of_pairs)))
            if self.relational:
                messages = relation_messages(self.knowledge, nodes, self.relation_embedding, of_triples)
            else:
                messages = spmm(self.knowledge.adjacency, nodes, of_triples)
            nodes = normalize(messages)
            user_sum, item_sum = user_sum + users, item_sum + nodes[items]
        return Encoded(user_sum, item_sum)

    # -- training ------------------------------------------------------------------------------------------------------

    def _picked_interactions(
        self, users: Tensor, weight: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Adjacency, Tensor | None]:
        """The rows of users x items of a batch with this step's interactions, and their weights in stored order."""
        picked = self.graph_inputs.adjacency().row_subset(users)
        values = None if weight is None else picked.stored(weight)
        if generator is None or not self.interaction_dropout:
            return picked, values
        seed = _seed(generator)
        rows = picked.rows().long()
        kept = hash_uniform(seed, users[rows], picked.col.long()) >= self.interaction_dropout
        entry = torch.nonzero(kept)[:, 0]
        rowptr = torch.zeros_like(picked.rowptr)
        rowptr[1:] = torch.bincount(rows[entry], minlength=len(users)).cumsum(0)
        return (
            Adjacency(rowptr, picked.col[entry], picked.shape),
            None if values is None else values.index_select(0, entry),
        )

    def _kept(self, shape: tuple[int, int], generator: torch.Generator | None) -> Tensor | None:
        """Entries that dropout keeps. They are not scaled up, for the norm that follows takes any scale away."""
        if generator is None or not self.message_dropout:
            return None
        return kept_entries(shape, self.message_dropout, generator)

    def _layer(
        self, field: RelationalField, nodes: Tensor, weight: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        """Rows of the nodes above, (m, D), from those of the nodes below."""
        kept = self._kept((len(field.above), self.dim), generator)
        if self.relational and weight is None:
            return unit_messages(field.matrix, nodes, field.node, field.relation, self.relation_embedding, kept)
        messages = nodes.index_select(0, field.node)
        if self.relational:
            messages = messages * self.relation_embedding.index_select(0, field.relation)
        sums = spmm(field.matrix, messages, None if weight is None else weight.index_select(0, field.edge))
        return normalize(sums if kept is None else sums * kept)

    def _table_rows(self, nodes: Tensor) -> Tensor:
        """Rows of the table of items and entities, ``nodes`` ascending, without joining the two."""
        tables, start, parts = self.tables(), 0, []
        bounds = torch.searchsorted(nodes, torch.tensor(self.knowledge.sizes, device=nodes.device).cumsum(0)).tolist()
        for kind, end in zip(self.knowledge.order, bounds, strict=True):
            own = nodes[start:end] - self.knowledge.nodes(kind).start
            parts.append(tables[kind].index_select(0, own))
            start = end
        return torch.cat(parts)

    def training_rows(
        self, users: Tensor, items: Tensor, *, batch: Batch | None = None, edge_weight: EdgeWeight = None
    ) -> tuple[Pair, Pair]:
        """Rows of u* and x*, from the nodes alone that the batch rests on; the penalty is on them too.

        In training triples, interactions and entries are dropped by draws from the batch's generator.
        """
        generator = batch.generator if self.training and batch is not None else None
        graph = self.knowledge
        first = graph.nodes(self.graph_inputs.target[2]).start
        own, of_user = torch.unique(users, return_inverse=True)
        wanted, of_item = torch.unique(items, return_inverse=True)
        kept = None
        if generator is not None and self.edge_dropout:
            kept = keep_edges_exactly(graph, self.edge_dropout, seed=_seed(generator))
        matrix, of_pairs = self._picked_interactions(
            own, target_weight(edge_weight, self.graph_inputs.target), generator
        )
        of_triples = self.knowledge_weight(edge_weight)
        wanted, met = wanted + first, matrix.col.long() + first
        fields = relational_fields(graph, wanted, met, self.num_layers, kept)
        nodes = self._table_rows(fields[0].below)
        place = torch.zeros(graph.num_nodes, dtype=torch.int64, device=nodes.device)
        place[fields[0].below] = torch.arange(len(nodes), device=nodes.device)
        user = self.user_embedding.index_select(0, own)
        user_sum, item_sum = user, nodes.index_select(0, place[wanted])
        for field in fields:
            taken = Adjacency(matrix.rowptr, place[met].to(torch.int32), (len(own), len(nodes)))
            user = self.user_step(user, spmm(taken, nodes, of_pairs))
            kept_user = self._kept((len(own), self.dim), generator)
            user = normalize(user if kept_user is None else user * kept_user)
            nodes = self._layer(field, nodes, of_triples, generator)
            place[field.above] = torch.arange(len(nodes), device=nodes.device)
            user_sum = user_sum + user
            item_sum = item_sum + nodes.index_select(0, place[wanted])
        final = user_sum.index_select(0, of_user), item_sum.index_select(0, of_item)
        return final, final

    def pair_loss(self, batch: PairBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The terms of the base and ``independence``."""
        terms = dict(super().pair_loss(batch, edge_weight))
        if self.independence != "none" and self.independence_weight:
            apart = independence(self.intent_logits, self.independence, temperature=self.temperature)
            terms["independence"] = self.independence_weight * self.batch_weight(batch, apart)
        return terms

    # -- explanations --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def intents(self, relation_names: Sequence[str] | None = None) -> pd.DataFrame:
        """What each intent is made of, largest share first.

        Args:
            relation_names: a name for each relation of :attr:`knowledge`, inverse ones too.

        Returns:
            ``intent``, from 0; ``relation``; ``share``, that of the relation in the intent (sums to 1 in each).
        """
        titles = relation_names or [relation.title() for relation in self.knowledge.relations]
        shares = self.intent_logits.softmax(1).cpu()
        order = shares.argsort(dim=1, descending=True, stable=True)
        count, width = shares.shape
        return pd.DataFrame(
            {
                "intent": torch.arange(count).repeat_interleave(width).numpy(),
                "relation": [titles[place] for place in order.flatten().tolist()],
                "share": shares.gather(1, order).flatten().numpy(),
            }
        )

    @torch.no_grad()
    def intent_attention(self, users: Iterable[int]) -> pd.DataFrame:
        """How much each user attends to each intent.

        Args:
            users: row numbers.

        Returns:
            ``user``; ``intent``; ``attention``, the mean over layers of a_uf (sums to 1 for each user).
        """
        chosen = torch.as_tensor(list(users), dtype=torch.int64, device=self.device)
        matrix, items = self.graph_inputs.adjacency(), self.knowledge.nodes(self.graph_inputs.target[2])
        rows, nodes = matrix.row_subset(chosen, edges=False), self.node_table()
        vectors = self.user_embedding[chosen]
        attention = torch.zeros(len(chosen), len(self.intent_embedding), dtype=vectors.dtype, device=self.device)
        for _ in range(self.num_layers):
            attention += (vectors @ self.intent_embedding.T).softmax(1) / self.num_layers
            vectors = normalize(self.user_step(vectors, spmm(rows, nodes[items])))
            nodes = normalize(
                relation_messages(self.knowledge, nodes, self.relation_embedding)
                if self.relational
                else spmm(self.knowledge.adjacency, nodes)
            )
        count = attention.shape[1]
        return pd.DataFrame(
            {
                "user": chosen.repeat_interleave(count).cpu().numpy(),
                "intent": torch.arange(count).repeat(len(chosen)).numpy(),
                "attention": attention.flatten().cpu().numpy(),
            }
        )

    def explanation_tables(self, user: int, relation_names: Sequence[str] | None = None) -> Mapping[str, pd.DataFrame]:
        """What stands beside an explanation: the user's attention, and the five largest relations of each intent."""
        attention = self.intent_attention([user])[["intent", "attention"]]
        largest = self.intents(relation_names).groupby("intent").head(5).reset_index(drop=True)
        return {"The user's intents": attention, "Relations in each intent": largest}


def _seed(generator: torch.Generator) -> Tensor:
    """A seed of this step, left on the generator's device."""
    return torch.randint(2**62, (), generator=generator, device=generator.device)
