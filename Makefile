PYTHON ?= python3
.DEFAULT_GOAL := help
.PHONY: help install test test-slow test-gpu lint format demo bench ci

help:       ## this list
	@grep -E '^[a-z-]+: +##' $(MAKEFILE_LIST) | sed 's/: *## */\t/' | expand -t 12

install:    ## the project, editable, with what its tests need
	$(PYTHON) -m pip install -c .ci/known-good.txt -e ".[test]"

test:       ## the quick tests, offline
	HF_HUB_OFFLINE=1 $(PYTHON) -m pytest

test-slow:  ## the tests that take minutes
	HF_HUB_OFFLINE=1 $(PYTHON) -m pytest -m slow

test-gpu:   ## the tests that need a CUDA device
	HF_HUB_OFFLINE=1 $(PYTHON) -m pytest -m gpu

lint:       ## style and formatting, as .ci/run checks them
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format:     ## rewrite to the house's formatting
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

demo:       ## render a world, train a tiny model on it, score it
	$(PYTHON) -m gve demo

# those that need a trained model or a device are started by hand
BY_HAND := %/common.py %/consistency.py %/decontamination.py %/gpu.py

bench:      ## every benchmark that needs no model, one question each
	@set -e; for script in $(sort $(filter-out $(BY_HAND),$(wildcard tests/bench/*.py))); do echo "== $$script"; $(PYTHON) $$script; done

ci:         ## what is run before a change is taken: .ci/run
	.ci/run
