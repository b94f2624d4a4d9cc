"""The sections of ``forgetting.html`` that show the evidence: the four rows, curves, histograms, cost."""

from __future__ import annotations

import math
from html import escape

from graphrec.reports import svg
from graphrec.reports.markup import figure, scroll, section
from graphrec.reports.page import duration
from graphrec.unlearning.evidence.measures import BEFORE, RETRAINED, UNLEARNED
from graphrec.unlearning.evidence.membership import ATTACKS, ONE_SIDED, STRONG, Attack
from graphrec.unlearning.evidence.report import Report
from graphrec.unlearning.evidence.tables import (
    SHOWN,
    as_share,
    histogram,
    interval_cell,
    pairs_table,
    plain_number,
    rows_table,
    words,
)


def plain_words(report: Report) -> list[str]:
    """What the measures come to, in sentences for somebody who is no statistician."""
    said = []
    k = max(report.about["ks"])
    before, after, target = (report.find("scores", "rank_f", row) for row in (BEFORE, UNLEARNED, RETRAINED))
    if before is not None and after is not None:
        text = (
            "In the ranking of what their people had not chosen otherwise (0 % first, 100 % last), the forgotten items "
            f"stood at <b>{as_share(before.value)}</b> on average before and at <b>{as_share(after.value)}</b> after"
        )
        said.append(text + (f"; training anew puts them at {as_share(target.value)}." if target is not None else "."))
    kept, same = (report.find("utility", f"recall@{k}", row) for row in (UNLEARNED, RETRAINED))
    if kept is not None:
        text = f"For those who stay, Recall@{k} is <b>{kept.value:.4f}</b>"
        if same is not None:
            spread = f" ± {same.sd:.4f} over {same.models} seeds" if not math.isnan(same.sd) else ""
            text += f", {same.value:.4f}{spread} when trained anew"
        said.append(text + ".")
    alike, ceiling = (report.find("lists", f"overlap@{k}", row) for row in (UNLEARNED, RETRAINED))
    if alike is not None:
        text = f"Their lists of {k} share <b>{as_share(alike.value)}</b> of their items with those of a retrained model"
        text += f"; two retrained models share {as_share(ceiling.value)}." if ceiling is not None else "."
        said.append(text)
    return said


def _best_attack(report: Report) -> Attack | None:
    tried = [one for one in report.attacks if one.name in ONE_SIDED and not math.isnan(one.auc_before)]
    return max(tried, key=lambda one: one.auc_before, default=None)


def four_rows(report: Report | None) -> str:
    """The four rows, each with what matters most."""
    if report is None:
        return ""
    k = max(report.about["ks"])
    best = _best_attack(report)
    lines = {
        f"Recall@{k} of those who stay": ("utility", f"recall@{k}", "all"),
        f"NDCG@{k} of those who stay": ("utility", f"ndcg@{k}", "all"),
        "mean score of F": ("scores", "score_f", "all"),
        "mean score of popularity-matched items never met": ("scores", "score_n", "all"),
        "Δ_N, difference of their mean probabilities": ("scores", "delta_n", "all"),
        "place of F among unseen items (0 first, 1 last)": ("scores", "rank_f", "all"),
        "F told from matched items (AUC)": ("scores", "f_auc", "all"),
        "probability of F before over now (MI-BF)": ("scores", "mi_bf", "all"),
        "of matched items over F (MI-NG)": ("scores", "mi_ng", "all"),
        f"overlap@{k} with a retrained model": ("lists", f"overlap@{k}", "all"),
        "aligned distance to a retrained model": ("distance", "representations/aligned", "all"),
    }
    if best is not None:
        lines[f"membership attack ({words(best.name)}), AUC"] = ("membership", f"{best.name}/auc", "all")
        lines["its true positives at 1 % false ones"] = ("membership", f"{best.name}/tpr@1%", "all")
    caption = (
        "Below each value its gap to the mean of the retrained models, in their standard deviations over seeds (sd); "
        "the aim is a gap of noise, not the smallest or largest value"
    )
    stated = "".join(
        f"<li><b>{escape(row)}</b>: {escape(status)}</li>"
        for row, status in report.rows.items()
        if not status.startswith("measured")
    )
    missing = f'<ul class="soft">{stated}</ul>' if stated else ""
    return section("The four rows", f'<div class="card">{rows_table(report, lines, caption)}{missing}</div>')


