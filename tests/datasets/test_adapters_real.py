"""Every published set loads whole: all counts against the SOURCE.json that lies beside its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphrec.datasets import Builder, RecDataset, adapters
from graphrec.datasets.adapters.lightgcn_names import pictures
from graphrec.datasets.adapters.unlearning_sets import forget_pairs, forget_sets

pytestmark = pytest.mark.realdata

FORMATS = {
    "amazon-baby": "mmrec",
    "amazon-beauty-kg": "lightgcn",
    "amazon-clothing": "mmrec",
    "amazon-industrial": "mmrec",
    "amazon-office": "mmrec",
    "citeulike-a": "citeulike",
    "gowalla": "lightgcn",
    "hetrec2011-lastfm-2k": "hetrec",
    "lastfm": "lastfm",
    "ml-100k": "movielens",
    "ml-100k-recbole": "recbole",
    "ml-100k-unlearn": "unlearning",
    "ml-1m": "lightgcn",
    "ml-1m-kg": "lightgcn",
    "ml-1m-mmkg": "lightgcn",
    "ml-latest-small": "movielens",
    "music": "lightgcn",
    "retail_rocket": "sslrec",
    "s3rec-beauty": "s3rec",
    "s3rec-toys": "s3rec",
    "sparse_yelp": "sslrec",
    "tiktok-mm": "mmrec",
    "yelp-hin": "hin",
}


class Loaded:
    """Datasets of the session, each read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: dict[str, tuple[RecDataset, dict[str, Any]]] = {}

    def __call__(self, name: str) -> tuple[RecDataset, dict[str, Any]]:
        folder = self.root / name
        if not folder.is_dir():
            pytest.skip(f"{name} is not in {self.root}")
        if name not in self.made:
            kind = adapters.recognise(folder)
            assert kind == FORMATS[name]
            builder = Builder(name)
            adapters.adapter(kind).read(folder, builder)
            source = json.loads((folder / "SOURCE.json").read_text("utf-8"))
            self.made[name] = builder.build(), source
        return self.made[name]


@pytest.fixture(scope="module")
def loaded(data_root: Path) -> Loaded:
    return Loaded(data_root)


def triples(data: RecDataset) -> int:
    """Rows of all edge types of the knowledge graph."""
    return sum(len(table) for kind, table in data.tables.items() if kind[1] == "related")


