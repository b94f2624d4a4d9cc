"""``graphrec recommend``: top-k lists of a run, for some users, for all, or for somebody new."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from graphrec.cli.arguments import Parser
from graphrec.cli.output import print_json, table
from graphrec.cli.runs import add_data_arguments, existing_run, run_data
from graphrec.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from graphrec.serving import Recommender


def parser() -> Parser:
    """Every option of the command."""
    shape = Parser(
        "recommend",
        "RUN (--users ID … | --all | --history ITEM … | --similar-to ITEM …) [options]",
        "The best items by a trained model, for raw ids; the training data is not needed.",
    )
    shape.add_argument("run", help="a run folder, or hf://OWNER/NAME on the Hugging Face hub")
    shape.add_argument("--users", nargs="+", type=str, default=None, help="raw ids of users the model was trained on")
    shape.add_argument("--all", action="store_true", help="all users of the run, block by block")
    shape.add_argument(
        "--history", nargs="+", type=str, default=None, help="raw ids of the items somebody new is known by"
    )
    shape.add_argument(
        "--similar-to", nargs="+", type=str, default=None, help="raw ids of items whose nearest items are wanted"
    )
    shape.add_argument("--k", type=int, default=10, help="how many items in each list")
    shape.add_argument("--include-seen", action="store_true", help="keep items of the training pairs in the lists")
    shape.add_argument(
        "--candidates", nargs="+", type=str, default=None, help="raw ids of the only items that may appear"
    )
    shape.add_argument(
        "--unknown",
        type=Literal["skip", "error", "popular"],
        default="skip",
        help="unknown ids: leave them out and say so, stop, or give unknown users the most popular items",
    )
    shape.add_argument("--out", type=str | None, default=None, help="parquet file to write instead of printing")
    shape.add_argument("--json", action="store_true", help="print JSON")
    shape.add_argument("--device", type=str, default="cpu", help="where to score: cpu, cuda, cuda:1 …")
    add_data_arguments(shape)
    return shape.polish()


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse(arguments)
    asked = [name for name in ("users", "all", "history", "similar_to") if getattr(options, name) not in (None, False)]
    if len(asked) != 1:
        raise InputError("one of --users ID …, --all, --history ITEM … and --similar-to ITEM … is expected")
    if options.out is not None and Path(options.out).suffix != ".parquet":
        raise InputError(f"--out {options.out}: a name ending in .parquet is expected")
    source = existing_run(options.run)
    from graphrec.serving import Recommender

    recommender = Recommender.from_pretrained(source, device=options.device, allow_superseded=options.allow_superseded)
    if options.dataset is not None or options.root is not None:
        assert recommender.run is not None
        run_data(recommender.run, options)
    start = time.perf_counter()
    choice = {"exclude_seen": not options.include_seen, "candidates": options.candidates}
    if options.all:
        return _all(recommender, options, choice, start)
    if options.users is not None:
        frame = recommender.recommend(options.users, options.k, unknown=options.unknown, **choice)
    elif options.history is not None:
        frame = recommender.recommend_for(options.history, k=options.k, unknown=options.unknown, **choice)
    else:
        policy: Literal["skip", "error"] = "error" if options.unknown == "error" else "skip"
        frame = recommender.similar_items(options.similar_to, options.k, unknown=policy)
    if frame.empty:
        raise InputError("nothing to recommend: none of the ids is known to the model, or no item is left")
    if options.out is not None:
        from graphrec.serving.lists import write_lists

        recommender.record(write_lists([frame], options.out), ("ids", "lists"))
        _written(options, len(frame), start)
    elif options.json:
        print_json(frame.to_dict("records"))
    else:
        _print_table(frame)
    return 0


def _all(recommender: Recommender, options: Any, choice: dict[str, Any], start: float) -> int:
    if options.out is not None:
        recommender.recommend_all(options.out, options.k, **choice)
        import pyarrow.parquet as pq

        _written(options, pq.read_metadata(options.out).num_rows, start)
        return 0
    blocks = recommender.recommend_blocks(options.k, **choice)
    _print_json_blocks(blocks) if options.json else _print_csv_blocks(blocks)
    return 0


def _written(options: Any, rows: int, start: float) -> None:
    seconds = round(time.perf_counter() - start, 3)
    if options.json:
        print_json({"out": options.out, "rows": rows, "seconds": seconds})
    else:
        print(f"{rows:,} rows written to {options.out} in {seconds:.1f} s")


def _print_table(frame: pd.DataFrame) -> None:
    ids = [name for name in frame.columns if name not in ("rank", "score")]
    shown = frame.assign(**{name: frame[name].astype(object).where(frame[name].notna(), "").map(str) for name in ids})
    if not shown.get("user", shown.index.to_series().map(str)).any():
        shown = shown.drop(columns="user")
    print(table(list(shown.columns), shown.itertuples(index=False), ["rank", "score"]))


def _print_csv_blocks(blocks: Iterable[pd.DataFrame]) -> None:
    for number, frame in enumerate(blocks):
        frame.to_csv(sys.stdout, index=False, header=number == 0)


def _print_json_blocks(blocks: Iterable[pd.DataFrame]) -> None:
    """One JSON array, written as the blocks come."""
    print("[", end="")
    first = True
    for frame in blocks:
        for line in frame.to_json(orient="records", lines=True, force_ascii=False).splitlines():
            print("\n" if first else ",\n", line, sep="", end="")
            first = False
    print("\n]")
