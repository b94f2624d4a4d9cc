"""``graphrec forget``: people's data taken out of a trained model, and the proof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from graphrec.cli.arguments import Parser, take
from graphrec.cli.output import print_json, table
from graphrec.cli.runs import add_data_arguments, existing_run, run_data
from graphrec.errors import InputError

METHOD = "--method."


def parser() -> Parser:
    """Every option of the command."""
    shape = Parser(
        "forget",
        "RUN --request FILE --method METHOD --out RUN2 [--method.OPTION VALUE …] | RUN --prepare --method METHOD "
        "--out RUN2 | --verify RUN",
        "Take out of a trained model what a request names, and write a run without it, with the evidence. The old run "
        "serves nothing of it from the start, and is superseded at the end.",
    )
    shape.add_argument("run", nargs="?", default=None, help="a run folder")
    shape.add_argument(
        "--request", type=str | None, default=None, help="what is to be forgotten: a .json, .csv or .tsv file"
    )
    shape.add_argument(
        "--request-columns",
        type=str | None,
        default=None,
        help="columns of a table of requests, as in user=uid,item=iid; none: those called user, item, behaviour, …",
    )
    shape.add_argument(
        "--method",
        type=str,
        default="retrain",
        help="how to forget (see --methods); --method.OPTION VALUE sets an option of it, as in --method.epochs 3",
    )
    shape.add_argument("--methods", action="store_true", help="list the methods with their options")
    shape.add_argument("--out", type=str | None, default=None, help="folder of the new run")
    shape.add_argument("--dry-run", action="store_true", help="say what the request would touch, and change nothing")
    shape.add_argument(
        "--prepare", action="store_true", help="make a run that can forget by a method which needs a preparation"
    )
    shape.add_argument("--verify", type=str | None, default=None, help="check a run that forgot: hashes, log, scan")
    shape.add_argument(
        "--head",
        type=str | None,
        default=None,
        help="with --verify: hash of the last record, as forget printed it; kept elsewhere, it pins the whole log",
    )
    shape.add_argument(
        "--before", type=str | None, default=None, help="with --verify and --request: the run before the request"
    )
    shape.add_argument("--replay", action="store_true", help="with --verify and --request: train again and compare")
    shape.add_argument(
        "--references", type=int, default=3, help="models that are trained anew to compare with; 0: none"
    )
    shape.add_argument("--strict", action="store_true", help="stop where the dataset does not have what is named")
    shape.add_argument("--resume", action="store_true", help="go on with the request where a process died")
    shape.add_argument(
        "--data-out",
        type=str | None,
        default=None,
        help="folder to write the dataset without what was forgotten to, for later requests",
    )
    shape.add_argument(
        "--budget-share",
        type=float,
        default=0.1,
        help="share of the training edges that may be forgotten approximately before an exact method is demanded",
    )
    shape.add_argument("--device", type=str, default="cpu", help="where to compute: cpu, cuda, cuda:1 …")
    shape.add_argument("--json", action="store_true", help="print JSON")
    add_data_arguments(shape)
    return shape.polish()


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    words, given = _method_options(arguments)
    options = parser().parse(words)
    if options.methods:
        return _methods(options.json)
    if options.verify is not None:
        return _verify(options)
    if options.run is None:
        raise InputError("a run folder is expected: graphrec forget RUN --request FILE --method METHOD --out RUN2")
    folder = existing_run(options.run)
    if options.out is None and not options.dry_run:
        raise InputError("--out RUN2, the folder of the new run, is expected")
    if options.request is None and not options.prepare:
        raise InputError("--request FILE is expected: a .json, .csv or .tsv file that says what is to be forgotten")
    from graphrec.runs import Run

    opened = Run.open(folder, allow_superseded=options.allow_superseded)
    chosen = _chosen(options.method, given)
    if options.prepare:
        from graphrec.unlearning import prepare

        made = prepare(
            opened,
            run_data(opened, options),
            method=chosen,
            out=options.out,
            device=options.device,
            progress=not options.json,
            allow_superseded=options.allow_superseded,
        )
        return _said({"run": str(made.path), "method": chosen.name, **_numbers(made.metrics)}, options.json)
    from graphrec.unlearning import ForgetRequest

    request = ForgetRequest.from_file(options.request, _columns(options.request_columns))
    data = run_data(opened, options)
    if options.dry_run:
        from graphrec.unlearning import preview, resolve

        found = preview(opened.model(), data, resolve(request, data, strict=options.strict), opened)
        return _previewed(found.to_dict(), options.json)
    from graphrec.unlearning import Budget, forget

    made = forget(
        opened,
        data,
        request,
        method=chosen,
        out=options.out,
        references=options.references,
        budget=Budget(share=options.budget_share),
        strict=options.strict,
        resume=options.resume,
        data_out=options.data_out,
        device=options.device,
        progress=not options.json,
        allow_superseded=options.allow_superseded,
    )
    return _done(made, options.json)


def _columns(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    from graphrec.datasets.roles import as_mapping

    return dict(as_mapping(text, "--request-columns"))


def _method_options(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words without ``--method.OPTION VALUE``, and these."""
    rest, given = list(arguments), {}
    for word in arguments:
        name = word.partition("=")[0]
        if name.startswith(METHOD):
            value, rest = take(rest, name)
            if value is not None:
                given[name.removeprefix(METHOD).replace("-", "_")] = value
    return rest, given


