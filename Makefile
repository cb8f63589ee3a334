# `make` lists what there is. `make figures PYTHON=python` uses the active environment
# (conda, say) instead of building .venv.

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SECONDARY:

VENV := .venv
ifeq ($(origin PYTHON), undefined)
PYTHON := $(VENV)/bin/python
ENVIRONMENT := $(VENV)/installed
endif

NOTEBOOKS := $(wildcard notebooks/[0-9]*.ipynb)
STEMS := $(NOTEBOOKS:notebooks/%.ipynb=%)
SOURCES := $(shell find nib data notebooks -name '*.py' -o -name '*.parquet' -o -name '*.safetensors' \
	-o -name '*.csv' -o -name '*.jpg' -o -name matplotlibrc)

export PYTHONPATH := $(CURDIR)
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help env lint test test-slow notebooks figures train-mini clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(ENVIRONMENT)  ## Build .venv from requirements.lock (the others do it when needed)

$(VENV)/installed: requirements.lock
	python3 -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

lint: $(ENVIRONMENT)  ## Check style
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

test: lint  ## Check style and run the tests, offline, in minutes
	$(PYTHON) -m pytest

test-slow: $(ENVIRONMENT)  ## Run the tests that take long
	$(PYTHON) -m pytest -m slow

figures: $(STEMS:%=figures/%.png)  ## Run copies of the notebooks and write figures/ (offline)

notebooks: $(ENVIRONMENT)  ## Run the notebooks in place, so that they hold fresh outputs
	$(PYTHON) notebooks/run.py --in-place $(NOTEBOOKS)

train-mini: $(ENVIRONMENT)  ## Train the embedded model again (an hour on two cores; resumes)
	$(PYTHON) -m data.mini_clip.train
	$(PYTHON) -m data.mini_clip.score
	$(PYTHON) -m data.mini_clip.plot_curve

clean:  ## Remove what `figures` built, not .venv
	rm -rf build

# A notebook runs as a copy in build/ and draws into build/figures/; only when it has ended well
# does its executed copy appear there and are its figures moved into place.
build/notebooks/%.ipynb: notebooks/%.ipynb $(SOURCES) $(ENVIRONMENT)
	$(PYTHON) notebooks/run.py $<

figures/%.png: build/notebooks/%.ipynb
	mkdir -p figures
	cp build/figures/$*/* figures/
	touch $@
