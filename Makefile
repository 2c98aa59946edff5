# Two commands do everything on a fresh Debian as root: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
SCOPE := host
BIN := $(VENV)/bin

.PHONY: help install demo test lint unit lab-test bench clean

help:
	@echo "make demo      a private Tor network on this machine, and what a protected host lets out;"
	@echo "               make demo SCOPE=lan (user, onion, all) shows others that can be routed"
	@echo "make test      linters, types and every test"
	@echo "make install   only what the two need: Debian packages and $(VENV)"
	@echo "make lint      ruff and mypy"
	@echo "make unit      the tests that need no root"
	@echo "make lab-test  the tests on the private Tor network"
	@echo "make bench     how quickly commands start and \`up\` blocks, and how the rules scale"

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml tools/constraints.txt tools/install-dependencies
	tools/install-dependencies
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint tools/constraints.txt --editable '.[dev]'
	$(BIN)/python -m compileall -q src
	touch $@

demo: install
	$(BIN)/onionward lab demo --scope $(SCOPE)

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

unit: install
	$(BIN)/pytest tests/unit

lab-test: install
	$(BIN)/pytest tests/lab

bench: install
	$(BIN)/python -m compileall -q src
	$(BIN)/python tests/benchmark_start.py
	PYTHONPATH=. $(BIN)/python tests/benchmark_up.py
	PYTHONPATH=. $(BIN)/python tests/benchmark_scale.py

# side by side: most tests wait for Tor and not for a processor
test: lint
	$(BIN)/pytest -n 3 --dist loadfile

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -prune -exec rm -rf {} +
