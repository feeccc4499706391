# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint bench c packages clean

# The demo needs no torch: a minute's installation instead of six gigabytes.
demo: $(VENV)/.demo
	$(BIN)/edge-imprint demo --out demo-out

test: $(VENV)/.dev
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/run_all.py

# The C runtime: libedge_imprint, ei-classify, ei-teach, ei-bench.
c:
	@command -v cmake > /dev/null || \
	  { echo "cmake is missing; on Debian or Ubuntu: apt install cmake gcc make"; exit 1; }
	cmake -S runtime/c -B build/c -DCMAKE_INSTALL_PREFIX=/usr
	cmake --build build/c --parallel

# Debian packages of it, in build/c.
packages: c
	cd build/c && cpack

clean:
	rm -rf $(VENV) demo-out build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "edge-imprint needs Python 3.10 or newer; run: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV) || \
	  { echo "Python's venv module is missing; on Debian or Ubuntu: apt install python3-venv"; exit 1; }

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	@echo "installing what the demo needs (about a minute) ..."
	$(PIP) --editable '.[demo,cpu]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	@echo "installing everything, torch included (about 6 GB, some minutes) ..."
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/.demo
