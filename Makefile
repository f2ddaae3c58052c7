# Only Python 3.11+ and make are needed; everything else is installed into .venv.
PYTHON ?= python3
# Where torch comes from; for CPU-only wheels: make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.pressroom-installed
COMPOSE := $(shell if docker compose version >/dev/null 2>&1; then echo docker compose; else command -v docker-compose; fi)

.DEFAULT_GOAL := setup
.PHONY: setup demo test test-long lint bench evidence clean

setup: $(STAMP)

# torch first: resolved last, pip would pick the newest one that the other packages allow, then replace it.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pressroom needs Python 3.11 or newer")'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/pressroom demo

test: setup
	$(BIN)/python -m pytest -m "not long" -n 2 --dist loadfile

test-long: setup
	$(BIN)/python -m pytest -m long --timeout 3600

lint: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	PRESSROOM_DATA_DIR=$$(mktemp -d) sh -c '$(BIN)/pressroom migrate && $(BIN)/alembic check'
	$(BIN)/python -m pip check
	$(if $(COMPOSE),$(COMPOSE) config --quiet,@echo 'docker compose is not installed: docker-compose.yml not checked')

bench: setup
	$(BIN)/python -m tests.benchmarks

evidence: setup
	$(BIN)/python -m tests.benchmarks.evidence $(if $(ONLY),--only "$(ONLY)")

clean:
	rm -rf $(VENV) build demo-output .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