def forgotten_scores(report: Report | None) -> str:
    """Histograms of the forgotten pairs' scores and places, and of their controls."""
    if report is None or not report.histograms:
        return ""
    figures = histogram(
        report, "score", "score", "<b>Scores of the forgotten interactions</b>, asked of the model without any mask."
    ) + histogram(
        report,
        "rank",
        "share of unseen items that score higher",
        "<b>Their place</b> among the items their users have not seen: 0 is the first place, and an even spread over "
        "the axis is chance.",
    )
    pairs = report.about["scored_pairs"]
    more = f"{pairs:,} forgotten training interactions"
    if report.about["unscorable_pairs"]:
        more += (
            f"; {report.about['unscorable_pairs']:,} more have no row in some model any more and cannot be asked for"
        )
    return section("Scores of what was forgotten", f'<p class="soft">{more}.</p><div class="row">{figures}</div>')


_VERDICTS = {
    "within": "not told apart",
    "beyond": "told apart",
    "undecided": "undecided",
    "too weak": "attack too weak",
    "not run": "not compared",
}


def membership_attacks(report: Report | None) -> str:
    """The ROC curve of the strongest attack, and every attack with its leak."""
    if report is None:
        return ""
    if not report.attacks:
        told = "No membership attack was run; see what is not shown."
        return section("Can an outsider tell?", f'<div class="card"><p>{told}</p></div>')
    figures = ""
    best = _best_attack(report)
    if best is not None:
        lines = [svg.Series(row, *best.roc[row]) for row in SHOWN if row in best.roc]
        lines.append(svg.Series("chance", [0.0, 1.0], [0.0, 1.0]))
        chart = svg.line_chart(
            f"ROC curve of the attack {best.name}",
            lines,
            "held-out interactions called members",
            "forgotten ones called so",
        )
        figures = figure(
            chart,
            f"<b>Membership attack</b> “{escape(words(best.name))}”: {escape(ATTACKS[best.name])}. On the diagonal it "
            "guesses; the distance between unlearned and retrained is the leak.",
        )
    rows = []
    for one in report.attacks:
        cells = "".join(
            interval_cell(report.find("membership", f"{one.name}/auc", row)) for row in (BEFORE, UNLEARNED, RETRAINED)
        )
        rate = report.find("membership", f"{one.name}/tpr@1%", UNLEARNED)
        leak = "–" if math.isnan(one.leak) else f"{one.leak:+.3f}<small>{one.low:+.3f} to {one.high:+.3f}</small>"
        weak = "unmet" if one.verdict in ("beyond", "too weak") else "met" if one.verdict == "within" else ""
        rows.append(
            f'<tr><th scope="row" title="{escape(ATTACKS[one.name])}">{escape(words(one.name))}</th>{cells}'
            f'{interval_cell(rate)}<td class="number">{leak}</td><td class="{weak}">{_VERDICTS[one.verdict]}</td></tr>'
        )
    names = ("before", "unlearned", "retrained", "TPR at 1 % FPR, unlearned", "leak")
    head = "".join(f'<th scope="col" class="number">{escape(name)}</th>' for name in names)
    table = (
        f'<table class="results"><caption>AUC with 95 % intervals; leak: unlearned minus retrained. Controls are '
        f"{report.about['control_pairs']:,} true interactions that were never trained on, "
        f"{report.about['control_pairs_of_same_users']:,} of them of the same users. One-sided attacks must reach "
        f'{STRONG:g} on the model before, or they show nothing.</caption><thead><tr><th scope="col">Attack</th>{head}'
        f'<th scope="col">Finding</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )
    about = "".join(f"<li><b>{escape(words(one.name))}</b>: {escape(ATTACKS[one.name])}</li>" for one in report.attacks)
    figures += histogram(
        report, "held_out", "score", "<b>Controls</b>: scores of the true interactions that no model was trained on."
    )
    return section(
        "Can an outsider tell?",
        f'<p class="said">{escape(report.finding)}</p>'
        f'<div class="card">{scroll("Membership attacks", table)}<details><summary>What each attack looks at</summary>'
        f'<ul>{about}</ul></details></div><div class="row">{figures}</div>',
    )


def those_who_stay(report: Report | None) -> str:
    """Lists and utility of those who stay, by how near they are to the request."""
    if report is None:
        return ""
    k = max(report.about["ks"])
    names = {f"overlap@{k}": "overlap", f"jaccard@{k}": "Jaccard", f"rbo@{k}": "RBO"}
    series: dict[str, list[float]] = {}
    for row, title in (
        (UNLEARNED, "unlearned to retrained"),
        (BEFORE, "before to retrained"),
        (RETRAINED, "retrained to retrained"),
    ):
        values = [report.value("lists", name, row) for name in names]
        if not any(math.isnan(value) for value in values):
            series[title] = values
    chart = svg.bar_chart("Likeness of lists", list(names.values()), series, f"lists of {k}", "likeness")
    ceiling = (
        "the bar of two retrained models is the ceiling: they differ in nothing but the seed"
        if "retrained to retrained" in series
        else "one retrained model gives no ceiling"
    )
    shown = figure(
        chart if series else "",
        f"<b>Lists of those who stay</b> beside those of a retrained model; {ceiling}. RBO: {report.about['rbo']}.",
    )
    lines = {}
    for group in ("own", "touched", "near", "far"):
        count = report.about["users_by_group"].get(group, 0)
        if count:
            lines[f"overlap@{k}, {group} ({count:,} users)"] = ("lists", f"overlap@{k}", group)
            lines[f"Recall@{k}, {group}"] = ("utility", f"recall@{k}", group)
            lines[f"NDCG@{k}, {group}"] = ("utility", f"ndcg@{k}", group)
    lines[f"overlap@{k} with the retrained model of the same seed"] = ("lists", f"overlap@{k}", "same seed")
    table = rows_table(
        report, lines,
        "By nearness. own: lost an interaction of theirs; touched: lost one or shares an item with one; near: within "
        "three steps; far: the rest, who should not change beyond the noise of seeds",
    )  # fmt: skip
    kept = {row: [report.value("utility", f"{name}@{k}", row) for name in ("recall", "ndcg", "mrr")] for row in SHOWN}
    measured: dict[str, list[float]] = {
        row: values for row, values in kept.items() if not any(math.isnan(value) for value in values)
    }
    useful = svg.bar_chart("Utility for those who stay", ["Recall", "NDCG", "MRR"], measured, f"lists of {k}", "value")
    how = f"<b>How well they are served</b>: means over {report.about['users_with_truth']:,} users with test items."
    charts = shown + (figure(useful, how) if measured else "")
    return section("Those who stay", f'<div class="row">{charts}</div><div class="card">{table}</div>')


def fairness(report: Report | None) -> str:
    """Active users beside the others."""
    if report is None:
        return ""
    k = max(report.about["ks"])
    lines = {
        f"NDCG@{k}, most active 5 %": ("fairness", f"ndcg@{k}", "active"),
        f"NDCG@{k}, the others": ("fairness", f"ndcg@{k}", "inactive"),
        "gap": ("fairness", f"ndcg@{k}/gap", "all"),
    }
    table = rows_table(report, lines, "Utility of the most active users beside that of the others (CURE4Rec)")
    return section("Who pays for it", f'<div class="card">{table}</div>' if table else "")


def distances(report: Report | None) -> str:
    """Distances of scores, distributions and vectors to the retrained models."""
    if report is None:
        return ""
    lines = {
        "root mean square difference of scores": ("distance", "rmse", "all"),
        "the same, pairs that the request touches": ("distance", "rmse", "touched"),
        "rank correlation of scores": ("distance", "spearman", "all"),
        "Jensen-Shannon divergence of softmax (≤ .693)": ("distance", "jensen_shannon", "all"),
        "Jeffreys divergence": ("distance", "jeffreys", "all"),
        "L2 distance of softmax (activation)": ("distance", "activation", "all"),
        "representations, aligned by a rotation": ("distance", "representations/aligned", "all"),
        "representations, not aligned (means little)": ("distance", "representations/plain", "all"),
        "embedding tables, aligned": ("distance", "parameters/aligned", "all"),
        "relative residual (0 retraining, 1 doing nothing)": ("distance", "relative_residual", "touched"),
    }
    caption = "Mean over the retrained models; the column retrained is between two of them, the noise of the seed"
    table = rows_table(report, lines, caption)
    return section("How far from retraining", f'<div class="card">{table}</div>' if table else "")


def recovered(report: Report | None) -> str:
    """Recovery from injected edges."""
    if report is None or not report.recovery:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(one.metric)}</th><td class="number">{svg.number(one.value)}</td>'
        f'<td class="number">{svg.number(one.harm)}</td><td class="number">{svg.number(one.needed)}</td>'
        f"<td>{escape(one.verdict)}</td></tr>"
        for one in report.recovery
    )
    table = (
        "<table><caption>Share of the harm of injected interactions that forgetting undid; refused where the harm is "
        'below three standard deviations of the clean trainings</caption><thead><tr><th scope="col">Metric</th>'
        '<th scope="col" class="number">recovered</th><th scope="col" class="number">harm</th>'
        f'<th scope="col" class="number">needed</th><th scope="col"></th></tr></thead><tbody>{rows}</tbody></table>'
    )
    return section("Recovery from injected interactions", f'<div class="card">{table}</div>')


