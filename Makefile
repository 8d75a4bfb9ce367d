# Two commands are all that a newcomer needs: make demo, make test.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
NODE := $(if $(shell command -v npm),examples/node/node_modules tests/support/gateway/openai_node/node_modules)
# The tools of the environment come first, so that tests find its redis-server and moto_server.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Libraries that are published as sources alone are built by locked tools too.
export UV_BUILD_CONSTRAINT := $(CURDIR)/locks/build.txt

.PHONY: demo demo-stop demo-checkpoint demo-measure test test-lowest test-images chaos lint docs package format schemas benchmark up down locks clean

# KEEP=1 leaves the fleet up, and says how to use it.
KEEP ?=
demo: $(VENV)/.demo ## one job of every namespace through a real fleet on this machine; KEEP=1 leaves it up
	$(BIN)/python -m demo $(if $(KEEP),--keep)

demo-stop: $(VENV)/.demo ## end the fleet that make demo KEEP=1 left up
	$(BIN)/python -m demo --stop

demo-checkpoint: $(VENV)/.dev ## train a small checkpoint on sounds that are made here, into .cache/demo-training; STEPS=12000
	$(BIN)/python -m demo.training.train $(if $(STEPS),--steps $(STEPS))

demo-measure: $(VENV)/.dev ## what that checkpoint makes of requests that it did not learn
	$(BIN)/python -m demo.training.measure .cache/demo-training/checkpoint

# RETRY=1 runs tests that failed (pytest's status 1, no other) once more, alone: what fails again has failed.
RETRY ?=
test: $(VENV)/.dev $(NODE) ## all tests, against a real Redis and a real S3 API
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PYTEST_ARGS) || (test $$? = 1 -a -n "$(RETRY)" \
		&& $(BIN)/python -m pytest --last-failed --last-failed-no-failures none)

test-lowest: ## the unit and parity tests with the lowest versions that pyproject.toml allows
	$(MAKE) VENV=.venv-lowest .venv-lowest/.lowest
	.venv-lowest/bin/python -m pytest --numprocesses 2 --dist loadfile tests/unit tests/parity $(PYTEST_ARGS)

test-images: $(VENV)/.dev ## builds the images and runs the fleet from them; needs Docker or podman, and minutes
	$(BIN)/python -m pytest tests/images $(PYTEST_ARGS)

chaos: $(VENV)/.dev ## all that can go wrong with a fleet at work: no job may be lost, wrong or done twice
	$(BIN)/python -m chaos $(CHAOS_ARGS)

lint: $(VENV)/.dev ## what CI checks besides the tests
	$(BIN)/hadolint docker/*.Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright

docs: $(VENV)/.docs ## the site, into .cache/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

package: $(VENV)/.dev ## source distribution and wheel, into .cache/dist, as an index would take them
	rm -rf .cache/dist
	$(BIN)/uv build --quiet --out-dir .cache/dist
	$(BIN)/twine check --strict .cache/dist/*.tar.gz .cache/dist/*.whl

format: $(VENV)/.dev ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schemas: $(VENV)/.dev ## rewrite the contract for other languages after a change of the records
	$(BIN)/python -m omnifleet_shared.json_schema

benchmark: $(VENV)/.dev ## the fleet's own cost beside a bare Celery task, and a batch beside a bare group
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/batch.py

# PROFILE=cpu: one worker with the demo's small checkpoint. PROFILE=gpu: one worker for each of GPUS, with the real one.
PROFILE ?= cpu
GPUS ?= $(shell nvidia-smi --list-gpus 2>/dev/null | wc -l)
# Docker's or podman's, whichever is there.
COMPOSE ?=
FIND_COMPOSE = compose="$(COMPOSE)"; test -n "$$compose" || compose=$$(docker/find-compose) || exit 1
PROFILES = --profile $(PROFILE) $(if $(filter gpu,$(PROFILE)),$(foreach gpu,1 2 3 4 5 6 7,$(shell test $(gpu) -lt $(GPUS) && echo --profile gpu-$(gpu))))
# Podman's own format has no health checks.
up down: export BUILDAH_FORMAT = docker

up: docker/.env ## the whole fleet in containers: make up, make up PROFILE=gpu
	@$(FIND_COMPOSE); set -x; $$compose --file docker/compose.yaml $(PROFILES) up --detach $(UP_ARGS)

down: docker/.env ## stop it; what it stored stays in its volumes
	@$(FIND_COMPOSE); set -x; $$compose --file docker/compose.yaml --profile cpu --profile gpu --profile voxcpm2 --profile fish-s2-pro --profile omnivoice --profile transformers --profile recogniser --profile audiosep $(foreach gpu,1 2 3 4 5 6 7,--profile gpu-$(gpu)) down $(DOWN_ARGS)

docker/.env: docker/.env.example docker/create-env
	test -e $@ || (umask 077 && docker/create-env >$@.new && mv $@.new $@)

# Dev holds every extra; the others take its versions. Requirement files, as they name no host, which uv.lock does.
COMPILE := UV_CUSTOM_COMPILE_COMMAND="make locks" $(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes \
	--no-emit-index-url --no-annotate --python-version 3.11
locks: $(BIN)/uv ## renew the versions of everything that is installed here, in CI and in the images
	$(COMPILE) pyproject.toml --all-extras -o locks/dev.txt
	$(COMPILE) --group build -c locks/dev.txt -o locks/build.txt
	$(COMPILE) pyproject.toml --extra docs -c locks/dev.txt -o locks/docs.txt
	$(COMPILE) pyproject.toml --extra demo -c locks/dev.txt -o locks/demo.txt
	$(COMPILE) pyproject.toml --extra flower --extra otel -c locks/dev.txt -o locks/producer.txt
	$(COMPILE) pyproject.toml --extra gateway --extra otel -c locks/dev.txt -o locks/gateway.txt
	$(COMPILE) pyproject.toml --extra worker --extra otel -c locks/dev.txt -o locks/worker.txt
	$(COMPILE) pyproject.toml --extra voxcpm --extra omnivoice --extra otel -c locks/dev.txt -o locks/voices.txt
	$(COMPILE) pyproject.toml --extra test --resolution lowest-direct -o locks/lowest.txt

clean:
	rm -rf $(VENV) .venv-lowest .cache demo-output

$(BIN)/uv: locks/build.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r $<
	touch $@

$(VENV)/.%: locks/%.txt pyproject.toml $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r $<
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

# Without npm there is nothing to install, and the tests that need it are skipped, save in CI.
%/node_modules: %/package-lock.json
	npm ci --prefix $* --no-audit --no-fund --silent
	touch $@
