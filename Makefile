# `make demo` and `make test` need Python 3.11 or newer, make and a package index; nothing else.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Dozens of processes import the same modules: without their bytecode each would compile them anew.
unexport PYTHONDONTWRITEBYTECODE

# The first interpreter that runs and is new enough; `make PYTHON=python3.12 ...` chooses another.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$python && break; done)
VENV_PYTHON := .venv/bin/python

.PHONY: help demo test integration test-all environments bounds nightly mutation docs docs-serve notebooks vllm llama-cpp milvus chromium openvino onnx \
	bench bench-table bench-load lint format release-check clean venv

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: venv ## retrieve, rerank and answer through both frameworks, offline
	@$(VENV_PYTHON) examples/demo.py

PYTEST := $(VENV_PYTHON) -m pytest -n auto --maxprocesses 4 --dist loadfile

test: venv ## run the tests that start no process, server, browser, notebook or Ray
	@$(PYTEST) -m "not (integration or hub or nightly)"

# Those with vLLM last: its four servers need the memory and the processors.
integration: venv ## run the tests that `make test` leaves out
	@status=0; \
	$(PYTEST) -m "integration and not (hub or nightly)" --ignore tests/vllm || status=1; \
	$(VENV_PYTHON) -m pytest tests/vllm || status=1; \
	exit $$status

test-all: ## run all tests
	@status=0; \
	$(MAKE) test || status=1; \
	$(MAKE) integration || status=1; \
	exit $$status

environments: venv ## test each framework with pip alone, as its users install it
	@$(VENV_PYTHON) tools/check_environments.py

bounds: venv ## run the core's tests on the oldest and the newest dependencies that are allowed
	@$(VENV_PYTHON) tools/check_bounds.py

nightly: venv ## run the long tests, which `make test` leaves out
	@$(VENV_PYTHON) -m pytest -m nightly -o faulthandler_timeout=4000

mutation: venv ## change the core's code line by line and see whether its tests notice
	@$(VENV_PYTHON) tools/mutation.py

docs: venv ## build the documentation into build/docs; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs build --quiet --strict

docs-serve: venv ## show the documentation at http://127.0.0.1:8000, as it changes
	@NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs serve

notebooks: venv ## make the notebooks anew from docs/notebooks/*.md and run them
	@$(VENV_PYTHON) tools/make_notebooks.py

vllm: venv ## install a vLLM server, in an environment of its own, for tests/vllm
	@$(PYTHON) tools/setup_vllm.py

llama-cpp: venv ## install a llama.cpp server, in an environment of its own, for tests/llama_cpp
	@$(PYTHON) tools/setup_llama_cpp.py

openvino: venv ## install OpenVINO, in an environment of its own, for `make bench`
	@$(PYTHON) tools/setup_openvino.py

onnx: venv ## install ONNX Runtime, in an environment of its own, for `make bench`
	@$(PYTHON) tools/setup_onnx.py

milvus: venv ## install a Milvus server, in a folder of its own, for tests/milvus
	@$(PYTHON) tools/setup_milvus.py

chromium: ## install Chromium where there is none, for the tests that read pages in a browser
	@$(PYTHON) tools/setup_chromium.py

bench: venv ## measure embedding and reranking beside peers
	@$(VENV_PYTHON) benchmarks/speed.py

bench-table: venv ## make the tables of README.md and docs/explanation/speed.md from benchmarks/results
	@$(VENV_PYTHON) benchmarks/table.py

bench-load: venv ## measure many callers at once: answers, latency, throughput
	@$(VENV_PYTHON) benchmarks/load.py

lint: venv ## check style, formatting, types and which module imports which
	@$(VENV_PYTHON) -m ruff check
	@$(VENV_PYTHON) -m ruff format --check
	@$(VENV_PYTHON) -m mypy
	@.venv/bin/lint-imports

format: venv ## format the code and apply safe fixes
	@$(VENV_PYTHON) -m ruff check --fix-only
	@$(VENV_PYTHON) -m ruff format

release-check: venv ## build sdist and wheel, look into them, resolve each extra
	@$(VENV_PYTHON) tools/check_release.py

clean: ## remove caches and build products (not .venv)
	@rm -rf build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

venv: # costs a few hundredths of a second when nothing has changed
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none was found" \
		"(make PYTHON=/path/to/python3.11 ... names one)." >&2; exit 1; }
	@$(PYTHON) tools/setup_venv.py
