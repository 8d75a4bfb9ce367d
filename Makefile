# Two commands are all that a newcomer needs: make demo, make test.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
NODE_EXAMPLE := $(if $(shell command -v npm),examples/node/node_modules)
# The tools of the environment come first, so that tests find its redis-server and moto_server.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test chaos lint format schemas benchmark clean

demo: $(VENV)/.demo ## one job of every namespace through a real fleet on this machine
	$(BIN)/python -m demo

test: $(VENV)/.test $(NODE_EXAMPLE) ## all tests, against a real Redis and a real S3 API
	$(BIN)/python -m pytest $(PYTEST_ARGS)

chaos: $(VENV)/.test ## workers killed, Redis restarted, storage away: no job may be lost, wrong or done twice
	$(BIN)/python -m chaos $(CHAOS_ARGS)

lint: $(VENV)/.lint $(VENV)/.test ## what CI checks besides the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright

format: $(VENV)/.lint ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schemas: $(VENV)/.test ## rewrite the contract for other languages after a change of the records
	$(BIN)/python -m omnifleet_shared.schemas

benchmark: $(VENV)/.test ## the fleet's own cost beside a bare Celery task, and a batch beside a bare group
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/batch.py

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
