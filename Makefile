# Everything a person types here. Targets create .venv themselves and do nothing twice; `make help` lists them.
VENV := .venv
BIN := $(VENV)/bin
# Where torch comes from. Empty: PyPI, whose Linux build brings CUDA (about 3 GB). CPU only (about 200 MB):
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
PYTHON ?= python3
RUN_DIR ?= runs/demo
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test check generate clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(VENV)/.torch:
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

check: $(VENV)/.dev  ## format, lint, types, walls between rooms, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy operator/aurl_operator trainer/aurl_trainer
	$(BIN)/lint-imports
	$(BIN)/python -m aurl_operator.commands.generate --check

generate: $(VENV)/.dev  ## write the files that come from code
	$(BIN)/python -m aurl_operator.commands.generate

clean:  ## remove what the targets made, the demo's run included
	rm -rf $(VENV) $(RUN_DIR) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
