r"""What models trained on labelled pairs share: the examples of an epoch, and the cross entropy of their scores.

Letters: B examples of a batch, P labelled training pairs, E training edges, n drawn negatives of each edge.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError, unknown
from graphrec.graphs.sampling import positive_pairs, sample_negatives
from graphrec.layers.losses import point_loss
from graphrec.models.base import EdgeWeight, GraphInputs, GraphRecommender, Phase, PointBatch
from graphrec.models.labelled import LabelledPairs
from graphrec.models.phase_parts import adam
from graphrec.randomness import derive, hash_bits

Examples = Literal["labelled", "drawn"]


def drawn_pairs(inputs: GraphInputs, num_negatives: int, *, seed: int) -> LabelledPairs:
    """Every training edge as a positive, with negatives drawn for it among the items its user has no edge to.

    A negative carries the edge id of the edge it was drawn for: what takes the edge out takes its negatives out.

    Args:
        inputs: of the model.
        num_negatives: n.
        seed: a seed of this epoch.

    Returns:
        E (1 + n) pairs.
    """
    matrix = inputs.adjacency()
    users, items, edge_id = positive_pairs(matrix, positives="edge", seed=seed)
    negatives = sample_negatives(matrix, users, num_negatives, seed=seed, keys=items)
    all_items = torch.cat([items[:, None], negatives], 1)
    labels = torch.zeros(all_items.shape, device=users.device)
    labels[:, 0] = 1
    width = num_negatives + 1
    return LabelledPairs(
        users.repeat_interleave(width), all_items.flatten(), labels.flatten(), edge_id.repeat_interleave(width)
    )


def labelled_batches(
    inputs: GraphInputs,
    batch_size: int,
    generator: torch.Generator,
    *,
    examples: Examples = "labelled",
    num_negatives: int = 1,
) -> Iterator[PointBatch]:
    """The batches of one epoch, in an order by hashes of (user, item) that is new each epoch; the last one is short.

    Args:
        inputs: of the model; ``GraphInputs.from_dataset(data, labels=True)`` holds the labelled pairs.
        batch_size: B.
        generator: of the epoch; its seed keys the draws.
        examples: ``labelled`` takes the labelled training pairs, and where the dataset labels no pair 0 what ``drawn``
            takes: every training edge with negatives that are drawn anew each epoch.
        num_negatives: n, drawn for each edge; labelled pairs have theirs.

    Raises:
        InputError: the labelled training pairs lack a class.
    """
    seed = generator.initial_seed()
    if examples == "labelled" and inputs.labelled is not None:
        pairs = inputs.labelled
        if pairs.positives in (0, len(pairs)):
            raise InputError(
                f"the training part has {pairs.positives} pairs labelled 1 and {len(pairs) - pairs.positives} labelled "
                "0; training on labels needs both."
            )
    else:
        pairs = drawn_pairs(inputs, num_negatives, seed=seed)
    # Equal keys (a negative that several edges drew) stay in the order of the edges' own hashes.
    order = torch.argsort(hash_bits(derive(seed, "order of pairs"), pairs.users, pairs.items), stable=True)
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        yield PointBatch(
            edge_id=pairs.edge_id[part],
            weight=torch.ones(len(part), device=part.device),
            generator=generator,
            users=pairs.users[part],
            items=pairs.items[part],
            labels=pairs.labels[part],
        )


class PointwiseRecommender(GraphRecommender):
    r"""A model that says of a user and an item how likely they belong together.

    One phase; for a batch of B pairs with scores y, labels c and weights w

    .. math:: L = \frac1B \sum_b w_b \big( c_b \log(1 + e^{-y_b}) + (1 - c_b) \log(1 + e^{y_b}) \big) + \ldots

    and what :meth:`more_terms` adds. A subclass defines :meth:`point_scores` and ``score``; one with other phases takes
    :meth:`batches` and :meth:`point_terms` into its own.

    Args:
        inputs: the dataset or the inputs taken from it.
        examples: ``labelled`` or ``drawn``; see :func:`labelled_batches`.
        num_negatives: negatives drawn for each training edge where there are no labels.
        lr: learning rate of Adam.
        batch_size: B.
        seed: seeds the initial tables.
        **hparams: hyper-parameters of the subclass.
    """

    def __init__(
        self,
        inputs: GraphInputs | RecDataset,
        *,
        examples: Examples,
        num_negatives: int,
        lr: float,
        batch_size: int,
        seed: int,
        **hparams: Any,
    ) -> None:
        for name, size in (("num_negatives", num_negatives), ("batch_size", batch_size)):
            if size < 1:
                raise InputError(f"{name} must be a positive whole number, found {size}.")
        if examples not in ("labelled", "drawn"):
            raise unknown("examples", examples, ("labelled", "drawn"))
        super().__init__(
            inputs,
            examples=examples,
            num_negatives=num_negatives,
            lr=lr,
            batch_size=batch_size,
            seed=seed,
            **hparams,
        )
        self.examples, self.num_negatives = examples, num_negatives
        self.lr, self.batch_size, self.seed = lr, batch_size, seed

    @classmethod
    def inputs(cls, data: RecDataset, **hparams: Any) -> GraphInputs:
        """The training edges of the ranked behaviour, and the labelled training pairs where they are trained on."""
        return GraphInputs.from_dataset(data, labels=hparams.get("examples") != "drawn")

    @property
    def objective(self) -> str:
        """Cross entropy, and of which pairs."""
        labelled = self.examples == "labelled" and self.graph_inputs.labelled is not None
        return f"cross entropy of {'labelled' if labelled else 'drawn'} pairs"

    @abstractmethod
    def point_scores(self, batch: PointBatch, edge_weight: EdgeWeight = None) -> Tensor:
        """Scores (B,) of the pairs of a batch, before the sigmoid; differentiable."""

    def more_terms(self, batch: PointBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """Further terms of the loss (regularisers), by name."""
        return {}

    def point_terms(self, batch: PointBatch, edge_weight: EdgeWeight = None) -> Mapping[str, Tensor]:
        """The term ``click`` of one batch, and those of :meth:`more_terms`; see the class."""
        scores = self.point_scores(batch, edge_weight)
        click = self.batch_weight(batch, point_loss(scores, batch.labels))
        return {"click": click, **self.more_terms(batch, edge_weight)}

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[PointBatch]:
        """The batches of one epoch; see :func:`labelled_batches`."""
        return labelled_batches(
            self.graph_inputs,
            self.batch_size,
            generator,
            examples=self.examples,
            num_negatives=self.num_negatives,
        )

    def phases(self) -> Sequence[Phase]:
        """One phase, ``clicks``, that trains every parameter with Adam."""

        return (Phase("clicks", self.batches, self.point_terms, tuple(self.parameters()), adam(self.lr)),)
