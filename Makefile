# Two commands do all set-up: `make run` and `make test`. Both install into .venv and need Python 3.11+, make and a compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8411
export FREEHOLD_HOME ?= $(CURDIR)/.freehold

.DEFAULT_GOAL := help
.PHONY: help run serve test lint types ci docs smoke-online clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.ready ## Install, show the promise on a real model, then serve until Ctrl-C (EXIT=1: stop after the demo)
	@$(BIN)/freehold demo
ifndef EXIT
	@exec $(BIN)/freehold up --port $(PORT)
endif

serve: $(VENV)/.ready ## Serve this folder's home
	@exec $(BIN)/freehold up --port $(PORT)

test: $(VENV)/.ready-test ## Install and run the default tests
	@env -u FREEHOLD_HOME $(BIN)/python -m pytest -q $(ARGS)

lint: $(VENV)/.ready-lint ## Ruff, import contracts
	@$(BIN)/ruff check && $(BIN)/ruff format --check -q && $(BIN)/lint-imports

types: $(VENV)/.ready-lint ## mypy --strict
	@$(BIN)/mypy

docs: $(VENV)/.ready-test ## Regenerate docs/reference and the README's output
	@$(BIN)/python scripts/reference.py

smoke-online: $(VENV)/.ready-test ## The story against the public hub, where it is reachable
	@env -u FREEHOLD_HOME $(BIN)/python -m pytest -q -m online -o addopts= tests/online

clean: ## Remove the environment and the home of `make run`
	rm -rf $(VENV) .freehold

$(VENV)/.ready: pyproject.toml
	@echo "installing into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[llama]'
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[llama,test]'
	@touch $@

$(VENV)/.ready-lint: $(VENV)/.ready-test
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[llama,test,lint]'
	@touch $@
