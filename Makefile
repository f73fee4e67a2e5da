# Two commands do everything on a fresh machine with Python 3.11+ and make:
#   make demo   the main job, end to end, on generated data
#   make test   all tests that need neither Docker, nor a cloud account, nor the Google SDK

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
CHECKOV := build/terraform/checkov/bin/checkov
BEAM := build/beam/bin
BEAM_TESTS := $(addprefix tests/streaming/, test_arrivals.py test_beam_digest.py test_live.py \
    test_pubsub_read.py) \
    tests/services/test_segment_shards.py
COMPILED := --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

.PHONY: help demo serve test explore test-emulators test-slow test-nightly test-exhaustive check check-terraform \
    terraform-schema terraform-data format lock archives audit beam test-beam template clean

help:            ## show the targets
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

demo: $(VENV)/.runtime  ## run the main job on a million generated rows
	@$(BIN)/activation demo $(ARGS)

serve: $(VENV)/.runtime  ## host every function on this machine
	@$(BIN)/activation serve $(ARGS)

test: $(VENV)/.dev  ## run the tests (embedded back-ends and wire-level servers)
	$(BIN)/pytest -n auto $(ARGS)

explore: $(VENV)/.dev  ## let Hypothesis look for new examples, ten times as many; keep what fails
	$(BIN)/pytest -n auto --hypothesis-profile=exploring \
	    -m "hypothesis and not emulator and not slow and not nightly and not exhaustive" $(ARGS)

test-emulators: $(VENV)/.dev  ## run the tests on the Firestore and Pub/Sub emulators
	$(BIN)/pytest -n auto -m "emulator and not nightly" $(ARGS)

test-slow: $(VENV)/.dev  ## run the long tests: kill -9 while it works, archives in fresh environments
	$(BIN)/pytest -n auto -m slow $(ARGS)

test-nightly: $(VENV)/.dev  ## run more of the crash lab (every read, more pairs), and what takes long on the emulators
	$(BIN)/pytest -n auto -m nightly $(ARGS)

test-exhaustive: $(VENV)/.dev  ## run the crash lab in all ways: second crashes, many schedules
	$(BIN)/pytest -n auto -m exhaustive $(ARGS)

check: $(VENV)/.dev  ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

check-terraform: $(VENV)/.dev $(CHECKOV)  ## scan terraform/ with Checkov, in an environment of its own
	$(BIN)/python -m tests.terraform.run_checkov $(CHECKOV)

terraform-schema: $(VENV)/.dev  ## fetch the schema of the Google provider from npm (65 MB)
	$(BIN)/python -m tests.terraform.fetch_schema

terraform-data: $(VENV)/.dev  ## make the files of terraform/ that the code declares
	$(BIN)/python -m tests.terraform.generate

format: $(VENV)/.dev  ## format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(VENV)/.dev  ## resolve the dependencies anew, with hashes
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile $(COMPILED) pyproject.toml -o shared/requirements.txt
	$(BIN)/uv pip compile $(COMPILED) -c shared/requirements.txt pyproject.toml --group dev -o requirements-dev.txt
	$(BIN)/uv pip compile $(COMPILED) pyproject.toml --group beam -o terraform/dataflow/requirements.txt
	$(BIN)/uv pip compile $(COMPILED) -c terraform/dataflow/requirements.txt pyproject.toml --group beam-test \
	    -o requirements-beam.txt

beam: build/beam/.ready  ## install Apache Beam, in an environment of its own (600 MB)

test-beam: build/beam/.ready  ## run the tests of the streaming pipeline, where Apache Beam is
	REQUIRE_BEAM=1 $(BEAM)/pytest $(BEAM_TESTS) $(ARGS)

template: $(VENV)/.dev  ## make the metadata of the streaming job's template from its parameters
	$(BIN)/python -m tests.streaming.make_template

archives:        ## build dist/<function>.zip of every function, as Google Cloud takes them (Python 3.11)
	$(PYTHON) functions/build.py $(ARGS)

audit: $(VENV)/.dev  ## write dist/sbom.json, and look for known vulnerabilities of what is locked
	BIN=$(BIN) .ci/audit $(ARGS)

clean:           ## remove the virtual environment and caches
	rm -rf $(VENV) build/terraform build/beam .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(CHECKOV):
	@echo "Installing Checkov (280 MB) into build/terraform/checkov ..."
	@$(PYTHON) -m venv build/terraform/checkov
	@build/terraform/checkov/bin/pip install --quiet --disable-pip-version-check checkov==3.3.30

build/beam/.ready: requirements-beam.txt pyproject.toml
	@echo "Installing Apache Beam (600 MB) into build/beam ..."
	@$(PYTHON) -m venv build/beam
	@$(BEAM)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-beam.txt
	@$(BEAM)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

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