def _chosen(name: str, given: dict[str, str]) -> Any:
    """A method with options as they were typed, each read as the type it has."""
    import typing

    import yaml

    from graphrec.unlearning import METHODS
    from graphrec.unlearning.forget import method_of

    if name in METHODS:
        kinds = typing.get_type_hints(METHODS[name])
        for option, value in given.items():
            if option in METHODS[name].__dataclass_fields__ and kinds[option] is not str:
                given[option] = yaml.safe_load(value)
    try:
        return method_of(name, given)
    except TypeError as error:
        raise InputError(f"--method {name}: {error}") from error


def _methods(as_json: bool) -> int:
    from graphrec.unlearning import METHODS

    listed: dict[str, Any] = {
        name: {
            "exactness": method.exactness,
            "needs_preparation": method.needs_state,
            "options": {entry.name: entry.default for entry in fields(method)},
        }
        for name, method in METHODS.items()
    }
    if as_json:
        print_json(listed)
        return 0
    rows = [
        (
            name,
            entry["exactness"],
            "yes" if entry["needs_preparation"] else "",
            ", ".join(f"{option}={value}" for option, value in entry["options"].items()),
        )
        for name, entry in listed.items()
    ]
    print(table(["method", "exactness", "prepare", "options"], rows))
    return 0


def _verify(options: Any) -> int:
    """Check a run; exit status 0 where all of it holds, 1 where anything does not."""
    if options.run is not None:
        raise InputError(f"--verify takes one run; {options.run} is not needed")
    from graphrec.unlearning.verify import run_verification

    folder = existing_run(options.verify)
    given: dict[str, Any] = {"head": options.head}
    if options.request is not None:
        if options.before is None:
            raise InputError("--verify with --request needs --before, the run that was asked to forget")
        from graphrec.runs import Run
        from graphrec.unlearning import ForgetRequest

        before = Run.open(existing_run(options.before), allow_superseded=True)
        given["request"] = ForgetRequest.from_file(options.request, _columns(options.request_columns))
        given |= {"before": before, "data": run_data(before, options), "replay": options.replay}
    ok, lines = run_verification(folder, **given)
    if options.json:
        print_json({"run": options.verify, "ok": ok, "lines": lines})
    else:
        print("\n".join(lines))
        print(f"{options.verify}: {'verified' if ok else 'NOT verified'}")
    return 0 if ok else 1


def _numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name.startswith(("recall@", "ndcg@", "unlearning/"))}


def _said(values: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print_json(values)
    else:
        for name, value in values.items():
            print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
    return 0


def _previewed(values: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print_json(values)
        return 0
    basis = values.pop("basis")
    for name, value in values.items():
        if isinstance(value, dict):
            for key, entry in value.items():
                shown = f"{entry:.3g} ({basis[key]})" if name == "seconds" else entry
                print(f"{name.replace('_', ' ')}: {key} {shown}")
        elif value is not None:
            print(f"{name.replace('_', ' ')}: {f'{value:.2%}' if name == 'share' else value}")
    print("Nothing was changed.")
    return 0


def _done(made: Any, as_json: bool) -> int:
    from graphrec.unlearning import audit

    facts = made.config["unlearning"]
    values = {
        "run": str(made.path),
        "method": facts["method"],
        "exactness": facts["exactness"],
        "counts": facts["counts"],
        "seconds": facts["seconds"],
        "due": facts["due"],
        "page": str(Path(made.path) / "forgetting.html"),
        "head": audit.head(made),
    }
    if as_json:
        print_json({**values, "metrics": made.metrics})
        return 0
    print(f"{facts['method']} ({facts['exactness']}), {facts['seconds']['request']:.1f} s; forgotten:")
    for name, count in facts["counts"].items():
        print(f"  {name} {count:,}")
    if facts["due"]:
        print(f"A full retraining is due: {facts['due']}.")
    print(f"run: {made.path}\nevidence: {values['page']}\nlog: {Path(made.path) / 'audit.jsonl'}")
    print(f"head of the log, to keep elsewhere for --verify --head: {values['head']}")
    return 0
