from __future__ import annotations

import importlib
import pkgutil

import pytest

import tests.models
from graphrec.errors import InputError
from graphrec.models import MODELS, resolve
from tests.models.conformance import ModelConformance


def test_every_model_inherits_the_suite() -> None:
    for module in pkgutil.iter_modules(tests.models.__path__):
        importlib.import_module(f"tests.models.{module.name}")
    cases = ModelConformance.__subclasses__()
    for case in cases:  # grows as it is read: a subclass may have subclasses of its own
        cases += case.__subclasses__()
    tested = {case.model_class for case in cases if hasattr(case, "model_class")}
    assert set(MODELS.values()) == {model for model in tested if model.__module__.startswith("graphrec.")}


def test_names_are_found_whatever_their_case() -> None:
    assert resolve("lightgcn") is MODELS["LightGCN"]
    assert resolve("Item-KNN") is MODELS["ItemKNN"]


def test_an_unknown_name_shows_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean 'LightGCN'"):
        resolve("LightGCM")
