"""An example in a run's report: why its model recommends an item to a user."""

from __future__ import annotations

from typing import Any

from graphrec.datasets.dataset import RecDataset
from graphrec.influence.explain import explain
from graphrec.influence.nodes import code_of
from graphrec.reports import add_explanation
from graphrec.runs import Run
from graphrec.serving import Recommender


def add_example(run: Run, data: RecDataset, *, paths: int = 3, k: int = 20) -> Run:
    """Explain one recommendation in a run's report, where the model reads a knowledge graph; else nothing is done.

    By paths alone; the interactions that it rests on are named by ``graphrec explain RUN --report``.

    The user is the one with the best list of the test part (the lowest number on a tie), or simply the first where
    there is none; the item is the first in the list that the test part confirms, or simply the first.

    Args:
        run: of a trained model.
        data: the dataset it was trained on.
        paths: how many paths are shown.
        k: length of the list.

    Returns:
        The run, whose manifest names ``explanations.json`` and the report; see
        :func:`graphrec.reports.add_explanation`.
    """
    if not run.model_class.needs.kg:
        return run
    user, recommender = _user(run, data), Recommender.from_pretrained(run)
    listed = recommender.recommend([user], min(k, data.num_items))["item"].to_list()
    if not listed:  # the user knows all items
        return run
    found = explain(recommender, data, user=user, item=_item(listed, user, data), k=paths, controls=2, interactions=0)
    return add_explanation(run, found, data)


def _user(run: Run, data: RecDataset) -> Any:
    """The raw id of the user with the best list."""
    table = run.per_user()
    if table is None or not len(table):
        return data.vocabularies[data.target[0]].raw[data.interactions("train").source.min()]
    frame = table.to_pandas()
    measured = frame.columns.drop(["user", "truth", "train"])[0]
    return frame["user"].iloc[frame[measured].fillna(-1).argmax()]


def _item(listed: list[Any], user: Any, data: RecDataset) -> Any:
    """The first item of a list that the test part confirms; the first of all where none is."""
    if "test" not in data.parts:
        return listed[0]
    user_type, _, item_type = data.target
    pairs, code = data.pairs("test"), code_of(data, user_type, user)
    own = pairs.items[pairs.indptr[code] : pairs.indptr[code + 1]]
    confirmed = set(data.vocabularies[item_type].raw[own].tolist())
    return next((item for item in listed if item in confirmed), listed[0])
