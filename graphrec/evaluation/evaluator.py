"""Full ranking of all items for all users with truth, and the metrics of the lists."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from graphrec.datasets.dataset import RecDataset
from graphrec.errors import InputError
from graphrec.evaluation import beyond_accuracy
from graphrec.evaluation.classification import auc_of_ranks, rank_sums, weighted_mean
from graphrec.evaluation.measured import user_table
from graphrec.evaluation.opened import opened, same_size
from graphrec.evaluation.protocol import Candidates, Cold, Mask, Protocol, protocol
from graphrec.evaluation.ranking import rank
from graphrec.evaluation.result import Evaluation, by_popularity
from graphrec.evaluation.sampled import rank_sampled
from graphrec.evaluation.scoring import Scorer, Scores, evaluating, score_blocks
from graphrec.evaluation.specs import Lists, MetricSpec, measure, resolve
from graphrec.models.base import Encoded, GraphRecommender
from graphrec.runs import Run

if TYPE_CHECKING:
    from os import PathLike

    from graphrec.serving import Recommender


def evaluate_ranking(
    model: GraphRecommender | Encoded | Scores | Run | Recommender | str | PathLike[str],
    data: RecDataset | None = None,
    *,
    split: str = "test",
    ks: int | Sequence[int] = (10, 20),
    metrics: str | Iterable[str] | None = None,
    mask: Mask = "train",
    cold: Cold = "keep",
    candidates: Candidates = "all",
    sampled_negatives: int | None = None,
    seed: int = 0,
    features: str | np.ndarray | Tensor | None = None,
    tail: float = beyond_accuracy.TAIL_SHARE,
    block: int | None = None,
    memory: int | None = None,
    device: str | torch.device | None = None,
) -> Evaluation:
    """Rank all items for every user with truth, and measure the lists.

    What a user has interacted with in the parts named by ``mask`` is left out; equal scores are ordered by item number;
    users without truth are skipped and counted. A metric is one sum over all users, divided once.

    Args:
        model: a model, a run, a recommender or the path of a run; or final representations, or a function of users (B,)
            that gives scores (B, I).
        data: the dataset; None: the run's own, loaded again.
        split: the part that holds the truth.
        ks: lengths of the lists.
        metrics: names (:data:`graphrec.evaluation.METRICS`), ``all``, ``fairness``; None: accuracy, coverage,
            exposure and popularity.
        mask: ``train`` leaves out training items (the published convention of most), ``train+valid`` those of the
            validation part too (RecBole), ``none`` nothing.
        cold: ``keep``, or ``drop`` users and items without a training edge from the truth (MMRec); counted.
        candidates: ``all``; ``seen``: items with a training edge, those that existed at the time of a split by time;
            ``cold``: items without one; or item numbers. Truth that is no candidate does not count, and is counted.
        sampled_negatives: for old papers, rank each user's truth among so many drawn items instead of all. Warns.
        seed: of the drawn negatives.
        features: what ``diversity`` compares items by: the name of item features of the dataset, or an array (I, D).
        tail: the long tail holds this share of the training interactions.
        block: users in a block.
        memory: bytes for a block of scores (see :func:`rank`).
        device: where to compute; None: where the model is.

    Returns:
        A mapping of keys such as ``recall@20`` to values, with the values of each user in ``per_user``.

    Raises:
        InputError: k larger than the catalogue, unknown metric, no such part, a score that is NaN, or a model of other
            users and items than the dataset's.
    """
    specs = resolve(metrics)
    lengths = _cutoffs(ks)
    scored, data = opened(model, data, device)
    plan = protocol(data, split=split, mask=mask, cold=cold, candidates=candidates)
    if lengths[-1] > plan.num_items:
        what = "the catalogue" if plan.items is None else f"the {plan.candidates} candidates"
        raise InputError(f"k is {lengths[-1]}, larger than {what} of {plan.num_items} items; choose smaller ks.")
    if len(plan.users) == 0:
        raise InputError(f"no user of dataset {data.name!r} has truth in part {split!r}: there is nothing to evaluate.")
    if isinstance(scored, (GraphRecommender, Encoded)):
        same_size(scored, data)
    start = time.perf_counter()
    longest = min(lengths[-1] + 1, plan.num_items)
    if sampled_negatives is None:
        lists, scores = rank(scored, plan.users, longest, plan.exclude, plan.items, block=block, memory=memory)
    else:
        warnings.warn(
            f"ranking among {sampled_negatives} drawn negatives: such metrics do not order models as the full ranking "
            "does; use them only beside papers that did",
            stacklevel=3,
        )
        lists, scores = rank_sampled(scored, plan, longest, sampled_negatives, seed, block=block, memory=memory)
    tied = (scores[:, 1:] == scores[:, :-1]) & (scores[:, 1:] > -torch.inf)
    tie_rate = float(tied.any(1).double().mean())
    lists, scores = lists[:, : lengths[-1]].cpu(), scores[:, : lengths[-1]].cpu()
    hits = plan.truth.contains(plan.users, lists, data.num_items)
    truth = plan.truth.counts(plan.users)
    shown = _numbered(lists, plan)
    catalogue = _catalogue(data, plan, features, tail, specs)
    total, users = measure(specs, hits, truth, lengths, lambda k: Lists(shown[:, :k], plan.num_items, *catalogue))
    if any(spec.kind == "ranking" for spec in specs):
        if sampled_negatives is not None:
            raise InputError(
                "auc_user and gauc are of the whole ranking: leave out sampled_negatives, or these metrics."
            )
        auc = _ranking_auc(scored, plan, block, memory)
        for spec in specs:
            if spec.kind == "ranking":
                # The mean of the users' values would not be gauc: it has none of them.
                if spec.name == "auc_user":
                    users[spec.name] = auc
                weights = truth.double() if spec.name == "gauc" else torch.ones_like(auc)
                total[spec.name] = weighted_mean(auc, weights)
    values = {key: total[key] for spec in specs for key in dict.fromkeys(spec.key(k) for k in lengths)}
    kept = {key: users[key] for key in values if key in users}
    groups = by_popularity(plan, lists, hits, lengths).to_json(orient="records")
    drawn = "" if sampled_negatives is None else str(sampled_negatives)
    facts = {
        "split": plan.split,
        "mask": plan.mask,
        "cold": plan.cold,
        "candidates": plan.candidates,
        "dataset": data.name,
        "by_popularity": groups,
        "sampled_negatives": drawn,
    }
    columns = {"truth": truth, "train": plan.activity[plan.users], **kept}
    seconds = time.perf_counter() - start
    return Evaluation(
        metrics=values,
        protocol=plan,
        ks=lengths,
        per_user=user_table(data, plan.users, columns, facts),
        lists=lists,
        scores=scores,
        hits=hits,
        tie_rate=tie_rate,
        seconds=seconds,
        sampled_negatives=sampled_negatives,
    )


def _cutoffs(ks: int | Sequence[int]) -> tuple[int, ...]:
    given = [ks] if isinstance(ks, int) else list(ks)
    lengths = sorted({int(k) for k in given})
    if not lengths or lengths[0] < 1:
        raise InputError(f"ks is {given}; give at least one length, each at least 1.")
    return tuple(lengths)


def _numbered(lists: Tensor, plan: Protocol) -> Tensor:
    """Item numbers, or positions among the candidates where these were chosen."""
    if plan.items is None:
        return lists
    position = torch.searchsorted(plan.items, lists.clamp(min=0).contiguous())
    return torch.where(lists < 0, -1, position)


def _catalogue(
    data: RecDataset,
    plan: Protocol,
    features: str | np.ndarray | Tensor | None,
    tail: float,
    specs: Sequence[MetricSpec],
) -> tuple[Tensor, int, Tensor, Tensor | None]:
    """Popularity, number of users, tail and features of the items that are ranked."""
    popularity = plan.popularity
    rare = beyond_accuracy.tail_items(popularity, tail)
    table: Tensor | None = None
    if features is not None and any(spec.name == "diversity" for spec in specs):
        item_type = data.target[2]
        if isinstance(features, str):
            have = ", ".join(sorted(name for node, name in data.features if node == item_type)) or "none"
            if (item_type, features) not in data.features:
                raise InputError(f"dataset {data.name!r} has no item features {features!r}; it has {have}.")
            features = np.array(data.features[item_type, features])
        table = torch.as_tensor(features)
        if table.dim() != 2 or len(table) != data.num_items:
            raise InputError(
                f"features have shape {tuple(table.shape)}; expected a row for each of the {data.num_items} items."
            )
    if plan.items is not None:
        popularity, rare = popularity[plan.items], rare[plan.items]
        table = None if table is None else table[plan.items]
    return popularity, data.num_users, rare, table


def _ranking_auc(
    model: GraphRecommender | Encoded | Scores, plan: Protocol, block: int | None, memory: int | None
) -> Tensor:
    """Each user's AUC over all candidates, NaN where all of them are relevant."""
    with evaluating(model):
        scorer = Scorer(model, plan.items)
        users = plan.users.to(scorer.device)
        exclude = None if plan.exclude is None else plan.exclude.to(scorer.device)
        truth = plan.truth.to(scorer.device)
        parts = []
        for part in score_blocks(scorer, users, exclude, block=block, memory=memory):
            rows, items = truth.gather(part.users)
            if scorer.candidates is not None:
                items = torch.searchsorted(scorer.candidates, items)
            candidates = (part.scores > -torch.inf).sum(1)
            sums, found = rank_sums(part.scores, rows, items)
            parts.append(auc_of_ranks(sums, found, candidates).cpu())
    return torch.cat(parts)
