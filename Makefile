# Two commands do everything on a fresh machine with Python 3.11+ and make:
#   make demo   the main job, end to end, on generated data
#   make test   all tests that need neither Docker, nor a cloud account, nor the Google SDK

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: help demo serve test test-emulators test-slow test-exhaustive check format lock clean

help:            ## show the targets
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

demo: $(VENV)/.runtime  ## run the main job on a million generated rows
	@$(BIN)/activation demo $(ARGS)

serve: $(VENV)/.runtime  ## host every function on this machine
	@$(BIN)/activation serve $(ARGS)

test: $(VENV)/.dev  ## run the tests (embedded back-ends and wire-level servers)
	$(BIN)/pytest -n auto $(ARGS)

test-emulators: $(VENV)/.dev  ## run the tests on the Firestore and Pub/Sub emulators
	$(BIN)/pytest -m emulator $(ARGS)

test-slow: $(VENV)/.dev  ## run the long tests: kill -9 while it works, more of the crash lab
	$(BIN)/pytest -n auto -m slow $(ARGS)

test-exhaustive: $(VENV)/.dev  ## run the crash lab in all ways: second crashes, many schedules
	$(BIN)/pytest -n auto -m exhaustive $(ARGS)

check: $(VENV)/.dev  ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/.dev  ## format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(VENV)/.dev  ## resolve the dependencies anew, with hashes
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-annotate pyproject.toml -o shared/requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-annotate -c shared/requirements.txt pyproject.toml --group dev -o requirements-dev.txt

clean:           ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/.runtime: shared/requirements.txt pyproject.toml
	@echo "Installing the locked dependencies into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r shared/requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	@echo "Installing the locked test dependencies ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.txt
	@touch $@
