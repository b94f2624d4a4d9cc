"""KCAN's settings as its authors' code has them, and one chosen here."""

from __future__ import annotations

from collections.abc import Mapping

from graphrec.models.base import Preset

PRESETS: Mapping[str, Preset] = {
    "movie": Preset(fit={"epochs": 200}, note="The authors' setting for MovieLens-1M; the defaults."),
    "last-fm": Preset(
        model={"lr": 0.025, "reg": 1e-3, "dropout": 0.05, "batch_size": 10240, "triple_batch_size": 10240},
        fit={"epochs": 200},
        note="The authors' setting for KGAT's last-fm.",
    ),
    "yelp2018": Preset(
        model={"lr": 0.1, "reg": 1e-3, "dropout": 0.05, "batch_size": 10240},
        fit={"epochs": 200},
        note="The authors' setting for KGAT's yelp2018.",
    ),
    "music": Preset(
        model={"num_neighbours": 8, "reg": 1e-3, "batch_size": 512},
        fit={"epochs": 40, "patience": 10},
        note="For clicks on Last.FM (music), chosen on its validation part, one seed.",
    ),
}
