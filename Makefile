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

# The slowest first, so that none runs alone at the end.
SLOWEST := $(wildcard $(patsubst %,notebooks/%_*.ipynb,11 04 09 08 14 10 07 13))
NOTEBOOKS := $(SLOWEST) $(filter-out $(SLOWEST),$(wildcard notebooks/[0-9]*.ipynb))

# `make figures PROFILE=paper` reads notebooks/profiles/paper.yaml and writes figures/paper/.
PROFILE ?= embedded
FIGURES := $(if $(filter embedded,$(PROFILE)),figures,figures/$(PROFILE))
SUMMARIES := $(if $(filter embedded,$(PROFILE)),data/results,$(FIGURES))
RESULTS := 02_qualitative 04_quantitative 05_num_steps 06_target_layer 07_beta_sensitivity 10_truncated_path \
  11_faithfulness 12_interactions

# One thread a notebook and a notebook a core: faster than the other way round, and the same digits on any machine.
JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 1)
RUN := $(PYTHON) -m runs --workers $(JOBS)

BOOK := build/book

export PYTHONPATH := $(CURDIR)
export HF_HUB_DISABLE_TELEMETRY := 1
# glibc hands every large tensor's memory back and takes it anew, which costs small models half their time.
export MALLOC_TRIM_THRESHOLD_ := 4294967296
export MALLOC_TOP_PAD_ := 268435456
export MALLOC_MMAP_MAX_ := 0
export OMP_WAIT_POLICY := passive

.PHONY: help env lab lint test test-slow notebooks figures book results bench sweep train-mini clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(ENVIRONMENT)  ## Build .venv from requirements.lock (the others do it when needed)

$(VENV)/installed: requirements.lock
	python3 -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

lab: $(ENVIRONMENT) $(patsubst notebooks/%,build/lab/%,$(wildcard notebooks/*.ipynb))  ## Open copies of the notebooks in JupyterLab: Run All changes nothing that git keeps
	mkdir -p build/docs && cp docs/explorer.png build/docs/
	$(PYTHON) -m jupyterlab build/lab

# Where a notebook has changed, yours stays beside the new copy.
build/lab/%.ipynb: notebooks/%.ipynb
	mkdir -p build/lab
	if [ -e $@ ]; then mv $@ build/lab/$*.old.ipynb; fi
	cp $< $@

lint: $(ENVIRONMENT)  ## Check style
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

# A process of tests takes a GiB.
test: lint  ## Check style and run the tests, offline, in minutes
	$(PYTHON) -m pytest -n $(JOBS) --maxprocesses 8 --dist worksteal

test-slow: $(ENVIRONMENT)  ## Run the tests that take long
	$(PYTHON) -m pytest -m slow

figures: $(ENVIRONMENT)  ## Run the notebooks, JOBS at once, and write figures/ and its index.html (offline; PROFILE=paper for the paper's)
	$(RUN) $(NOTEBOOKS) --profile $(PROFILE) --figures $(FIGURES)
	rm -rf build/profiles/$(PROFILE)/index-*
	$(RUN) notebooks/index.ipynb --profile $(PROFILE) --figures $(FIGURES) -p figures $(FIGURES) -p results $(SUMMARIES)
	$(PYTHON) -m studies.sheet $(FIGURES)

book: $(ENVIRONMENT)  ## Build build/book/index.html: the README, the notebooks as they are stored and docs/, to read without a network
	$(PYTHON) -m sphinx --fresh-env --write-all --fail-on-warning --keep-going --quiet --jobs $(JOBS) -c book . $(BOOK)

results: $(ENVIRONMENT)  ## Run notebooks 02, 04 to 07 and 10 to 12 at full size (hours; a killed run goes on) and renew the summaries kept
	$(RUN) $(RESULTS:%=notebooks/%.ipynb) --profile full --figures figures/full
	cp $(addprefix figures/full/,$(notdir $(wildcard data/results/*.csv))) data/results/

notebooks: $(ENVIRONMENT)  ## Run the notebooks and put the outputs into them; writes figures/ too
	$(RUN) $(NOTEBOOKS) --in-place --figures figures
	rm -rf build/profiles/embedded/index-*
	$(RUN) notebooks/index.ipynb --in-place --figures figures
	$(PYTHON) -m studies.sheet figures

bench: $(ENVIRONMENT)  ## Race nib against a plain loop and captum, and measure memory (some 40 minutes on two idle cores)
	$(PYTHON) -m benchmarks.speed
	$(PYTHON) -m benchmarks.memory

sweep: $(ENVIRONMENT)  ## Run a grid of notebook runs: GRID=notebooks/grids/beta.yaml, and what else in SWEEP="--workers 4"
	$(PYTHON) -m runs --grid $(GRID) $(SWEEP)

train-mini: $(ENVIRONMENT)  ## Train the embedded model again (two hours on two cores; resumes) and measure it
	$(PYTHON) -m data.mini_clip.train
	$(PYTHON) -m data.mini_clip.score
	$(PYTHON) -m data.mini_clip.blocks
	$(PYTHON) -m data.mini_clip.maps
	$(PYTHON) -m data.mini_clip.sheets

clean:  ## Remove what `figures` and `book` built, neither .venv, nor the results of sweeps, nor your copies of notebooks
	rm -rf $(filter-out build/sweeps build/lab,$(wildcard build/*))
