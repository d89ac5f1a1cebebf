# The chores of the house. A line's `##` comment is its help.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo dev check test bench fault fmt schema lock clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python
LOCKED := $(INSTALL) --require-hashes --only-binary :all: --compile-bytecode
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header

# how this checkout is installed: a change here makes the stamps, and so the installs, stale
TOOLS := $(VENV)/.tools-installed
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed

help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

demo: $(RUNTIME) ## live three months of a small AI business, billed and collected (no setup needed)
	$(BIN)/convergio demo

dev: $(DEV) ## create .venv with the product and the tools, every package pinned by hash

check: $(DEV) ## style, types, import walls, dependencies, migrations
	$(BIN)/ruff format --check src tests
	$(BIN)/ruff check src tests
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry src
	$(BIN)/squawk src/convergio/infra/migrations/versions/*.sql

test: $(DEV) ## unit, property, integration, end-to-end and architecture tests
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(ARGS)

bench: $(RUNTIME) ## measure ingest, authorize, rating and billing against their budgets
	$(BIN)/convergio bench $(ARGS)

fault: $(DEV) ## kill servers and databases under load, then count (minutes)
	$(BIN)/pytest --timeout=1500 tests/fault $(ARGS)

fmt: $(DEV) ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only --quiet src tests
	$(BIN)/ruff format src tests

schema: $(DEV) ## rewrite tests/arch/schema.txt from the migrations
	SCHEMA_SNAPSHOT=write $(BIN)/pytest -q -p no:randomly tests/arch/test_schema.py -k snapshot

lock: $(TOOLS) ## resolve requirements/*.lock again (ARGS=--upgrade for newer releases)
	$(COMPILE) $(ARGS) requirements/bootstrap.in -o requirements/bootstrap.lock
	$(COMPILE) $(ARGS) pyproject.toml --extra embedded -o requirements/runtime.lock
	$(COMPILE) $(ARGS) requirements/dev.in -c requirements/runtime.lock -o requirements/dev.lock
	$(COMPILE) $(ARGS) --no-deps requirements/schemas.in -o requirements/schemas.lock

clean: ## remove .venv and every cache (the data in .convergio stays)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(TOOLS): requirements/bootstrap.lock
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/bootstrap.lock
	@touch $@

$(RUNTIME): $(TOOLS) requirements/runtime.lock pyproject.toml
	$(LOCKED) -r requirements/runtime.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): $(RUNTIME) requirements/dev.lock requirements/schemas.lock
	$(LOCKED) -r requirements/dev.lock
	$(LOCKED) --no-deps -r requirements/schemas.lock
	@touch $@
