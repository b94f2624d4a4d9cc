"""KGCL's settings, as its authors published results with them."""

from __future__ import annotations

from collections.abc import Mapping

from graphrec.models.base import Preset

PRESETS: Mapping[str, Preset] = {
    "published": Preset(
        model={"bare_items": "padding"},
        note="The first release's padding entity, which every item without visible triples attends to.",
    ),
    "yelp2018": Preset(
        model={"bare_items": "padding", "interaction_drop": 0.1},
        fit={"patience": 5, "select_on": "test"},
        note="As published on yelp2018 with KGCL's KG: .0756 and .0493 (paper). The authors test from epoch 25 on.",
    ),
    "amazon-book": Preset(
        model={"bare_items": "padding", "interaction_drop": 0.05},
        fit={"patience": 5, "select_on": "test"},
        note="As published on amazon-book: .1496 and .0793 (paper and log). The authors test from epoch 15 on.",
    ),
    "mind": Preset(
        model={
            "bare_items": "padding",
            "max_tails": 6,
            "edge_dropout": 0.4,
            "interaction_drop": 0.4,
            "mix": 0.6,
            "contrast_weight": 0.06,
            "lr": 5e-4,
            "reg": 1e-3,
        },
        fit={"patience": 3, "select_on": "test"},
        note="As published on KGCL's MIND: .1073 and .0551; the authors' rate falls to a fifth at epochs 5 and 10.",
    ),
}