def kinds(data: RecDataset) -> dict[str, int]:
    """How many entities there are of each kind."""
    values, counts = np.unique(data.kinds["entity"].astype(str), return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def relations(data: RecDataset) -> dict[str, int]:
    """How many triples there are of each relation."""
    found: dict[str, int] = {}
    for table in data.tables.values():
        if table.relation is not None:
            for code, count in zip(*np.unique(table.relation, return_counts=True), strict=True):
                name = str(data.relations.decode(np.array([code]))[0])
                found[name] = found.get(name, 0) + int(count)
    return found


def users_with(data: RecDataset, part: str | None) -> int:
    return len(np.unique(data.interactions(part).source))


def noted(data: RecDataset, action: str) -> int:
    return sum(note.count for note in data.notes if note.action == action)


@pytest.mark.parametrize("name", FORMATS)
def test_nodes_and_parts(loaded: Loaded, name: str) -> None:
    data, source = loaded(name)
    said = source["statistics"]
    items = said.get("n_items_id_space", said["n_items"])
    assert data.num_users == said.get("n_users_id_space", said["n_users"])
    assert data.num_items == items
    for part in ("train", "valid", "test"):
        if f"n_{part}" in said:
            expected = said[f"n_{part}"]
            assert (len(data.interactions(part)) if part in data.parts else 0) == expected
    if "n_interactions" in said:
        assert len(data.interactions()) == said["n_interactions"]
    if "n_items_with_interactions" in said:
        assert len(np.unique(data.interactions().target)) == said["n_items_with_interactions"]
    if "users_without_train" in said:
        assert data.num_users - users_with(data, "train") == said["users_without_train"]
    if "test_items_never_in_train" in said:
        trained = data.interactions("train").target
        assert len(np.setdiff1d(data.interactions("test").target, trained)) == said["test_items_never_in_train"]


@pytest.mark.parametrize("name", ["tiktok-mm", "ml-1m-mmkg", "amazon-industrial", "amazon-office"])
def test_features_have_the_shapes_of_their_files(loaded: Loaded, name: str) -> None:
    data, source = loaded(name)
    shapes = {
        file.removesuffix("_feat.npy"): tuple(about["shape"])
        for file, about in source["files"].items()
        if file.endswith("_feat.npy")
    }
    assert shapes == {feature: values.shape for (_, feature), values in data.features.items()}
    assert sorted(shape[1] for shape in shapes.values()) == sorted(source["statistics"]["modalities"].values())
    for key, values in data.features.items():
        raw = np.load(loaded.root / name / f"{key[1]}_feat.npy", allow_pickle=False)
        np.testing.assert_array_equal(values[17], raw[17].astype(np.float32))
        assert values.dtype == np.float32
        assert data.feature_masks[key].all()


def test_gowalla_keeps_original_ids_as_names(loaded: Loaded) -> None:
    data, _ = loaded("gowalla")
    assert data.names["user"][:2].tolist() == ["343", "5258"]
    assert data.names["item"][0] == "8975"
    assert data.parts == ("train", "test")


def test_ml_1m_has_items_that_never_occur(loaded: Loaded) -> None:
    data, source = loaded("ml-1m")
    assert len(np.unique(data.interactions().target)) == source["statistics"]["n_items"]


def test_lastfm(loaded: Loaded) -> None:
    data, source = loaded("lastfm")
    said = source["statistics"]
    assert users_with(data, None) == said["n_users"]
    assert len(data.tables["user", "trusts", "user"]) == said["n_social_edges_directed"]
    assert data.interactions("train").weight is not None
    assert data.interactions().weight.max() >= 3.2466e5
    assert data.vocabularies["user"].raw[[0, -1]].tolist() == [1, said["max_user_id"]]
    assert len(np.setdiff1d(data.interactions("test").source, data.interactions("train").source)) == 2


def test_yelp_hin(loaded: Loaded) -> None:
    data, source = loaded("yelp-hin")
    said = source["statistics"]
    assert len(data.tables["user", "trusts", "user"]) == said["n_social_edges_directed"]
    assert kinds(data) == {
        "city": said["n_cities"],
        "category": said["n_categories"],
        "compliment": said["n_compliments"],
    }
    assert relations(data) == {
        "city": said["n_business_city"],
        "category": said["n_business_category"],
        "compliment": said["n_user_compliment"],
    }
    rating = data.interactions().rating
    assert (rating.min(), rating.max()) == (1, 5)


def test_music(loaded: Loaded) -> None:
    data, source = loaded("music")
    said = source["statistics"]
    assert data.num_items + data.num_nodes["entity"] == said["n_entities"]
    assert (len(data.relations), triples(data)) == (said["n_relations"], said["n_triples"])
    table = data.interactions(labels=True)
    assert len(table) == said["n_labelled"]
    assert int((table.label == 1).sum()) == said["n_positive"]
    assert int((table.label == 0).sum()) == said["n_negative_sampled"]
    assert users_with(data, "train") == said["n_users_train"]
    assert users_with(data, "test") == said["n_users_test"]
    assert "music.artist.origin" in relations(data)


def test_ml_1m_kg(loaded: Loaded) -> None:
    data, source = loaded("ml-1m-kg")
    said = source["statistics"]
    assert data.num_items + data.num_nodes["entity"] == said["n_entities"]
    assert (len(data.relations), triples(data)) == (said["n_relations"], said["n_triples"])
    assert len(np.unique(data.interactions().target)) == said["n_items_with_positives"]
    assert data.names["item"][0] == "Toy Story (1995)"
    assert None not in data.names["item"].tolist()
    assert "Animation" in data.texts["item"][0]


def test_ml_1m_mmkg(loaded: Loaded) -> None:
    data, source = loaded("ml-1m-mmkg")
    said = source["statistics"]
    assert data.num_items + data.num_nodes["entity"] == said["kg"]["entities"]
    assert relations(data) == said["kg"]["triples_by_relation"]
    assert triples(data) == said["kg"]["triples"]
    assert len(pictures(loaded.root / "ml-1m-mmkg" / "posters_64.zip")) == said["poster_thumbnails"]
    assert noted(data, "available") == said["poster_thumbnails"]
    assert data.names["item"][0] == "One Flew Over the Cuckoo's Nest (1975)"
    assert data.names["user"][1] == "2"
    assert None not in data.names["entity"].tolist()
    assert len(kinds(data)) > 3


def test_amazon_beauty_kg(loaded: Loaded) -> None:
    data, source = loaded("amazon-beauty-kg")
    said = source["statistics"]
    assert data.num_items + data.num_nodes["entity"] == said["n_entities"]
    assert relations(data) == said["triples_per_relation"]
    assert triples(data) == said["n_triples"]
    table = data.tables["item", "related", "entity"]
    assert len(np.unique(table.source)) + len(np.unique(table.target)) == said["n_entities_used"]
    assert data.names["item"][0] == "B003QLRO7W"
    assert data.names["user"][0] == "A67861C2ZZDHQ"
    assert set(kinds(data)) == {"related_product", "brand", "category"}


def test_amazon_beauty_kg_merged(data_root: Path) -> None:
    folder = data_root / "amazon-beauty-kg"
    if not folder.is_dir():
        pytest.skip(f"amazon-beauty-kg is not in {data_root}")
    said = json.loads((folder / "SOURCE.json").read_text("utf-8"))["statistics"]
    builder = Builder("merged")
    adapters.adapter("lightgcn").read(folder, builder, merge_related=True)
    data = builder.build()
    merged = said["related_products_that_are_products"]
    assert data.num_items + data.num_nodes["entity"] == said["n_entities"] - merged
    assert len(data.tables["item", "related", "item"]) > 0
    assert triples(data) + noted(data, "merged") == said["n_triples"]


@pytest.mark.parametrize("name", ["amazon-industrial", "amazon-office"])
def test_amazon_2018(loaded: Loaded, name: str) -> None:
    data, source = loaded(name)
    said = source["statistics"]
    assert data.num_nodes["entity"] == said["n_brands"]
    assert relations(data) == {"brand": said["items_with_brand"]}
    assert None not in data.names["item"].tolist()
    assert data.names["user"][0] == "A0"
    assert len(data.texts["item"]) == said["n_items"]


def test_recbole(loaded: Loaded) -> None:
    data, source = loaded("ml-100k-recbole")
    said = source["statistics"]
    assert data.num_nodes["entity"] + said["n_linked_items"] == said["n_entities"]
    assert (len(data.relations), triples(data)) == (said["n_relations"], said["n_triples"])
    in_graph = np.concatenate(
        [
            codes
            for kind, table in data.tables.items()
            if kind[1] == "related"
            for end, codes in ((kind[0], table.source), (kind[2], table.target))
            if end == "item"
        ]
    )
    assert len(np.unique(in_graph)) == said["n_linked_items_in_kg"]
    assert data.names["item"][0] == "Toy Story"
    assert data.features["user", "gender"].shape == (said["n_users"], 2)
    assert data.interactions().time.dtype == np.int64


def test_retail_rocket(loaded: Loaded) -> None:
    data, source = loaded("retail_rocket")
    said = source["statistics"]
    assert data.target == ("user", "buy", "item")
    assert len(data.interactions("train")) == said["n_buy_train"]
    assert len(data.tables["user", "cart", "item"]) == said["n_cart"]
    assert len(data.tables["user", "view", "item"]) == said["n_view"]
    behaviours = sum(len(table) for kind, table in data.tables.items() if kind[0] == "user")
    assert behaviours - said["n_test"] == said["n_interactions_train_all_behaviours"]
    table = data.tables["item", "related", "item"]
    assert len(table) == said["kg_triples"]
    assert len(data.relations) == said["kg_relations"]
    assert len(np.unique(np.concatenate([table.source, table.target]))) == said["kg_items"]
    assert int((table.source == table.target).sum()) == said["kg_self_loops"]
    assert np.isfinite(data.interactions("train").time).all()


def test_ml_latest_small(loaded: Loaded) -> None:
    data, source = loaded("ml-latest-small")
    said = source["statistics"]
    assert len(np.unique(data.interactions().target)) == said["n_items_rated"]
    tagged = data.tables["item", "tagged", "tag"]
    assert len(tagged) == said["n_tag_assignments"]
    assert data.num_nodes["tag"] == said["n_tags"]
    assert len(np.unique(tagged.user)) == said["n_tagging_users"]
    assert len(np.unique(tagged.source)) == said["n_tagged_items"]
    assert kinds(data) == {"genre": said["n_genres"]}
    assert int((data.interactions().rating >= 4).sum()) == said["n_rated_4_or_more"]


def test_ml_100k(loaded: Loaded) -> None:
    data, source = loaded("ml-100k")
    said = source["statistics"]
    assert int((data.interactions().rating >= 4).sum()) == said["n_rated_4_or_more"]
    assert kinds(data) == {"genre": said["n_genres"]}
    assert data.names["item"][0] == "Toy Story (1995)"
    assert data.features["user", "occupation"].shape == (said["n_users"], 21)


@pytest.mark.parametrize("fold", ["1", "2", "3", "4", "5", "a", "b"])
def test_ml_100k_folds(loaded: Loaded, fold: str) -> None:
    _, source = loaded("ml-100k")
    builder = Builder("fold")
    adapters.adapter("movielens").read(loaded.root / "ml-100k", builder, fold=f"u{fold}")
    data = builder.build()
    said = source["statistics"]["splits"][fold]
    assert data.part_counts() == {"train": said["base"], "test": said["test"]}


def test_ml_100k_unlearn(loaded: Loaded) -> None:
    data, source = loaded("ml-100k-unlearn")
    said = source["statistics"]
    folder = loaded.root / "ml-100k-unlearn"
    assert len(data.interactions()) == said["n_ratings"]
    assert np.isfinite(data.interactions().rating).all()
    assert sorted(said["unlearn_sets"]) == forget_sets(folder)
    for name, about in said["unlearn_sets"].items():
        users, items = forget_pairs(folder, name)
        assert len(items) == about["of_them_in_train"]
        everything, _ = forget_pairs(folder, name, train_only=False)
        assert (len(everything), len(np.unique(everything))) == (about["rows"], about["users"])
        assert np.isin(users, data.vocabularies["user"].raw).all()
    assert noted(data, "available") == sum(about["of_them_in_train"] for about in said["unlearn_sets"].values())


def test_hetrec(loaded: Loaded) -> None:
    data, source = loaded("hetrec2011-lastfm-2k")
    said = source["statistics"]
    tagged = data.tables["item", "tagged", "tag"]
    assert data.num_nodes["tag"] == said["n_tags"]
    assert len(tagged) == said["n_tag_assignments_on_listed_artists"]
    assert len(tagged) + noted(data, "dropped") == said["n_tag_assignments"]
    assert len(data.tables["user", "trusts", "user"]) == said["n_friend_pairs_directed"]
    assert data.names["item"][0] == "MALICE MIZER"
    assert data.names["tag"][0] == "metal"


def test_hetrec_kept_whole(data_root: Path) -> None:
    folder = data_root / "hetrec2011-lastfm-2k"
    if not folder.is_dir():
        pytest.skip(f"hetrec2011-lastfm-2k is not in {data_root}")
    said = json.loads((folder / "SOURCE.json").read_text("utf-8"))["statistics"]
    builder = Builder("whole")
    adapters.adapter("hetrec").read(folder, builder, unlisted="keep")
    tagged = builder.build().tables["item", "tagged", "tag"]
    assert len(tagged) == said["n_tag_assignments"]
    assert len(np.unique(tagged.target)) == said["n_tags_used"]


def test_citeulike(loaded: Loaded) -> None:
    data, source = loaded("citeulike-a")
    said = source["statistics"]
    tagged = data.tables["item", "tagged", "tag"]
    assert data.num_nodes["tag"] == said["n_tags"]
    assert (len(tagged), len(np.unique(tagged.target))) == (said["n_item_tag_pairs"], said["n_tags_used"])
    cites = data.tables["item", "cites", "item"]
    assert len(cites) == said["n_citation_entries"]
    loops = int((cites.source == cites.target).sum())
    assert loops == said["n_citation_self_loops"]
    assert (len(cites) - loops) // 2 == said["n_citation_edges_undirected"]
    assert data.names["tag"][0] == "ucsc-browser"


@pytest.mark.parametrize("name", ["s3rec-beauty", "s3rec-toys"])
def test_s3rec(loaded: Loaded, name: str) -> None:
    data, source = loaded(name)
    said = source["statistics"]
    assert kinds(data) == {"attribute": said["n_attributes"]}
    assert triples(data) + noted(data, "merged") == said["n_item_attribute_pairs"]
    assert data.part_counts()["test"] == data.part_counts()["valid"] == said["n_users"]
    last, before = data.interactions("test"), data.interactions("valid")
    np.testing.assert_array_equal(last.source, before.source)
    assert (last.time > before.time).all()
    assert data.vocabularies["item"].raw[0] == 1


def test_sparse_yelp(loaded: Loaded) -> None:
    data, source = loaded("sparse_yelp")
    said = source["statistics"]
    assert users_with(data, "train") == said["n_users_with_train"]
    assert users_with(data, "test") == said["n_users_with_test"]
