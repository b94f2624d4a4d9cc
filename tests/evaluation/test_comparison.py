from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from graphrec.errors import InputError
from graphrec.evaluation import Evaluation, compare, evaluate, intervals
from graphrec.evaluation.comparison import bootstrap, holm
from tests.evaluation.test_evaluator import scorer, world


def evaluations(**options: object) -> dict[str, Evaluation]:
    data, scores, parts = world()
    better = scores.copy()
    for user, part in enumerate(parts):
        better[user, part["test"]] += 4
    other = np.random.default_rng(7).normal(size=scores.shape).astype(np.float32)
    named = {"plain": scores, "better": better, "other": other}
    return {
        name: evaluate(scorer(table), data, ks=(5, 10), metrics=["recall", "ndcg", "arp", "gauc"], **options)
        for name, table in named.items()
    }


def test_against_scipy() -> None:
    found = evaluations()
    comparison = compare(found, "plain")
    frame = comparison.frame
    assert list(frame["model"].unique()) == ["better", "other"]
    # Popularity is neither good nor bad, and gauc is no mean over users.
    assert set(frame["metric"]) == {"recall@5", "recall@10", "ndcg@5", "ndcg@10"}
    base = found["plain"].per_user.to_pandas()
    for row in frame.itertuples():
        ours = found[row.model].per_user.to_pandas()[row.metric]
        difference = ours - base[row.metric]
        assert row.difference == pytest.approx(difference.mean()) and row.low <= row.difference <= row.high
        assert row.t_p == pytest.approx(stats.ttest_rel(ours, base[row.metric]).pvalue)
        assert row.wilcoxon_p == pytest.approx(stats.wilcoxon(difference).pvalue)
        assert (row.wins, row.losses) == ((difference > 0).sum(), (difference < 0).sum())
        assert row.wins + row.losses + row.ties == row.users == 23
        assert row.t_holm >= row.t_p and row.wilcoxon_holm >= row.wilcoxon_p
    assert (frame[frame.model == "better"].low > 0).all()
    written = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert len(written["rows"]) == 8 and len(written["by_activity"]) == 12 and len(written["by_popularity"]) == 12
    assert "recall@10" in str(comparison)


def test_tables_and_frames_do_as_well() -> None:
    found = evaluations()
    whole = compare(found, "plain", metrics=["recall@5"])
    tables = compare([found["plain"].per_user, found["better"].per_user.to_pandas().sample(frac=1, random_state=0)])
    row = tables.frame.set_index("metric").loc["recall@5"]
    assert row["difference"] == pytest.approx(whole.frame.loc[0, "difference"]) and row["model"] == "model 2"
    assert tables.popularity is None
    both = compare([found["plain"].per_user, found["better"].per_user])
    assert both.popularity is not None
    assert both.popularity["recall@5"].tolist() == pytest.approx(
        [*found["plain"].by_popularity()["recall@5"], *found["better"].by_popularity()["recall@5"]], nan_ok=True
    )


def test_equal_models_differ_in_nothing() -> None:
    found = evaluations()
    frame = compare([found["plain"], found["plain"]], metrics="recall@5").frame
    row = frame.iloc[0]
    assert (row.t_p, row.wilcoxon_p, row.difference, row.wins, row.ties) == (1, 1, 0, 0, 23)


def test_the_same_difference_for_everybody() -> None:
    table = found = pd.DataFrame({"user": range(8), "truth": 1, "train": 2, "recall@5": 0.25})
    row = compare([table, found.assign(**{"recall@5": 0.5})]).frame.iloc[0]
    assert row.t_p == 0 and row.wins == 8 and (row.low, row.high) == (0.25, 0.25)


def test_unlike_evaluations_are_refused() -> None:
    found, masked = evaluations(), evaluations(mask="train+valid")
    table = found["plain"].per_user.to_pandas()
    for runs, message in (
        ([found["plain"], masked["better"]], "mask is 'train\\+valid' in one and 'train' in the other"),
        ([table, table.iloc[1:]], "22 and 23 users, 22 of them the same"),
        ([table, table.assign(user=table["user"] + 1)], "of them the same"),
        ([table, table.assign(truth=table["truth"] + 1)], "splits differ"),
        ([table], "at least two"),
        ([table, table.drop(columns="truth")], "no column 'truth'"),
        ([table, 3], "found a int"),
        (found["plain"], "a list of runs"),
    ):
        with pytest.raises(InputError, match=message):
            compare(runs)
    with pytest.raises(InputError, match="Did you mean 'plain'"):
        compare(found, "plian")
    with pytest.raises(InputError, match="baseline is 3"):
        compare(found, 3)
    with pytest.raises(InputError, match="unknown metric 'recall@7'"):
        compare(found, metrics=["recall@7"])
    bare = [pa.table({"user": [1], "truth": [1], "train": [1]})] * 2
    with pytest.raises(InputError, match="no metric in common"):
        compare(bare)


def test_holm() -> None:
    assert holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.6, math.nan, 0.7])) == pytest.approx([1.0, math.nan, 1.0], nan_ok=True)
    # False rejections among true null hypotheses stay at the level for the whole family.
    p = np.random.default_rng(0).uniform(size=(2000, 10))
    wrong = np.mean([(holm(row) < 0.05).any() for row in p])
    assert wrong == pytest.approx(0.05, abs=0.02)


def test_bootstrap_interval_is_about_the_normal_one() -> None:
    values = np.random.default_rng(0).normal((0, 3), size=(400, 2))
    values[:100, 1] = np.nan
    low, high = bootstrap(values, resamples=4000, seed=1)
    for column, size in ((0, 400), (1, 300)):
        own = values[-size:, column]
        half = 1.96 * own.std() / math.sqrt(size)
        assert low[column] == pytest.approx(own.mean() - half, abs=0.02)
        assert high[column] == pytest.approx(own.mean() + half, abs=0.02)
    again = bootstrap(values, resamples=4000, seed=1)
    assert np.array_equal(again[0], low) and np.array_equal(again[1], high)
    assert not np.array_equal(bootstrap(values, resamples=4000, seed=2)[0], low)


@pytest.mark.parametrize("options", [{"level": 2.0}, {"level": 0.0}, {"resamples": 0}])
def test_bootstrap_refuses_what_has_no_interval(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="level must lie between 0 and 1, and resamples be at least 1"):
        bootstrap(np.arange(5.0), **options)


def test_bootstrap_of_equal_values_and_of_none() -> None:
    low, high = bootstrap(np.full(10, 0.5))
    assert low.tolist() == high.tolist() == [0.5]
    assert np.isnan(bootstrap(np.array([]))).all()
    low, high = bootstrap(np.array([[1.0, np.nan], [1.0, np.nan]]))
    assert low[0] == high[0] == 1 and np.isnan([low[1], high[1]]).all()


def test_intervals_of_one_run() -> None:
    found = evaluations()["plain"]
    for key, (low, high) in intervals(found).items():
        assert low <= found[key] <= high
