# Two commands are all that a newcomer needs: make demo, make test.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
NODE_EXAMPLE := $(if $(shell command -v npm),examples/node/node_modules)
# The tools of the environment come first, so that tests find its redis-server and moto_server.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test test-images chaos lint docs package format schemas benchmark up down locks clean

demo: $(VENV)/.demo ## one job of every namespace through a real fleet on this machine
	$(BIN)/python -m demo

test: $(VENV)/.test $(NODE_EXAMPLE) ## all tests, against a real Redis and a real S3 API
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PYTEST_ARGS)

test-images: $(VENV)/.images ## builds the images and runs the fleet from them; needs Docker or podman, and minutes
	$(BIN)/python -m pytest tests/images $(PYTEST_ARGS)

chaos: $(VENV)/.test ## workers killed, Redis restarted, storage away: no job may be lost, wrong or done twice
	$(BIN)/python -m chaos $(CHAOS_ARGS)

lint: $(VENV)/.lint $(VENV)/.test ## what CI checks besides the tests
	$(BIN)/hadolint docker/*.Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright

docs: $(VENV)/.docs ## the site, into .cache/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

package: $(VENV)/.lint ## source distribution and wheel, into .cache/dist, as an index would take them
	rm -rf .cache/dist
	$(BIN)/uv build --quiet --out-dir .cache/dist
	$(BIN)/twine check --strict .cache/dist/*.tar.gz .cache/dist/*.whl

format: $(VENV)/.lint ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schemas: $(VENV)/.test ## rewrite the contract for other languages after a change of the records
	$(BIN)/python -m omnifleet_shared.json_schema

benchmark: $(VENV)/.test ## the fleet's own cost beside a bare Celery task, and a batch beside a bare group
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/batch.py

# PROFILE=cpu: one worker with a tiny checkpoint. PROFILE=gpu: one worker for each of GPUS, with the real one.
PROFILE ?= cpu
GPUS ?= $(shell nvidia-smi --list-gpus 2>/dev/null | wc -l)
COMPOSE ?= $(shell docker info >/dev/null 2>&1 && echo docker compose || echo podman-compose)
PROFILES = --profile $(PROFILE) $(if $(filter gpu,$(PROFILE)),$(foreach gpu,1 2 3 4 5 6 7,$(shell test $(gpu) -lt $(GPUS) && echo --profile gpu-$(gpu))))
# Podman's own format has no health checks.
up down: export BUILDAH_FORMAT = docker

up: docker/.env ## the whole fleet in containers: make up, make up PROFILE=gpu
	$(COMPOSE) --file docker/compose.yaml $(PROFILES) up --detach $(UP_ARGS)

down: docker/.env ## stop it; what it stored stays in its volumes
	$(COMPOSE) --file docker/compose.yaml --profile cpu --profile gpu $(foreach gpu,1 2 3 4 5 6 7,--profile gpu-$(gpu)) down $(DOWN_ARGS)

docker/.env: docker/.env.example docker/create-env
	test -e $@ || (umask 077 && docker/create-env >$@.new && mv $@.new $@)

locks: $(VENV)/.test ## the libraries of the images, after a change of dependencies
	$(BIN)/uv pip compile --quiet --upgrade --no-header --no-annotate --python-version 3.11 --python-platform linux pyproject.toml --extra flower --extra otel -o docker/producer.lock
	$(BIN)/uv pip compile --quiet --upgrade --no-header --no-annotate --python-version 3.11 --python-platform linux pyproject.toml --extra worker --extra otel -o docker/worker.lock

clean:
	rm -rf $(VENV) .cache demo-output

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

$(VENV)/.%: pyproject.toml $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[$*]'
	touch $@

# Without npm there is nothing to install, and the test of the example is skipped, save in CI.
examples/node/node_modules: examples/node/package-lock.json
	npm ci --prefix examples/node --no-audit --no-fund --silent
	touch $@
