"""Makes ``registry.json`` from the datasets themselves: ``python -m graphrec.datasets.registry_make ROOT``.

Each folder of ROOT that has a ``SOURCE.json`` (origin, terms, files with their sha256) is loaded; sizes and digests are
taken from what was loaded, so that the registry says what graphrec reads. What no file says (what to cite, who offers a
download) stands here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from graphrec.datasets import adapters
from graphrec.datasets.builder import Builder
from graphrec.datasets.dataset import RecDataset
from graphrec.datasets.tables import PARTS, edge_type_name
from graphrec.errors import InputError

MOVIELENS = "Harper, Konstan: The MovieLens Datasets: History and Context. ACM TiiS 5(4), 2015."
HETREC = "Cantador, Brusilovsky, Kuflik: HetRec 2011, RecSys 2011; Last.fm, http://www.lastfm.com."
AMAZON = "He, McAuley: Ups and Downs, WWW 2016; McAuley et al.: Image-Based Recommendations, SIGIR 2015."
AMAZON_2018 = "Ni, Li, McAuley: Justifying Recommendations using Distantly-Labeled Reviews, EMNLP 2019."
YELP = "Yelp Open Dataset, https://www.yelp.com/dataset."

CITATIONS: Mapping[str, str] = MappingProxyType(
    {
        "amazon-baby": f"{AMAZON} Split: Wei et al.: MMSSL, WWW 2023; Jiang et al.: DiffMM, MM 2024.",
        "amazon-beauty-kg": f"{AMAZON} Graph: Xian et al.: PGPR, SIGIR 2019; CAFE, CIKM 2020.",
        "amazon-clothing": f"{AMAZON} Split: Zhang et al.: LATTICE, MM 2021.",
        "amazon-industrial": AMAZON_2018,
        "amazon-office": AMAZON_2018,
        "citeulike-a": "Wang, Chen, Li: Collaborative Topic Regression with Social Regularization, IJCAI 2013.",
        "gowalla": "Cho, Myers, Leskovec: Friendship and Mobility, KDD 2011. Split: Wang et al.: NGCF, SIGIR 2019.",
        "hetrec2011-lastfm-2k": HETREC,
        "lastfm": f"{HETREC} Split: He et al.: LightGCN, SIGIR 2020.",
        "ml-100k": MOVIELENS,
        "ml-100k-recbole": f"{MOVIELENS} Files: Zhao et al.: RecBole, CIKM 2021; graph: Zhao et al.: KB4Rec, 2019.",
        "ml-100k-unlearn": f"{MOVIELENS} Sets: Chen et al.: CURE4Rec, NeurIPS 2024.",
        "ml-1m": f"{MOVIELENS} Split: Chen et al.: RecEraser, WWW 2022.",
        "ml-1m-kg": f"{MOVIELENS} Graph: Wang et al.: RippleNet, CIKM 2018.",
        "ml-1m-mmkg": f"{MOVIELENS} Split: Cui et al.: CoLaKG, SIGIR 2025.",
        "ml-latest-small": MOVIELENS,
        "music": f"{HETREC} Graph: Wang et al.: KGCN, WWW 2019.",
        "retail_rocket": "Retailrocket recommender system dataset. Matrices: Ren et al.: SSLRec, WSDM 2024.",
        "s3rec-beauty": f"{AMAZON} Sequences: Zhou et al.: S3-Rec, CIKM 2020.",
        "s3rec-toys": f"{AMAZON} Sequences: Zhou et al.: S3-Rec, CIKM 2020.",
        "sparse_yelp": f"{YELP} Matrices: Ren et al.: SSLRec, WSDM 2024.",
        "tiktok-mm": "Wei et al.: MMGCN, MM 2019; Wei et al.: MMSSL, WWW 2023.",
        "yelp-hin": f"{YELP} Network: Shi et al.: HERec, TKDE 2019.",
    }
)

# Sets whose terms allow it and whose files lie, byte for byte, at a public address. {name} is the file's name.
_GITHUB = "https://raw.githubusercontent.com"
_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
ADDRESSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "amazon-clothing": (f"{_GITHUB}/Xu107/MMHCL/{{commit}}/{{path}}",),
        "citeulike-a": (f"{_GITHUB}/js05212/citeulike-a/{{commit}}/{{name}}",),
        "gowalla": (f"{_GITHUB}/gusye1234/LightGCN-PyTorch/{{commit}}/{{path}}/{{name}}",),
        "lastfm": (f"{_GITHUB}/gusye1234/LightGCN-PyTorch/{{commit}}/{{path}}/{{name}}",),
        "ml-100k": (f"{_GROUPLENS}/ml-100k.zip#ml-100k/{{name}}",),
        "ml-latest-small": (f"{_GROUPLENS}/ml-latest-small.zip#ml-latest-small/{{name}}",),
        "s3rec-beauty": (f"{_GITHUB}/RUCAIBox/CIKM2020-S3Rec/{{commit}}/{{path}}/{{name}}",),
        "s3rec-toys": (f"{_GITHUB}/RUCAIBox/CIKM2020-S3Rec/{{commit}}/{{path}}/{{name}}",),
    }
)

# Git blob ids of files that differ from ours in the order of items within lines alone.
BLOBS: Mapping[tuple[str, str], str] = MappingProxyType(
    {("gowalla", "train.txt"): "a27782bd7a1d4d0744148dc0460ea94da74763f2"}
)


def read(folder: Path) -> tuple[str, RecDataset]:
    """The format of a folder and the dataset in it, past any cache."""
    kind = adapters.recognise(folder)
    if kind is None:
        raise InputError(f"{folder} is in no known format.")
    builder = Builder(folder.name)
    adapters.adapter(kind).read(folder, builder)
    return kind, builder.build()


def sizes(data: RecDataset) -> dict[str, int]:
    """Nodes of each type, ranked rows of each part, rows of every edge type."""
    nodes = {f"{kind}s" if kind != "entity" else "entities": size for kind, size in data.num_nodes.items()}
    table = data.tables[data.target]
    labelled = {} if table.label is None else {"labelled negatives": int((table.label == 0).sum())}
    parts = {part: len(data.interactions(part)) for part in PARTS if part in data.parts}
    if table.part is None:
        parts = {"interactions": len(data.interactions())}
    edges = {edge_type_name(kind): len(rows) for kind, rows in data.tables.items()}
    return {**nodes, **parts, **labelled, **edges}


def make_entry(folder: Path) -> dict[str, Any]:
    """The JSON object of one dataset."""
    source = json.loads((folder / "SOURCE.json").read_text("utf-8"))
    kind, data = read(folder)
    sources = [
        {"repository": item["repository"], "commit": item["commit"], "paths": item.get("paths") or [item["path"]]}
        for item in source["sources"]
    ]
    first = sources[0]
    files = []
    for name, about in source["files"].items():
        known = {"name": name, "commit": first["commit"], "path": first["paths"][0]}
        addresses = [form.format(**known) for form in ADDRESSES.get(folder.name, ())]
        file = {"name": name, "bytes": about["bytes"], "sha256": about["sha256"], "addresses": addresses}
        blob = BLOBS.get((folder.name, name))
        files.append({**file, "blob": blob} if blob else file)
    return {
        "name": folder.name,
        "title": source["title"],
        "adapter": kind,
        "licence": source["licence"],
        "citation": CITATIONS[folder.name],
        "split": source["split"],
        "sources": sources,
        "files": files,
        "sizes": sizes(data),
        "digests": data.digests(),
        "fingerprint": data.fingerprint,
    }


def make(root: Path) -> list[dict[str, Any]]:
    """The entries of all folders of ``root`` that have a ``SOURCE.json``, by name."""
    return [make_entry(path.parent) for path in sorted(root.glob("*/SOURCE.json"))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the registry."""
    parser = argparse.ArgumentParser(description="Write registry.json from a folder of datasets.")
    parser.add_argument("root", type=Path, help="the folder that holds the datasets' folders")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("registry.json"), help="the file to write")
    given = parser.parse_args(arguments)
    given.out.write_text(json.dumps(make(given.root), indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
