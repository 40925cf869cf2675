# `make demo` and `make test` set up all they need; a rerun skips what is already there.
#
# PYTHON  the interpreter to use   (default: the first of python3, python3.14 ... that is >= 3.11)
# PORT    where `make demo` serves (default: 8000)
# ONLY, SERVERS, QUICK=1  what `make bench` measures: docs/benchmarks.md (default: everything)
# SECONDS_  how long `make fuzz` goes on (default: 600)

SECONDS_ ?= 600
PORT ?= 8000
VENV := .venv
FUZZ := .venv-fuzz
BENCH := .venv-bench
BIN := $(VENV)/bin
PYTHONS := $(if $(PYTHON),$(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)
LIVE := examples/live

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test conformance fuzz lint format docs memory bench build clean

help: ## say what can be made
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.demo ## serve examples/live with two workers, on port 8000 or PORT=...
	@$(BIN)/python $(LIVE)/manage.py migrate --verbosity 0
	@echo "Open http://127.0.0.1:$(PORT)/ (stop with Ctrl-C)"
	@exec $(BIN)/daphne-supervisor --app-dir $(LIVE) --workers 2 \
		--bind 127.0.0.1 --port $(PORT) live.asgi:application

# Three at a time, also on two processors: tests wait more than they work.
test: ## everything CI checks: linters, types, tests
	@.ci/packages
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

conformance: $(VENV)/.dev ## both corpora, all of the Autobahn suite, chaos, deadlocks: many minutes
	$(BIN)/python -m pytest tests/conformance tests/integration/test_chaos.py \
		tests/integration/test_deadlocks.py tests/integration/test_recycling.py \
		tests/integration/test_threads_database.py -m '' -s

fuzz: $(FUZZ)/.made ## fuzz the codecs for SECONDS_=600, all of them or TARGETS="http1 ..."
	@$(FUZZ)/bin/python -m tests.fuzz.run --seconds $(SECONDS_) $(TARGETS)

lint: $(VENV)/.dev ## style and types only
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict daphne_supervisor tests/support tests/fuzz benchmarks

format: $(VENV)/.dev ## let ruff put the code in order
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.dev ## make the generated tables of the documents anew
	PYTHONPATH=. $(BIN)/python docs/tables.py

memory: $(VENV)/.dev ## measure what a worker takes, beside other servers
	$(BIN)/python benchmarks/memory.py

bench: $(BENCH)/.made ## measure the speed, beside other servers: a quarter of an hour, or QUICK=1
	@.ci/packages h2load:nghttp2-client
	@PYTHONPATH=. $(BENCH)/bin/python -m benchmarks \
		$(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(if $(SERVERS),--servers $(SERVERS))

build: $(VENV)/.dev ## wheel and sdist, in dist/
	$(BIN)/python -m build

clean: ## remove the environment and whatever was built
	rm -rf $(VENV) $(FUZZ) $(BENCH) .fuzz build dist *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment. Each stamp is younger than what it was made from, so a changed pyproject.toml
# installs again and nothing else does. The package is installed editable: the code of this folder runs.

$(VENV)/.made:
	@for python in $(PYTHONS); do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		"$$python" -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "make: $$python has no venv module: install it first (Debian: apt-get install python3-venv)" >&2; \
			exit 1; }; \
		echo "Creating $(VENV) with $$("$$python" --version) ..."; \
		"$$python" -m venv --clear $(VENV) || exit 1; \
		$(BIN)/python -m pip install -qq --upgrade 'pip>=25.1' || exit 1; \
		touch $@; exit 0; \
	done; \
	echo "make: no Python >= 3.11 among: $(PYTHONS); name one with PYTHON=..." >&2; exit 1

# The fuzzer is large, and for Linux only: nothing else needs it.
$(FUZZ)/.made: $(VENV)/.made pyproject.toml
	@echo "Installing daphne-supervisor and the fuzzer into $(FUZZ) ..."
	@$(BIN)/python -m venv --clear $(FUZZ)
	@$(FUZZ)/bin/python -m pip install -qq --upgrade 'pip>=25.1'
	@$(FUZZ)/bin/python -m pip install -qq --editable . --group fuzz
	@touch $@

# The peers' current releases, whatever they need: nothing else shares it.
$(BENCH)/.made: $(VENV)/.made pyproject.toml
	@echo "Installing daphne-supervisor and its peers into $(BENCH) ..."
	@$(BIN)/python -m venv --clear $(BENCH)
	@$(BENCH)/bin/python -m pip install -qq --upgrade 'pip>=25.1'
	@$(BENCH)/bin/python -m pip install -qq --editable . --group bench
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	@echo "Installing daphne-supervisor and the example's packages into $(VENV) ..."
	@$(BIN)/python -m pip install -qq --editable . --group demo
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	@echo "Installing daphne-supervisor and the development tools into $(VENV) ..."
	@$(BIN)/python -m pip install -qq --editable . --group dev
	@touch $@
