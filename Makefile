# Head AI. `make up` sets up and starts everything; `make test` sets up and runs every test.

PYTHON := .venv/bin/python
# Says where this environment was made; an environment that was moved or lost its Python is made again.
MADE_FOR := $(shell $(PYTHON) -c pass 2>/dev/null && cat .venv/.installed 2>/dev/null)
STALE := $(if $(filter-out x$(subst $() ,_,$(CURDIR)),x$(subst $() ,_,$(MADE_FOR))),again)
PYTEST_ARGS ?=
# The whole suite runs in so many processes, each with servers of its own: it waits more than it computes.
TEST_PROCESSES ?= 2

.PHONY: help install explorer up test check endure chaos fuzz judge static bench schema lock clean again

help:
	@echo 'make up      set up and start everything; Ctrl-C stops it'
	@echo 'make test    set up and run every test'
	@echo 'make check   style, types, layers, contract and the quick tests'
	@echo 'make endure  kill workers and children in the middle of 50 runs (RUNS=n)'
	@echo 'make fuzz    random operations through both executors for an hour (SECONDS=n for each of two parts)'
	@echo 'make judge   let the suites and clients of others judge a running server (JUDGE_ARGS=--help)'
	@echo 'make chaos   kill servers and cut connections under 50 readers of live metrics (FAULTS=n)'
	@echo 'make bench   measure what the README says about speed'
	@echo 'make schema  write schema.graphql as the code has it'
	@echo 'make lock    choose the versions in requirements.lock anew'
	@echo 'make clean   remove the environment and everything built; your data in .headai stays'

install: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml scripts/install $(STALE)
	@scripts/install

explorer: install
	@$(PYTHON) explorer/build.py

up: install explorer
	@exec $(PYTHON) -m headai up

test: install explorer
	@$(PYTHON) -m pytest -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)

static: install
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports
	@$(PYTHON) -m headai schema | diff -u schema.graphql - || { echo 'schema.graphql is not what the code has: make schema'; exit 1; }
	@$(PYTHON) scripts/check_migrations.py

endure: install
	@$(PYTHON) -m pytest -q tests/test_training_disturbed.py --disturbed-runs $(or $(RUNS),50)

fuzz: install
	@$(PYTHON) -m pytest -q tests/plans/test_hostile.py tests/plans/test_real.py -k alike --timeout 0 --fuzz $(or $(SECONDS),1800)

chaos: install
	@$(PYTHON) -m pytest -q tests/metrics/test_history.py --faults $(or $(FAULTS),1000)

check: static
	@$(PYTHON) -m pytest -q -m 'not slow and not page' $(PYTEST_ARGS)

judge: install
	@$(PYTHON) -m judge $(JUDGE_ARGS)

bench: install
	@$(PYTHON) -m benchmarks $(BENCH_ARGS)

schema: install
	@$(PYTHON) -m headai schema > schema.graphql.new && mv schema.graphql.new schema.graphql

lock: install
	@UV_PYTHON_DOWNLOADS=never .venv/bin/uv pip compile --universal --generate-hashes judge/requirements.in \
		-o judge/requirements.lock -q --no-header --upgrade
	@UV_PYTHON_DOWNLOADS=never .venv/bin/uv pip compile --universal --generate-hashes --all-extras --group dev \
		pyproject.toml -o requirements.lock -q --no-header --upgrade

clean:
	@rm -rf .venv build dist explorer/dist explorer/dist.new explorer/node_modules judge/.venv judge/node_modules *.egg-info \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.headai/*' -prune -exec rm -rf {} +
