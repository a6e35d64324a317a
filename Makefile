# Everything a person types here. Targets create .venv themselves and do nothing twice; `make help` lists them.
VENV := .venv
BIN := $(VENV)/bin
# Where torch comes from. Empty: PyPI, whose Linux build brings CUDA (about 3 GB). CPU only (about 200 MB):
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
PYTHON ?= python3
RUN_DIR ?= runs/demo
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

# Where images go and what they are called.
IMAGE_PREFIX ?= docker.io/local/
TAG ?= dev
DOCKER_BUILD ?= docker buildx build --load
CLUSTER_TESTS := tests/integration/apiserver tests/e2e/cluster
NO_CLUSTER = echo "no cluster: set KUBECONFIG (CONTRIBUTING.md says what it must have), or KUBEBUILDER_ASSETS \
  to run the API-server tests alone"; exit 1
# An API server alone runs no pods: the scenarios need a cluster.
HAVE_TESTS = $(if $(KUBECONFIG),$(CLUSTER_TESTS),tests/integration/apiserver)

.PHONY: help demo test azurite test-stores test-cluster test-cluster-all images kind check generate clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z./-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 24

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "$(PYTHON) is older than Python 3.11: \
	  say make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	@touch $@

$(VENV)/.runtime: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) -e '.[operator,trainer]'
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) -e '.[operator,trainer,dev]'
	@touch $@

demo: $(VENV)/.runtime  ## train on Bach chorales, lose two workers on the way, open the report
	OMP_NUM_THREADS=1 $(BIN)/aurl rehearse manifests/examples/demo.yaml --run-dir $(RUN_DIR) \
	  --kill worker-1@step:120 --preempt worker-0@step:260

test: $(VENV)/.dev  ## every test that needs no cluster
	OMP_NUM_THREADS=1 $(BIN)/pytest

azurite: $(VENV)/azurite/node_modules  ## Microsoft's Azurite, for the tests of Azure stores (needs npm)

$(VENV)/azurite/node_modules: $(VENV)/.dev
	npm install --prefix $(VENV)/azurite --no-audit --no-fund --ignore-scripts azurite@3.37.0

test-stores: $(VENV)/.dev  ## the tests of stores, on the servers that the environment names
	@for name in AWS_ENDPOINT_URL STORAGE_EMULATOR_HOST AZURE_STORAGE_CONNECTION_STRING; do \
	  printenv $$name > /dev/null || { echo "name a server of each kind first, as $$name: docs/stores.md"; exit 1; }; \
	done
	AURL_TEST_STORES=given OMP_NUM_THREADS=1 $(BIN)/pytest tests/integration/stores

test-cluster: $(VENV)/.dev  ## API-server tests and the short scenarios, on the cluster of KUBECONFIG
	@test -n "$$KUBECONFIG$$KUBEBUILDER_ASSETS" || { $(NO_CLUSTER); }
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 0 -m "cluster and not slow" $(HAVE_TESTS)

test-cluster-all: $(VENV)/.dev  ## every scenario, on the cluster of KUBECONFIG
	@test -n "$$KUBECONFIG$$KUBEBUILDER_ASSETS" || { $(NO_CLUSTER); }
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 0 -m cluster $(HAVE_TESTS)

images:  ## build both images with Docker: IMAGE_PREFIX, TAG, TORCH_INDEX
	for target in operator trainer; do \
	  $(DOCKER_BUILD) --target $$target -t $(IMAGE_PREFIX)aurl-$$target:$(TAG) \
	    --build-arg TORCH_INDEX=$(TORCH_INDEX) . || exit 1; \
	done

kind: images  ## a cluster on this machine's Docker, with both images
	kind create cluster --name aurl
	kind load docker-image --name aurl $(IMAGE_PREFIX)aurl-operator:$(TAG) $(IMAGE_PREFIX)aurl-trainer:$(TAG)

check: $(VENV)/.dev  ## format, lint, types, walls between rooms, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy operator/aurl_operator trainer/aurl_trainer
	$(BIN)/lint-imports
	$(BIN)/python -m aurl_operator.commands.generate --check

generate: $(VENV)/.dev  ## write the files that come from code
	$(BIN)/python -m aurl_operator.commands.generate

manifests/install.yaml: $(shell find charts -type f)  ## the chart as one file for kubectl (needs helm)
	{ printf '%s\n' '# Written by `make manifests/install.yaml` from charts/; edit it there.' \
	    '# Images are those of `make kind`; put your own in their place.' '---' 'apiVersion: v1' \
	    'kind: Namespace' 'metadata: {name: aurl-system}'; \
	  helm template aurl charts -n aurl-system --skip-tests \
	    --set image.repository=$(IMAGE_PREFIX)aurl-operator --set image.tag=$(TAG) \
	    --set defaultImage=$(IMAGE_PREFIX)aurl-trainer:$(TAG) \
	  | sed -e '/helm.sh\/chart:/d'; } > $@

clean:  ## remove what the targets made, the demo's run included
	rm -rf $(VENV) $(RUN_DIR) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
