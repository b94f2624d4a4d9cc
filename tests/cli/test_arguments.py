from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.cli.arguments import Parser, as_words, read_yaml, take
from graphrec.cli.output import plain, table
from graphrec.cli.recipe import flat, read_recipe
from graphrec.cli.train import parser as train_parser
from graphrec.errors import InputError, MissingFileError
from graphrec.models import LightGCN
from graphrec.models.base import Preset


def parser() -> Parser:
    shape = Parser("try", "[options]", "A command.", lists=("--ks",))
    shape.add_argument("--ks", type=tuple[int, ...], default=(10, 20), help="lengths")
    shape.add_argument("--users", nargs="+", type=str, default=None, help="ids")
    shape.add_argument("--init_from", type=str | None, default=None, help="where ``it`` starts")
    shape.add_argument("--share", type=float, default=0.5, help="a share")
    shape.add_argument("--limit", type=float | None, default=None, help="a limit")
    shape.add_argument("--word", type=Literal["32", "bf16"], default="32", help="a word")
    shape.add_argument("--part", type=Literal["valid", "test"] | None, default="valid", help="a part")
    shape.add_argument("--scaling", type=Literal["none", "platt"] | None, default=None, help="a scaling")
    shape.add_argument("--json", action="store_true", help="print JSON")
    return shape.polish()


