# OpenMaaS: `make serve` is all that a first look needs. See README.md.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
PIP := $(PYTHON) -m pip --python $(BIN)/python install --disable-pip-version-check --no-input -q
COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile -q --generate-hashes \
  --strip-extras --allow-unsafe --no-annotate --no-emit-index-url --no-emit-find-links \
  --no-emit-trusted-host
TEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# What to give `openmaas serve`, as in: make serve ARGS="--port 9000"
ARGS ?=

# Programs of Debian packages of the same name: root gets them installed, others are told.
define need
@missing=(); for one in $(1); do command -v $$one >/dev/null || missing+=($$one); done; \
if [ $${#missing[@]} -gt 0 ]; then \
  [ $$(id -u) = 0 ] || { echo "missing: sudo apt-get install $${missing[*]}"; exit 1; }; \
  apt-get update -qq && apt-get install -y -qq "$${missing[@]}" >/dev/null; \
fi
endef

# PostgreSQL for the tests: its programs alone, no cluster of Debian's own.
define need_postgres
@if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && ! command -v initdb >/dev/null; then \
  [ $$(id -u) = 0 ] || { echo "missing: sudo apt-get install postgresql"; exit 1; }; \
  apt-get update -qq && apt-get install -y -qq postgresql-common >/dev/null && \
  echo "create_main_cluster = false" >>/etc/postgresql-common/createcluster.conf && \
  apt-get install -y -qq postgresql >/dev/null; \
fi
endef

.PHONY: help serve install test check format bench bench-tenancy bench-training bench-scarce bench-explain bench-privacy bench-isolation eval-tasks eval-training eval-private-training bench-private-training eval-explain eval-privacy \
  soak-tests soak-kill soak-promises soak-metering soak-isolation soak-flood soak-batches soak-erasure lock clean

help: ## says what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile | expand -t 24

serve: .venv/.base ## from nothing to a served language model on 127.0.0.1:8000
	@$(BIN)/openmaas models pull --starters --deploy
	@$(BIN)/openmaas serve $(ARGS)

install: .venv/.all ## every extra and the development tools

test: .venv/.all ## sets up all that the tests need, then runs those that are soon done
	$(call need,curl)
	$(call need_postgres)
	$(TEST) -m "not slow" $(ARGS)

check: .venv/.all ## lint, format, types, import rule
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.all ## rewrites the code in the house format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv/.all ## every figure of the README, each beside its peer
	$(call need,wrk)
	@for one in prediction embedding language tasks memory; do $(BIN)/python benchmarks/$$one.py; done

bench-tenancy: .venv/.all ## what keys, quotas, fair shares and the ledger cost, beside LiteLLM's proxy
	$(call need,wrk)
	$(call need_postgres)
	@for one in tenancy proxy fairness ledger; do $(BIN)/python benchmarks/$$one.py $(ARGS); done

bench-training: .venv/.all ## jobs beside plain TensorFlow, sessions beside a loop of one's own
	@for one in training sessions; do $(BIN)/python benchmarks/$$one.py $(ARGS); done

bench-scarce: .venv/.all ## a rollout under load, more models than fit, cold starts, batches beside calls
	@for one in rollout residency cold_start batches; do $(BIN)/python benchmarks/$$one.py $(ARGS); done

bench-explain: .venv/.all ## gradients beside predictions, prompts without parts, others beside explanations
	@for one in explain explain_context; do $(BIN)/python benchmarks/$$one.py $(ARGS); done

bench-privacy: .venv/.all ## what hiding personal data costs, in latency and in throughput
	$(call need,wrk)
	@for one in redaction; do $(BIN)/python benchmarks/$$one.py $(ARGS); done

bench-isolation: .venv/.all ## what confinement costs a worker; whether first tokens tell what others asked
	@for one in confinement prefix_timing; do $(BIN)/python benchmarks/$$one.py; done

soak-tests: .venv/.all ## the tests that `make test` leaves out: what is broken on purpose, journeys, long training
	$(call need,curl)
	$(call need_postgres)
	$(TEST) -m slow $(ARGS)

soak-promises: .venv/.all ## load, crashes, hangs and slow clients against what is promised; prints a table
	@$(BIN)/python benchmarks/promises.py --kills 100 $(ARGS)

eval-tasks: .venv/.all ## quality of the language tasks beside baselines; writes docs/quality.md
	@$(BIN)/python benchmarks/eval_tasks.py $(ARGS)

eval-training: .venv/.all ## quality of trained networks beside baselines; writes docs/training-quality.md
	@$(BIN)/python benchmarks/eval_training.py $(ARGS)

eval-private-training: .venv/.all ## what private training costs, and what it hides; writes docs/private-training-quality.md
	@$(BIN)/python benchmarks/eval_private_training.py $(ARGS)

bench-private-training: .venv/.all ## private steps beside ordinary ones
	@$(BIN)/python benchmarks/private_training.py $(ARGS)

eval-explain: .venv/.all ## how far explanations can be trusted; writes docs/explain-quality.md
	@$(BIN)/python benchmarks/eval_explain.py $(ARGS)

eval-privacy: .venv/.all ## how well personal data is found, beside Presidio; writes docs/privacy-quality.md
	@$(BIN)/python benchmarks/eval_privacy.py $(ARGS)

soak-kill: .venv/.all ## the gateway killed a hundred times, on SQLite and on PostgreSQL
	$(call need_postgres)
	@KILLS=100 $(BIN)/python -m pytest tests/faults/test_database_away.py -k killed_again $(ARGS)

soak-metering: .venv/.all ## ten thousand requests, billed exactly, whatever breaks; on both databases
	$(call need_postgres)
	@REQUESTS=10000 $(BIN)/python -m pytest tests/faults/test_metering.py -k billed $(ARGS)

soak-isolation: .venv/.all ## ten thousand requests of tenants beside each other, on every runtime
	@REQUESTS=10000 $(BIN)/python -m pytest tests/faults/test_isolation.py $(ARGS)

soak-flood: .venv/.all ## how long others wait beside a tenant that floods; prints the ratio
	@FLOOD_SECONDS=20 $(BIN)/python -m pytest tests/faults/test_flooding_tenants.py -k twice $(ARGS)

soak-batches: .venv/.all ## batches of two thousand lines, answered and billed once each, whatever dies; on both databases
	$(call need_postgres)
	@BATCH_LINES=2000 BATCH_KILLS=20 $(BIN)/python -m pytest tests/faults/test_batches.py $(ARGS)

soak-erasure: .venv/.all ## erasures killed at every point, and servers under them; on both databases
	$(call need_postgres)
	@ERASURE_KILLS=1000 ERASURE_SERVER_KILLS=20 $(BIN)/python -m pytest tests/faults/test_erasure.py $(ARGS)

lock: .venv/.all ## pins and hashes of everything below pyproject.toml's pins
	$(COMPILE) --all-build-deps --extra dev --extra train --extra tensorflow -o requirements-dev.txt pyproject.toml
	$(COMPILE) --all-build-deps -c requirements-dev.txt -o requirements.txt pyproject.toml

clean: ## removes the environment and all caches; models stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# A Debian without python3-venv can make an environment only without pip; the base brings one.
.venv/.made:
	@echo "Making .venv …"
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; set PYTHON=")'
	@$(PYTHON) -m venv --without-pip .venv
	@touch $@

.venv/.base: .venv/.made requirements.txt pyproject.toml
	@echo "Installing the base, about half a minute …"
	@$(PIP) --require-hashes -r requirements.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q src/openmaas # processes that are confined cannot keep it
	@touch $@

# torch has several builds of one version, so that the converters are pinned but not hashed.
.venv/.all: .venv/.base requirements-dev.txt
	@echo "Installing every extra and the tools, two minutes or so …"
	@$(PIP) --require-hashes -r requirements-dev.txt
	@grep -oE '^[a-z0-9._-]+==[^ ]+' requirements-dev.txt >.venv/pins.txt
	@$(PIP) -c .venv/pins.txt --no-build-isolation -e '.[convert,compare]'
	@touch $@
