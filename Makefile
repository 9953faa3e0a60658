# Two commands do everything: `make demo` and `make test`. Both create the environment first.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
# GPU=1 lets pip choose the newest PyTorch (with CUDA); else the tested release is kept.
CONSTRAINT := $(if $(GPU),,-c constraints/cpu.txt)
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all lint types wheel evidence gpu-check clean

demo: $(READY)
	$(BIN)/omnisource demo

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS)

test-all: $(READY)
	$(BIN)/python -m pytest -m ""

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

wheel: $(READY)
	$(BIN)/python tests/wheel.py $(CONSTRAINT)

# Needs the tracks' data: make evidence DATA=FOLDER (it holds tennis/ and home/).
evidence: $(READY)
	$(BIN)/omnisource bench effect --data "$(DATA)"

gpu-check: $(READY)
	$(BIN)/python benchmarks/gpu_check.py

clean:
	rm -rf $(VENV) build dist workspaces demo

$(READY): pyproject.toml constraints/cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "OmniSource needs Python 3.11 or newer; name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(CONSTRAINT) -e '.[dev]'
	@touch $@
