"""The options that say which dataset, and how it is read and split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from graphrec.cli.arguments import Parser

if TYPE_CHECKING:
    from graphrec.datasets import RecDataset


def add_dataset_arguments(shape: Parser) -> None:
    """``--dataset``, ``--root`` and what :func:`graphrec.datasets.load` can be told."""
    group = shape.add_argument_group("dataset")
    group.add_argument(
        "--dataset",
        type=str | None,
        default=None,
        help="name of a known dataset (see graphrec datasets), or path of a file or folder; expected",
    )
    group.add_argument(
        "--root",
        type=str | None,
        default=None,
        help="folder that holds the dataset's own folder; none: $GRAPHREC_DATA, then the user cache",
    )
    group.add_argument("--format", type=str | None, default=None, help="how to read it; none: found by its content")
    group.add_argument(
        "--columns",
        type=str | None,
        default=None,
        help="names of the columns of a table, as in user=uid,item=sku,time=ts,rating=stars",
    )
    group.add_argument(
        "--split",
        type=str | None,
        default=None,
        help="how to split: random:.8,.1,.1 and time:.8,.1,.1 by user, global_time:.8,.1,.1, leave_one_out, "
        "cold_items:.1,.2 and cold_users:.1,.2 (valid, test), random_pairs:.6,.2,.2 of labelled pairs; none: the "
        "dataset's own parts",
    )
    group.add_argument(
        "--min-rating", type=float | None, default=None, help="keep interactions rated at least this; none: all"
    )
    group.add_argument(
        "--drawn-negatives",
        type=int | None,
        default=None,
        help="for click prediction, pairs labelled 0 drawn for each positive of a user among what the user has not "
        "rated; none: the data's own labels",
    )
    group.add_argument(
        "--split-seed",
        type=int | None,
        default=None,
        help="seed of a random split and of drawn negatives, or of the seeded world",
    )
    group.add_argument(
        "--cold",
        type=Literal["keep", "drop"],
        default="keep",
        help="test users and items without training interactions: keep or drop them (counted either way)",
    )
    group.add_argument(
        "--duplicates",
        type=Literal["error", "first", "last", "sum"] | None,
        default=None,
        help="rows with the same user, item and part: refuse, keep one, or add up; none: the last, counted",
    )
    for name, text in (
        (
            "--kg",
            "table of the items (with --kg-columns), or file of triples: tsv, nt, parquet; none: the dataset's own",
        ),
        ("--kg-columns", "relations of a table's columns, as in brand=made_by,genres=has_genre:separator=|"),
        ("--kg-options", "how --kg is read and matched, as in item=sku,name=title,link=ids.tsv,min_share=.2"),
        ("--kg-filter", "what of the knowledge graph is kept, as in drop=also_bought|also_viewed,core=2,hops=1"),
    ):
        group.add_argument(name, type=str | None, default=None, help=text)


def load_dataset(options: Any) -> RecDataset:
    """The dataset that the options name."""
    from graphrec.datasets import load

    return load(options.dataset, root=options.root, **_how(options))


def _how(options: Any) -> dict[str, Any]:
    """Arguments of ``load`` that are not its defaults."""
    from graphrec.datasets.roles import as_mapping

    given = {
        "format": options.format,
        "columns": None if options.columns is None else as_mapping(options.columns, "--columns"),
        "split": options.split,
        "seed": options.split_seed,
        "min_rating": options.min_rating,
        "drawn_negatives": options.drawn_negatives,
        "cold": options.cold if options.cold != "keep" else None,
        "duplicates": options.duplicates,
        "kg": options.kg,
        "kg_columns": options.kg_columns,
        "kg_options": options.kg_options,
        "kg_filter": options.kg_filter,
    }
    return {name: value for name, value in given.items() if value is not None}
