# Every target sets up what it needs in .venv; nothing is installed outside it and root is not needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
# As in CI: one test process a core, and one for those that wait.
WORKERS ?= 3

.PHONY: help demo test test-slow chaos fuzz conformance test-image lint format bench docs lock clean image release audit bump
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "cannot set up .venv: $(PYTHON) is older than 3.11; say which to use: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.python requirements.lock requirements-build.lock pyproject.toml
	$(PIP) install --quiet --require-hashes -r requirements.lock -r requirements-build.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.run ## a whole life of a game server in your terminal, in under 20 s
	$(BIN)/arbitrium-agent demo

test: $(VENV)/.dev ## the fast suite (under 3 minutes)
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not slow and not image" tests

test-slow: $(VENV)/.dev ## the long suites
	$(BIN)/pytest -m "slow and not image" tests

LIVES ?= 1000
RUNS ?= 100
OPERATIONS ?= 10000000
chaos: $(VENV)/.dev ## random lives, a lost agent, operations: the figures of docs/reliability.md (LIVES, RUNS, OPERATIONS)
	CHAOS_LIVES=$(LIVES) OPERATIONS=$(OPERATIONS) ABUSE_SECONDS=5 $(BIN)/pytest -q -m slow tests/chaos
	AGENT_LOSS_RUNS=$(RUNS) $(BIN)/pytest -q -m slow tests/e2e/test_agent_loss.py

INPUTS ?= 100000
fuzz: $(VENV)/.dev ## fuzz each parser, guided by coverage (INPUTS; needs atheris, for CPython 3.11 to 3.13 on Linux)
	@$(PIP) install --quiet atheris
	$(BIN)/python -m tests.chaos.fuzz --inputs $(INPUTS)

conformance: $(VENV)/.dev ## schemathesis over the platform's contract against the running emulator
	$(BIN)/python -m tests.conformance

test-image: $(VENV)/.dev ## build the image and run it on every base image (needs buildah, podman or docker)
	$(BIN)/pytest -m image tests

image: ## build the image with podman, docker or buildah; prints its size, layer and time (EXTRAS=agones: with gRPC)
	@EXTRAS="$(EXTRAS)" $(PYTHON) packaging/image.py

release: $(VENV)/.run ## everything of a tagged version in dist/ (TRIAL=1: of any checkout)
	$(BIN)/python packaging/release.py $(if $(TRIAL),--trial)

audit: $(VENV)/.run ## licences, and known vulnerabilities where the advisories can be reached
	@$(PIP) install --quiet pip-audit
	$(BIN)/python packaging/audit.py

bump: ## move the pinned base image and the interpreter's source package to those of today
	$(PYTHON) packaging/bump.py

lint: $(VENV)/.dev ## ruff and mypy (strict), over tests too
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev ## rewrite the code as ruff would have it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev ## the table of figures
	$(BIN)/python -m benchmarks

docs: $(VENV)/.dev ## write the README's tables from the code
	$(BIN)/python -m docs.tables

lock: $(VENV)/.python ## resolve the dependencies again and lock them with hashes
	$(PIP) install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group build -c requirements.lock -o requirements-build.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group dev -c requirements.lock -c requirements-build.lock pyproject.toml -o requirements-dev.lock
	echo opengsq | $(BIN)/uv pip compile --quiet --no-deps --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -c requirements-dev.lock - -o requirements-query.lock
	printf 'grpclib\nprotobuf\npyyaml\n' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -c requirements-dev.lock - -o requirements-agones.lock

clean: ## remove what the targets made
	rm -rf $(VENV) .build .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