def test_options_of_several_words_and_both_spellings() -> None:
    options = parser().parse(["--ks", "5", "10", "--users", "7", "u,8", "--init_from", "a", "--json"])
    assert options.ks == (5, 10) and options.users == ["7", "u,8"] and options.init_from == "a" and options.json
    options = parser().parse(["--ks=[1, 2]", "--init-from=b", "--word=32", "--share", "1e-3"])
    assert options.ks == (1, 2) and options.init_from == "b" and options.word == "32" and options.share == 0.001
    assert parser().parse([]).ks == (10, 20)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kss", "5"], "unknown option of graphrec try '--kss'. Did you mean '--ks'?"),
        (["--ks"], "--ks: at least one value is expected after it"),
        (["--ks", "x"], "--ks: expected"),
        (["--share", "much"], "--share: expected float, got much"),
        (["--word", "16"], "--word: expected one of 32, bf16, got 16"),
        (["--limit", "much"], "--limit: expected float or none, got much"),
        (["--part", "vlid"], "--part: expected one of valid, test or none, got vlid"),
        (["stray"], "unrecognized arguments: stray"),
        (["--share"], "--share: expected one argument"),
    ],
)
def test_wrong_words_are_refused_by_name(words: list[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        parser().parse(words)
    assert message in str(error.value)


def test_help_shows_type_and_default_of_every_option() -> None:
    text = parser().format_help()
    for piece in (
        "--ks VALUE …",
        "--init-from",
        "where it starts",
        "type: float, default: 0.5",
        "default: none",
        "(one of valid, test; default: valid)",
        "(type: one or more int, default: 10, 20)",
        "--json",
    ):
        assert piece in text
    for jargon in ("null", "--ks+", "Literal", "Optional", "tuple", " ,"):
        assert jargon not in text


def test_none_is_typed_as_the_help_writes_it() -> None:
    options = parser().parse(["--limit", "none", "--init-from=None", "--part", "none", "--scaling", "none"])
    assert options.limit is None and options.init_from is None and options.part is None
    assert options.scaling == "none"
    with pytest.raises(InputError, match="--share: expected float, got none"):
        parser().parse(["--share", "none"])


def test_take_gives_the_last_value() -> None:
    assert take(["--a", "1", "--b", "2", "--a=3"], "--a") == ("3", ["--b", "2"])
    assert take(["--b"], "--a") == (None, ["--b"])
    with pytest.raises(InputError, match="a value is expected"):
        take(["--a"], "--a")


def test_yaml_files(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    with pytest.raises(MissingFileError, match="no such file"):
        read_yaml(str(file))
    for content in ("- 1\n- 2\n", "a: [1", "!!python/object/apply:os.getcwd []\n", "1: 2\n", ""):
        file.write_text(content)
        with pytest.raises(InputError, match=r"c\.yaml"):
            read_yaml(str(file))
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not readable"):
        read_yaml(str(file))


def test_a_runs_config_becomes_options() -> None:
    config = {
        "model": "LightGCN",
        "hparams": {"dim": 8, "seed": 1},
        "dataset": {"source": "x.csv", "name": "x", "columns": {"user": "u"}, "seed": 5, "fingerprint": "f"},
        "fit": {"epochs": 3, "ks": [5]},
        "seed": 1,
        "status": "finished",
        "selected_on": "valid",
    }
    options = flat(config, "c.yaml")
    assert options.pop("model") == "LightGCN" and options.pop("fingerprint") == "f"
    assert as_words(options) == [
        "--model.dim=8",
        "--model.seed=1",
        "--dataset=x.csv",
        "--columns=user=u",
        "--split_seed=5",
        "--epochs=3",
        "--ks=[5]",
        "--seed=1",
    ]
    by_hand = flat({"model": {"name": "EASE", "reg": 5}, "dataset": "gowalla", "init-from": "r"}, "c.yaml")
    assert by_hand == {"model": "EASE", "model.reg": 5, "dataset": "gowalla", "init_from": "r"}
    with pytest.raises(InputError, match="given in memory"):
        flat({"dataset": {"name": "x", "fingerprint": "f"}}, "c.yaml")
    with pytest.raises(InputError, match="fit: a mapping"):
        flat({"fit": 3}, "c.yaml")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(min_size=1, max_size=8).filter(lambda text: not text.startswith(("-", "["))), min_size=1))
def test_raw_ids_of_any_letters_arrive_unchanged(ids: list[str]) -> None:
    assert parser().parse(["--users", *ids]).users == ids


def test_tables_and_json_values() -> None:
    assert table(["a", "n"], [["x", 1.5], ["yy", 10]], ["n"]) == "a        n\nx   1.5000\nyy      10"
    assert plain({"a": float("nan"), "b": [1, float("inf")]}) == {"a": None, "b": [1, None]}


def test_typed_options_win_over_the_file_and_the_file_over_the_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = Preset(model={"dim": 16, "lr": 0.01}, fit={"epochs": 7, "schedule": "cosine"})
    monkeypatch.setattr(LightGCN, "presets", {"quick": preset})
    file = tmp_path / "c.yaml"
    file.write_text(
        "model: lightgcn\npreset: quick\ndataset: gowalla\nepochs: 5\nmodel.lr: 0.02\nks: [5, 10]\nseed: 9\n"
    )
    found = read_recipe(["--config", str(file), "--model.lr", "0.5"])
    assert found.model is LightGCN
    options = train_parser(LightGCN).parse(found.words)
    assert options.model.dim == 16 and options.model.lr == 0.5 and options.model.seed == 9
    assert options.epochs == 5 and options.schedule == "cosine" and options.ks == (5, 10) and options.seed == 9
    with pytest.raises(InputError, match=r"unknown preset of LightGCN 'qiuck'. Did you mean 'quick'"):
        read_recipe(["--model", "LightGCN", "--preset", "qiuck"])
    with pytest.raises(InputError, match="--model NAME is needed"):
        read_recipe(["--preset", "quick"])
    seeded = read_recipe(["--model", "LightGCN", "--seed", "4", "--model.seed", "2"])
    assert train_parser(LightGCN).parse(seeded.words).model.seed == 2


def test_hyper_parameters_of_another_model_in_the_file_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("model: LightGCN\nhparams: {dim: 8}\ndataset: {source: x, fingerprint: f}\nfit: {}\n")
    found = read_recipe(["--config", str(file), "--model", "Popularity"])
    assert found.words == ["--dataset=x"] and found.fingerprint == "f"
    assert read_recipe(["--config", str(file), "--dataset", "y"]).fingerprint is None
