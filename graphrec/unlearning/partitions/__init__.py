"""Cuts of users, items or interactions into parts of limited size, in memory that is linear in what is cut."""

from __future__ import annotations

from torch import Tensor

from graphrec.errors import unknown
from graphrec.models.base import GraphInputs
from graphrec.models.shard_assignment import CUTS, check_cut
from graphrec.unlearning.partitions.clustering import balanced_clusters, interaction_clusters
from graphrec.unlearning.partitions.factors import whole_data_factors
from graphrec.unlearning.partitions.label_propagation import label_propagation, user_neighbours
from graphrec.unlearning.partitions.transport import transport_clusters

SLACK = {"blpa": 0.005, "bekm": 0.005, "ubp": 0.2, "ibp": 0.2, "inbp": 0.2}
"""How far above an even part a part may grow: GraphEraser's and RecEraser's."""


def make_partition(
    partition: str,
    by: str,
    inputs: GraphInputs,
    num_shards: int,
    *,
    slack: float | None = None,
    balance: str = "count",
    dim: int = 32,
    seed: int = 0,
) -> Tensor:
    """A partition that is made from the training interactions, on the device of the inputs.

    Args:
        partition: ``blpa``, ``bekm``, ``ubp``, ``ibp``, ``inbp`` or ``transport``.
        by: what is cut; see :data:`graphrec.models.shard_assignment.CUTS`.
        inputs: gives the interactions.
        num_shards: S.
        slack: how far above an even part a part may grow; None: what the paper takes. ``transport`` cuts evenly.
        balance: what a part's capacity counts: users (items), as in the papers (``count``), or their interactions
            (``edges``), so that every part takes as long to train. ``transport`` and ``inbp`` count what they cut.
        dim: width of the vectors that are clustered (whole-data matrix factorisation).
        seed: of all draws.

    Returns:
        The shard of each user, item or edge.
    """
    check_cut(partition, by)
    made = {name for name in CUTS if name not in ("hash", "random")}
    if partition not in made:
        raise unknown("partition made from the data", partition, made)
    if balance not in ("count", "edges"):
        raise unknown("balance", balance, ("count", "edges"))
    adj = inputs.adjacency()
    weight = adj.degrees(0 if by == "user" else 1).clamp_min(1) if balance == "edges" else None
    room = SLACK.get(partition, 0.0) if slack is None else slack
    if partition == "blpa":
        return label_propagation(
            user_neighbours(adj),
            inputs.num_users,
            num_shards,
            slack=room,
            seed=seed,
            weight=weight,
            device=adj.device,
        )
    users, items = whole_data_factors(adj, dim=min(dim, inputs.num_users, inputs.num_items), seed=seed)
    if partition == "inbp":
        edges = inputs.graph[inputs.target].edge_index
        return interaction_clusters(users, items, edges, num_shards, slack=room, seed=seed)
    x = users if by == "user" else items
    if partition == "transport":
        return transport_clusters(x, num_shards, seed=seed).cluster
    return balanced_clusters(x, num_shards, slack=room, seed=seed, weight=weight)
