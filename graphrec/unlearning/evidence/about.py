"""What the evidence is about, in counts and names, and what limits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphrec.datasets.dataset import RecDataset
from graphrec.unlearning.evidence.measures import BEFORE, RETRAINED, Row
from graphrec.unlearning.evidence.pairs import PairSet, Populations
from graphrec.unlearning.evidence.utility import Stayed
from graphrec.unlearning.evidence.views import View
from graphrec.unlearning.resolve import Resolved


def limits(
    data: RecDataset, chosen: Populations, who: Stayed, views: Mapping[Row, Sequence[View]], split: str
) -> list[str]:
    """What limits the evidence from the start, in sentences."""
    notes = []
    if chosen.asked == 0:
        notes.append("The request takes no training interaction away: there are no pairs to rank or to attack.")
    if chosen.unscorable:
        notes.append(
            f"{chosen.unscorable:,} of {chosen.asked:,} forgotten pairs belong to users or items that some model has "
            "no row for any more; nothing can be asked about them, and they are in no number below."
        )
    if len(chosen.forgotten) and not len(chosen.held_out):
        notes.append("No held-out interactions: the membership attacks have no control and were not run.")
    elif chosen.same_users < len(chosen.held_out):
        notes.append(
            f"{len(chosen.held_out) - chosen.same_users:,} of {len(chosen.held_out):,} control pairs are of other "
            "users of about the same activity: the forgotten ones have too few held-out pairs of their own."
        )
    if len(chosen.held_out) and len(chosen.held_out) < 100:
        notes.append(
            f"With {len(chosen.held_out)} control pairs a false positive rate of 1 % means none at all; the true "
            "positive rate there is coarse."
        )
    if who.emptied:
        notes.append(
            f"{who.emptied:,} users have no training interaction left; they are not among those who stay. Their scores "
            "come from rows that no training touches, so that attacks on their pairs see noise in the retrained row."
        )
    nobody = [name for name in ("near", "far") if not bool(who.groups[name].any())]
    if nobody:
        notes.append(f"No user who stays is {' or '.join(nobody)}: the data is so dense that all are closer by.")
    count = len(views.get(RETRAINED, ()))
    if count == 0:
        notes.append("Nothing was retrained: no gap, no ceiling and no leak can be given.")
    elif count < 3:
        notes.append(f"{count} retrained model{'s' if count > 1 else ''}: standard deviations over seeds mean little.")
    if split not in data.parts:
        notes.append(f"The dataset has no part {split!r}: the utility of those who stay was not measured.")
    return notes


def facts_about(
    data: RecDataset,
    left: RecDataset,
    resolved: Resolved,
    views: Mapping[Row, Sequence[View]],
    chosen: Populations,
    who: Stayed,
    gone: PairSet,
    ks: tuple[int, ...],
    split: str,
    seed: int,
    shadow: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Counts and names that say what was measured on what."""
    return {
        "dataset": data.name,
        "fingerprint": data.fingerprint,
        "fingerprint_after": left.fingerprint,
        "model": type(views[BEFORE][0].model).__name__,
        "seed_before": views[BEFORE][0].seed,
        "seeds_retrained": [one.seed for one in views.get(RETRAINED, ())],
        "retrained_models": len(views.get(RETRAINED, ())),
        "forgotten_edges": len(resolved),
        "forgotten_nodes": {f"{name}s": len(codes) for name, codes in resolved.nodes.items()},
        "forgotten_pairs": len(gone),
        "forgotten_users": len(gone.users.unique()),
        "forgotten_items": len(gone.items.unique()),
        "training_edges": len(data.interactions("train")),
        "scored_pairs": len(chosen.forgotten),
        "unscorable_pairs": chosen.unscorable,
        "control_pairs": len(chosen.held_out),
        "control_pairs_of_same_users": chosen.same_users,
        "users_who_stay": len(who.users),
        "users_with_truth": int(who.has_truth.sum()),
        "users_emptied": who.emptied,
        "users_by_group": {name: int(member.sum()) for name, member in who.groups.items()},
        "rbo": "extrapolated, p = 0.9",
        "split": split,
        "ks": list(ks),
        "seed": seed,
        "shadow": None if shadow is None else dict(shadow),
    }
