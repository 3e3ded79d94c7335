# Needs bash, git, make and Python 3.10 or newer; everything else goes into .venv.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# Where this is set, every process of tests and demo would compile all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

# pip's own progress is hundreds of lines: show each download, and what goes wrong. Compiling every module beforehand would
# cost more than it saves, since only some are ever imported.
define install
	@echo "Installing vimlight into $(VENV); the first time takes a few minutes (PyTorch is large)."
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --no-compile --editable $(1) \
		| sed -une 's/^ *\(Downloading [^ ]*\.whl.*\)/  \1/p' -e 's/^Installing collected.*/  Installing .../p'
endef

.PHONY: help demo demo-full test faults lint docs clean

help:
	@echo "make demo       train a zoo and an adapter, compare them with simpler ways, print the tables"
	@echo "make demo-full  the same with more images, tasks, seeds and methods: takes much longer"
	@echo "make test       run the whole test suite (ARGS='-m \"not slow\"' for the quick part)"
	@echo "make faults     break things many times over, and write docs/reliability.md"
	@echo "make lint       ruff, mypy --strict, import directions, what vimlight new writes"
	@echo "make docs       build the documentation into build/site; warnings are errors"
	@echo "make clean      remove .venv, caches and builds"

demo: $(VENV)/installed
	$(BIN)/vimlight demo $(ARGS)

demo-full: $(VENV)/installed
	$(BIN)/vimlight demo --full --out demo-full $(ARGS)

# Two worker processes with one thread each are faster than one with two.
test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

faults: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/faults -m 'faults or not faults' -o junit_family=xunit1 --junit-xml=build/faults.xml $(ARGS)
	$(BIN)/python -m benchmarks.reliability build/faults.xml

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@rm -rf build/own && for kind in plugin aggregator task source; do $(BIN)/vimlight new $$kind own_$$kind --to build/own >/dev/null; done
	MYPYPATH=build/own $(BIN)/mypy build/own/own

docs: $(VENV)/installed-dev
	$(BIN)/python -m mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "Python 3.10 or newer with venv is needed: make PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(call install,.)
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	$(call install,'.[dev]')
	@touch $@ $(VENV)/installed
