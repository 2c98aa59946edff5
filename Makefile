# Two commands do everything on a fresh Debian as root: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
SCOPE := host
SWEEP := 1
BACKEND :=
BIN := $(VENV)/bin

.PHONY: help install demo test report deb lint unit lab-test bench clean

help:
	@echo "make demo      a private Tor network on this machine, and what a protected host lets out;"
	@echo "               make demo SCOPE=lan (user, onion, app, all) shows others that can be routed"
	@echo "make test      linters, types and every test"
	@echo "make report    every fault that is known, all of them: what was tried, what left in clear,"
	@echo "               what was restored; more than an hour; written to build/report.md;"
	@echo "               make report SWEEP=8 tries only every eighth; BACKEND=iptables-nft (or"
	@echo "               iptables-legacy) has leaks and deaths tried with that filter instead"
	@echo "make deb       the Debian package: build/onionward_VERSION_all.deb"
	@echo "make install   only what the two need: Debian packages and $(VENV)"
	@echo "make lint      ruff and mypy"
	@echo "make unit      the tests that need no root"
	@echo "make lab-test  the tests on the private Tor network"
	@echo "make bench     how quickly commands and applications start, what \`up\` and rules cost"

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml tools/constraints.txt tools/install-dependencies
	tools/install-dependencies
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint tools/constraints.txt --editable '.[dev]'
	$(BIN)/python -m compileall -q src
	touch $@

demo: install
	$(BIN)/onionward lab demo --scope $(SCOPE)

deb:
	tools/install-dependencies deb
	tools/build-deb build

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
	PYTHONPATH=. $(BIN)/python tests/benchmark_app.py
	PYTHONPATH=. $(BIN)/python tests/benchmark_scale.py
	PYTHONPATH=. $(BIN)/python tests/benchmark_run_rootless.py

# what measures time has the machine for itself; the others go side by side, for most wait for Tor
# and not for a processor, and those that take long begin first
MEASURING := tests/cli tests/lab/test_speed.py tests/lab/test_app_rootless_speed.py tests/lab/test_demo.py
test: lint
	tools/install-dependencies deb
	$(BIN)/pytest $(MEASURING) || $(AGAIN) $(MEASURING)
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder $(addprefix --ignore=,$(MEASURING)) \
		$(OTHERS) || $(AGAIN) $(OTHERS)

OTHERS := tests/machines tests/lab tests/kernel tests/golden tests/pf tests/unit
# what fails beside others on a busy machine must hold when it has the machine for itself; the first
# failure stays to be read above
AGAIN = $(BIN)/pytest --last-failed --last-failed-no-failures none

# what knows of other filters than the machine's own choice
OF_FILTERS := $(wildcard tests/lab/test_leaks_*.py) tests/lab/test_scopes_combined.py \
	tests/lab/test_app_leaks.py \
	tests/lab/test_crash.py tests/lab/test_crash_scopes_reload.py

# a sweep is one test and takes long; which files belong to it says tests/report.py
report: install
	tools/install-dependencies deb
	ONIONWARD_SWEEP=$(SWEEP) ONIONWARD_TEST_BACKEND=$(BACKEND) $(BIN)/pytest -n 4 --dist loadfile \
		--timeout 3000 --report build/$(BACKEND) $(if $(BACKEND),$(OF_FILTERS))

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -prune -exec rm -rf {} +