def cost_and_bounds(report: Report | None) -> str:
    """Seconds, memory, speed-ups, and the bounds that were stated beforehand."""
    if report is None:
        return ""
    cost, given = report.efficiency, report.efficiency.seconds
    rows: dict[str, str] = {}
    for title, value in (
        ("the request", given.unlearn), ("training anew", given.retrain), ("preparation beforehand", given.prepare),
        ("warm-started training to the same utility", given.warm_start), ("the first training", given.train),
    ):  # fmt: skip
        if value is not None:
            rows[title] = duration(float(value))
    for title, size in (
        ("peak memory of the request", given.unlearn_memory), ("peak memory of training anew", given.retrain_memory),
        ("kept for the method beside the model", given.storage),
    ):  # fmt: skip
        if size is not None:
            rows[title] = f"{size / 2**20:,.1f} MiB"
    ratios: dict[str, str] = {}
    for title, ratio in (
        ("training anew over the request (marginal)", cost.marginal),
        *(
            (f"with the preparation, {n} request{'s' if n != '1' else ''}", value)
            for n, value in cost.amortised.items()
        ),
        ("warm start over the request", cost.against_warm_start),
    ):
        if not math.isnan(ratio):
            ratios[title] = f"{ratio:.2f} ×"
    if not math.isnan(cost.break_even) and given.prepare:
        ratios["requests until the preparation has paid"] = (
            "never" if math.isinf(cost.break_even) else f"{cost.break_even:.1f}"
        )
    cards = "".join(
        f'<div class="card">{table}</div>'
        for table in (pairs_table("Time and memory", rows), pairs_table("How many times as fast", ratios))
        if table
    )
    checks = "".join(
        f'<tr><th scope="row">{escape(one.name)}</th><td class="number">{plain_number(one.value)}</td>'
        f'<td class="number">{one.bound:g}</td><td class="{"" if one.met is None else "met" if one.met else "unmet"}">'
        f"{'not run' if one.met is None else 'met' if one.met else 'not met'}</td></tr>"
        for one in report.checks
    )
    table = (
        '<div class="card"><table><caption>Bounds stated beforehand</caption><thead><tr><th scope="col">Asked</th>'
        '<th scope="col" class="number">found</th><th scope="col" class="number">bound</th><th scope="col"></th></tr>'
        f"</thead><tbody>{checks}</tbody></table></div>"
        if checks
        else ""
    )
    return section("Cost, and bounds", f'<div class="row">{cards}</div>{table}' if cards or table else "")
