# make demo    a trained graph recommender, its evaluation beside baselines, and recommendations, from nothing
# make test    ruff, mypy and the whole test suite
PYTHON  ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV    ?= .venv
BIN     := $(VENV)/bin
DATASET ?= world
ROOT    ?=
OUT     ?= runs/demo

.PHONY: demo test lint clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/.all: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e '.[all]'
	touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	$(BIN)/python experiments/demo.py --dataset $(DATASET) $(if $(ROOT),--root $(ROOT)) --out $(OUT)

lint: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadscope

clean:
	rm -rf $(VENV) build dist runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
