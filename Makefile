# Everything runs in .venv, which is made on first use and used again after that.
# Paths are relative on purpose: the checkout may lie in a folder with a space in its name.
SHELL := /bin/bash
PYTHON ?= python3
DEMO ?= results/demo
EXPERIMENTS ?= results/nano
SWEEPS := $(sort $(wildcard experiments/sta_*.yaml experiments/*_headline.yaml) experiments/overlap.yaml experiments/robustness.yaml)
SHOWN := evit,topk,sta,tome,fewer_frames,lower_resolution,grid,random_drop,random_merge

# One process per core, 8 at most, with one thread each: more threads than cores only wait for each other.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST := -m pytest -n auto --maxprocesses=8 --dist=loadgroup --durations=10

.DEFAULT_GOAL := help
.PHONY: help setup demo experiments test test-lowest lint format clean

help:
	@echo 'make setup        make .venv with tokred and everything that its tests need (about 6 GB, once)'
	@echo 'make demo         compare nine reducers on the model that ships inside; the report lands in $(DEMO)'
	@echo 'make experiments  the papers'"'"' tables and figures on the models that ship inside, in $(EXPERIMENTS)'
	@echo 'make test         the test suite'
	@echo 'make lint         ruff and mypy'
	@echo 'make format       let ruff rewrite what it can'
	@echo 'make test-lowest  the test suite with the lowest supported version of every dependency, in .venv-lowest'
	@echo 'make clean        remove caches and build products; results and environments stay'
	@echo 'PYTHON=python3.12 make setup   picks another interpreter'

setup: .venv/.installed
	@echo 'tokred is set up in .venv: .venv/bin/tokred --help'

demo: .venv/.installed
	@echo '--- comparing reducers on generated video; each finished row is kept, so a second run only does what is missing'
	@.venv/bin/tokred compare --reducers $(SHOWN) --out '$(DEMO)'
	@echo '--- report: $(DEMO)/report.html'

experiments: .venv/.installed
	@echo '--- $(words $(SWEEPS)) experiments; each finished cell is kept, so a second run only does what is missing'
	@.venv/bin/tokred sweep $(SWEEPS) --profile nano --out '$(EXPERIMENTS)'
	@.venv/bin/tokred report $(patsubst experiments/%.yaml,'$(EXPERIMENTS)'/%,$(SWEEPS)) --out '$(EXPERIMENTS)/report.html' > /dev/null
	@echo '--- report: $(EXPERIMENTS)/report.html'

test: .venv/.installed
	@echo '--- tests'
	@$(ONE_THREAD) .venv/bin/python $(PYTEST)

test-lowest: .venv-lowest/.installed
	@echo '--- tests with the lowest supported versions'
	@$(ONE_THREAD) .venv-lowest/bin/python $(PYTEST)

lint: .venv/.installed
	@echo '--- ruff check'
	@.venv/bin/python -m ruff check .
	@echo '--- ruff format --check'
	@.venv/bin/python -m ruff format --check .
	@echo '--- mypy'
	@.venv/bin/python -m mypy

format: .venv/.installed
	@.venv/bin/python -m ruff check --fix .
	@.venv/bin/python -m ruff format .

clean:
	@echo '--- removing caches and build products'
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find tokred methods experiments tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call install,FOLDER,PIP OPTIONS): pip says what it fetches, one line for each large file, and nothing else.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "tokred needs Python 3.10 or newer, and $(PYTHON) is " + sys.version.split()[0])'
	@echo '--- installing tokred and its dependencies into $(1) (minutes, the first time)'
	@$(PYTHON) -m venv $(1)
	@set -o pipefail; $(1)/bin/python -m pip install --progress-bar off --disable-pip-version-check $(2) -e '.[test]' \
	  | awk '/(Downloading|Using cached) .* [MG]B\)/ || /^Installing collected/ { print substr($$0, 1, 110); fflush() }'
	@pwd > $(1)/.installed
endef

.venv/.installed: pyproject.toml
	$(call install,.venv)

.venv-lowest/.installed: pyproject.toml tests/lowest.txt
	$(call install,.venv-lowest,-c tests/lowest.txt)

# An environment holds absolute paths: one that was made when the checkout lay elsewhere is installed again.
ifneq ($(shell cat .venv/.installed 2>/dev/null),$(shell pwd))
.PHONY: .venv/.installed
endif
ifneq ($(shell cat .venv-lowest/.installed 2>/dev/null),$(shell pwd))
.PHONY: .venv-lowest/.installed
endif
