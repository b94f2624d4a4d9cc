"""The models, one file each. A new one is its file, its test and one line here."""

from __future__ import annotations

from graphrec.errors import unknown
from graphrec.models.base import GraphInputs, GraphRecommender
from graphrec.models.bpr_mf import BPRMF
from graphrec.models.bspm import BSPM
from graphrec.models.cfkg import CFKG
from graphrec.models.cke import CKE
from graphrec.models.diffkg import DiffKG
from graphrec.models.direct_au import DirectAU
from graphrec.models.ease import EASE
from graphrec.models.gfcf import GFCF
from graphrec.models.item_knn import ItemKNN
from graphrec.models.kcan import KCAN
from graphrec.models.kgat import KGAT
from graphrec.models.kgcl import KGCL
from graphrec.models.kgcn import KGCN
from graphrec.models.kgin import KGIN
from graphrec.models.kgnn_ls import KGNNLS
from graphrec.models.light_gcl import LightGCL
from graphrec.models.lightgcn import LightGCN
from graphrec.models.ncl import NCL
from graphrec.models.ngcf import NGCF
from graphrec.models.popularity import Popularity
from graphrec.models.ripplenet import RippleNet
from graphrec.models.rp3beta import RP3beta
from graphrec.models.sgl import SGL
from graphrec.models.sharded import Sharded
from graphrec.models.sim_gcl import SimGCL
from graphrec.models.user_knn import UserKNN
from graphrec.models.x_sim_gcl import XSimGCL

MODELS: dict[str, type[GraphRecommender]] = {
    model.__name__: model
    for model in (
        BPRMF,
        BSPM,
        CFKG,
        CKE,
        DiffKG,
        DirectAU,
        EASE,
        GFCF,
        ItemKNN,
        KCAN,
        KGAT,
        KGCL,
        KGCN,
        KGIN,
        KGNNLS,
        LightGCL,
        LightGCN,
        NCL,
        NGCF,
        Popularity,
        RP3beta,
        RippleNet,
        SGL,
        Sharded,
        SimGCL,
        UserKNN,
        XSimGCL,
    )
}


def resolve(name: str) -> type[GraphRecommender]:
    """The model class of a name; case and hyphens do not matter.

    Raises:
        InputError: no model has that name; the nearest one is named.
    """
    folded = {known.casefold(): model for known, model in MODELS.items()}
    key = name.casefold().replace("-", "").replace("_", "")
    if key not in folded:
        raise unknown("model", name, MODELS)
    return folded[key]


__all__ = [
    "BPRMF",
    "BSPM",
    "CFKG",
    "CKE",
    "EASE",
    "GFCF",
    "KCAN",
    "KGAT",
    "KGCL",
    "KGCN",
    "KGIN",
    "KGNNLS",
    "MODELS",
    "NCL",
    "NGCF",
    "SGL",
    "DiffKG",
    "DirectAU",
    "GraphInputs",
    "GraphRecommender",
    "ItemKNN",
    "LightGCL",
    "LightGCN",
    "Popularity",
    "RP3beta",
    "RippleNet",
    "SimGCL",
    "UserKNN",
    "XSimGCL",
    "resolve",
]
