# Everything starts here:  make test
#
#   make test       set up .venv (once), lint, type-check and test
#   make test-long  the same tests with the longer sweeps
#   make fuzz       look for inputs that hurt, FUZZ_SECONDS for each target
#   make lint       ruff and mypy only            make fix      format and repair what ruff can
#   make docs       build the documentation       make package  build the sdist and the wheel into dist/
#   make demo       a guided tour, offline        make bench    measure, and compare with borg, restic and casync
#   make clean      remove all of it
#
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
READY := $(VENV)/ready-$(VERSION)
# Two tests at once for each processor: many of them wait, for a disk to sync or for another process.
PYTEST_ARGS ?= -n $(shell expr 2 \* $$(nproc)) --dist worksteal
# The tests start thousands of processes: none shall compile again what another one has compiled.
unexport PYTHONDONTWRITEBYTECODE

# Seconds for each target; FUZZ_ARGS="tar map" are some of them.
FUZZ_SECONDS ?= 60

.PHONY: test test-long fuzz lint fix docs demo bench package clean

test: lint
	$(BIN)/pytest $(PYTEST_ARGS)

test-long: lint
	$(BIN)/pytest --long $(PYTEST_ARGS)

fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The demo installs nothing but Python packages: what the tests need besides is large.
demo: $(or $(wildcard $(READY)),$(VENV)/demo-$(VERSION))
	PATH="$(abspath $(BIN)):$$PATH" ./demo.sh

bench: $(READY)
	.ci/install-peers.sh bench
	$(BIN)/python -m tests.benchmarks.run --out docs/benchmarks $(BENCH_ARGS)

package: $(READY)
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) .cache/fuzz .cache/microsandbox .cache/verifiers .cache/browser build dist site demo-work .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find casstore tests docs -name __pycache__ -prune -exec rm -rf {} +

define CHECK_PYTHON
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
  { echo "casstore needs Python 3.11 or newer, and '$(PYTHON)' is '$(VERSION)': try make PYTHON=python3.12" >&2; exit 1; }
endef

# The stamp carries the interpreter's version, so that another PYTHON makes a new environment.
$(READY): pyproject.toml .ci/install-peers.sh .ci/install-microsandbox.sh .ci/install-node-packages.sh
	$(CHECK_PYTHON)
	PYTHON=$(PYTHON) .ci/install-peers.sh test
	PYTHON=$(PYTHON) .ci/install-microsandbox.sh
	.ci/install-node-packages.sh
	$(PYTHON) -m venv $(if $(wildcard $(READY)),,--clear) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,fuzz]'
	@touch $@

$(VENV)/demo-$(VERSION): pyproject.toml .ci/install-peers.sh
	$(CHECK_PYTHON)
	PYTHON=$(PYTHON) .ci/install-peers.sh demo
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . hypothesis
	@touch $@

$(READY)-docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@
