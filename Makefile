# Everything that a fresh machine needs to run and to test the project; each target does its own set-up.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
MAKEFLAGS += --no-print-directory

UV_VERSION := 0.13.9
PYTHON ?= python3
PORT ?= 8080
# On two cores; some of the tests wait most of the time.
WORKERS ?= 3
UV := $(CURDIR)/.tools/uv/bin/uv
BIN := $(CURDIR)/.venv/bin
export PYTHONPATH := $(CURDIR):$(CURDIR)/include:$(CURDIR)/plugins
# uv takes Python from the machine, never from the network.
export UV_PYTHON_DOWNLOADS := never

# A company's TLS proxy is trusted as the system trusts it, or as whoever calls says (SSL_CERT_FILE); uv, pip and Node would
# bring lists of their own.
SYSTEM_CERTS := $(shell $(PYTHON) -c 'import os, ssl; \
  found = [ssl.get_default_verify_paths().cafile, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"]; \
  print(next((each for each in found if each and os.path.exists(each)), ""))' 2>/dev/null)
ifneq ($(SYSTEM_CERTS),)
export UV_SYSTEM_CERTS ?= true
export PIP_CERT ?= $(SYSTEM_CERTS)
export NODE_EXTRA_CA_CERTS ?= $(SYSTEM_CERTS)
endif

# $(1): the file that lists Debian packages; installs what is missing, as root only.
define packages
missing=""
for package in $$(cat $(1)); do
  dpkg-query -W -f='$${Status}' "$$package" 2>/dev/null | grep -q 'install ok installed' || missing="$$missing $$package"
done
if [ -n "$$missing" ]; then
  if ! command -v apt-get >/dev/null; then echo "Please install what Debian calls:$$missing"; exit 1; fi
  if [ "$$(id -u)" != 0 ]; then echo "Please run: sudo apt-get install$$missing"; exit 1; fi
  echo "Installing system packages:$$missing"
  apt-get -qq update >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing >/dev/null
fi
endef

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(UV):
	@echo "Getting uv $(UV_VERSION)"
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || {
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	    apt-get -qq update >/dev/null
	    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3 python3-venv >/dev/null
	  else
	    echo "Please install Python with its venv module (Debian: python3-venv)"; exit 1
	  fi
	}
	$(PYTHON) -m venv --clear .tools/uv
	.tools/uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# The stamps stand in .venv, so that whoever removes it gets it again.
.venv/.runtime: $(UV) locks/runtime.txt packages.txt
	@$(call packages,packages.txt)
	echo "Installing the locked Python packages into .venv"
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r locks/runtime.txt
	touch $@

.venv/.development: .venv/.runtime locks/development.txt packages-test.txt
	@$(call packages,packages-test.txt)
	echo "Installing what development and tests need besides"
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes locks/development.txt
	touch $@

.PHONY: setup
setup: .venv/.development ## install all that development and tests need

.PHONY: demo
demo: .venv/.runtime ## rebuild the example application's tables on SQLite, without a server
	@$(BIN)/python -m include.universal.demo

.PHONY: test
test: .venv/.development lint ## lint, and tests on servers that they start themselves, of MySQL and MariaDB most cases on one: about 18 minutes (WORKERS=3)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

.PHONY: test-fast
test-fast: .venv/.development ## run the tests that need no server and no Airflow of their own: Python and SQLite, 2 to 4 minutes
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not (postgres or mariadb or mysql or airflow or browser or slow)"

.PHONY: test-fidelity
test-fidelity: .venv/.development ## the schema after 20 rebuilds in a row under clients, on every database
	@REBUILD_TEST_FIDELITY_REBUILDS=20 REBUILD_TEST_EVERY_STATEMENT=1 $(BIN)/python -m pytest tests/engine -k "schema_is_the_same or names_do_not_drift"

.PHONY: test-every-statement
test-every-statement: .venv/.development ## fail each statement of a run by every fault, every case on every database (hours)
	@REBUILD_TEST_EVERY_STATEMENT=1 $(BIN)/python -m pytest tests/engine tests/universal tests/test_proof.py

.PHONY: lint
lint: .venv/.development ## check style, types, and which package imports which
	@$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

.PHONY: docs
docs: .venv/.development ## build the site of docs/ into .site, with search; a broken link is an error
	@$(BIN)/python -m tools.spec_reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	echo "Open .site/index.html, or see changes at once with: .venv/bin/mkdocs serve"

.PHONY: pictures
pictures: .venv/.development ## take the docs' pictures of Airflow's UI anew, in a browser (10 minutes)
	@$(BIN)/python -m tools.pictures

.PHONY: prove
prove: .venv/.development ## clients of every contract at work through 20 rebuilds per database, some killed (ARGS="--engine mysql")
	@$(BIN)/python -m tools.prove $(ARGS)

.PHONY: bench
bench: .venv/.development ## measure replays against SQL by hand, the databases' limits and peers (ARGS="--events 100000 --rounds 1")
	@$(BIN)/python -m benchmarks $(or $(ARGS),--into docs)

.PHONY: up
up: .venv/.runtime ## start Airflow with its UI on the demo (PORT=8080)
	@$(BIN)/python -m include.universal.demo --prepare-only
	$(BIN)/python -m tools.airflow_up --port $(PORT)

.PHONY: hooks
hooks: .venv/.development ## let git check style, types, prose and the subject at each commit
	@$(BIN)/pre-commit install

.PHONY: lock
lock: $(UV) ## lock anew after a change of pyproject.toml; what need not move stays
	@lock="$(UV) pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11"
	project="pyproject.toml --all-extras"
	$$lock $$project --group deployment -o locks/runtime.txt
	$$lock $$project --group deployment --group dev -c locks/runtime.txt -o locks/development.txt
	$$lock $$project --group oldest --resolution lowest-direct -o locks/oldest.txt
	$$lock --group build -o locks/build.txt

.PHONY: dist
dist: $(UV) ## build the wheel and the sdist of the version in pyproject.toml, into dist
	@rm -rf dist
	$(UV) build --quiet --build-constraints locks/build.txt --require-hashes --out-dir dist
	ls -1 dist

.PHONY: clean
clean: ## remove what the demo, Airflow, the site and the distribution have made
	@rm -rf .demo .airflow .site dist
