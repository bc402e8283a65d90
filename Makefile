# Everything from a fresh machine with Python 3.11 or newer:  make demo,  make test
PYTHON ?= python3
BIN = .venv/bin
# torch is pinned in constraints.txt: left free, pip may choose a build that brings several GB of CUDA.
# TORCH_INDEX names an index of builds, such as that of the CPU: https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test check tests faults install clean benchmarks

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unfreeze needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(INSTALL) --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/unfreeze demo

test: check tests

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Trials that kill a run fork their process, which must have no threads: they do not go with the others. They run two
# at a time by themselves.
tests: install
	$(BIN)/python -m pytest tests/faults/test_kill.py
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --ignore=tests/faults/test_kill.py

faults: install
	UNFREEZE_FAULTS=all $(BIN)/python -m pytest tests/faults

benchmarks: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist src/*.egg-info
