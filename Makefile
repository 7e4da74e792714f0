# Everything runs in .venv, which `setup` makes; nothing is installed anywhere else.
PYTHON ?= python3
CONFIG ?= config/sda-daemon.yaml
BIN := .venv/bin
STAMP := .venv/.installed
# Many tests mostly wait (for files to settle, for pauses to end): three processes keep two cores busy, more gain
# next to nothing.
JOBS ?= 3

.PHONY: setup demo run test lint unit docs bench fuzz soak clean
.DEFAULT_GOAL := setup

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "Installing into .venv; the first time this takes a minute."
	@PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: setup
	@$(BIN)/python -m sda_daemon.demo

run: setup
	@mkdir -p data/checkpoints
	@$(BIN)/sda-daemon run --config $(CONFIG)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --config pyproject.toml
	$(BIN)/python tools/check_assignments.py

unit: setup
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test: lint unit

# The reference documents and the annotated config, from the schema, the catalogue of events and the commands' help.
docs: setup
	@$(BIN)/python -m tools.reference

bench: setup
	@$(BIN)/python -m benchmarks

fuzz: setup
	@$(BIN)/python -m benchmarks.fuzz

soak: setup
	@$(BIN)/python -m benchmarks.soak

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
