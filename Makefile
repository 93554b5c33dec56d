# One command from a bare clone to a running class room. Needs GNU make and Python 3.11 or newer.

PYTHON ?= python3
LAB_FLAGS ?=
BIN := .venv/bin
STAMP := .venv/.installed
EXTRAS := .venv/.installed-extras
COURSE := course,teach,dev
# In two processes, a file or class in one of them, in the order of tests/conftest.py
PYTEST_TWO = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

# A folder of wheels made by `make wheelhouse` is the only source of packages where it exists.
ifneq ($(wildcard wheelhouse/*.whl),)
PIP_FROM := --no-index --find-links wheelhouse
endif

# Jupyter refuses to start as root unless told; in a container root is all there is.
ifeq ($(shell id -u),0)
AS_ROOT := --allow-root
endif

# The kernel called python3 is the one inside .venv, even if the user has registered another.
export JUPYTER_PREFER_ENV_PATH = 1

.DEFAULT_GOAL := help
.PHONY: help lab test test-slow trace notebooks badges test-browser test-colab test-versions site demo student grade lint wheelhouse clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

lab: $(STAMP)  ## the first notebook in JupyterLab (LAB_FLAGS=--no-browser)
	$(BIN)/python -m jupyterlab --ip=127.0.0.1 --ServerApp.root_dir="$(CURDIR)" $(AS_ROOT) \
		--LabApp.default_url=/lab/tree/notebooks/00_one_clip_all_the_way.ipynb $(LAB_FLAGS)

test: $(STAMP)  ## run the tests, and every notebook with its outputs compared
	$(PYTEST_TWO) --nbval --nbval-current-env --nbval-cell-timeout=300 tests notebooks

test-slow: $(STAMP)  ## a run killed 20 times and resumed; a bare pip install (5 GB)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests

trace: $(STAMP)  ## the bundled clip through every stage; pictures in trace/
	$(BIN)/tiny-asr trace --out trace

notebooks: $(STAMP)  ## run every notebook again and store its outputs
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python notebooks/execute.py notebooks/*.ipynb

badges: $(STAMP)  ## Colab badges for REPO=owner/name; REPO= removes them
	@$(if $(filter undefined,$(origin REPO)),$(error make badges REPO=owner/name, or REPO= for none))
	$(BIN)/python notebooks/badges.py "$(REPO)"

test-browser: $(EXTRAS)  ## notebooks, demo page and site in headless Chromium
	$(PYTEST_TWO) tests/browser

test-colab: $(STAMP)  ## the set-up cell on a machine like Colab (5 GB, minutes)
	$(BIN)/python tests/simulate_colab.py --python $(PYTHON)

test-versions: $(BIN)/pip  ## the tests on the lowest and highest versions (10 GB)
	$(BIN)/python tests/environments.py lowest
	$(BIN)/python tests/environments.py highest

site: $(EXTRAS)  ## the course's web site, in site/, executing nothing
	$(BIN)/python -m sphinx -W --keep-going -d build/doctrees -b html docs site

demo: $(EXTRAS)  ## speak to the recogniser in a web page on this machine
	$(BIN)/tiny-asr demo

student: $(STAMP)  ## the course without solutions and outputs, in student/
	$(BIN)/python -m teaching student

grade: $(STAMP)  ## check notebooks handed in (DIR=folder): runs their code
	@$(if $(DIR),,$(error make grade DIR=folder))
	$(BIN)/python -m teaching grade "$(DIR)"

lint: $(STAMP)  ## check style, formatting and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

wheelhouse: $(BIN)/pip  ## download all packages, for class rooms without a network
	$(BIN)/python -m pip download -d wheelhouse -c constraints.txt '.[$(COURSE),demo,browser,site]' pip setuptools

clean:  ## delete .venv and everything generated, but not wheelhouse/
	rm -rf .venv .envs trace site build dist .pytest_cache .ruff_cache .mypy_cache

# pip comes last when a virtual environment is made: where it is missing, making it broke off.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
		"tiny_asr needs Python 3.11 or newer, and $(PYTHON) is not: try 'make PYTHON=python3.12 lab'" \
		"with the name of one that is" >&2; exit 1; }
	$(PYTHON) -m venv .venv

# One pip command for everything: torch and torchaudio must be chosen together.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/python -m pip install $(PIP_FROM) -c constraints.txt -e '.[$(COURSE)]'
	@# JupyterLab would ask each student about news from the internet; the answer stays in .venv.
	$(BIN)/jupyter labextension disable --level=sys_prefix "@jupyterlab/apputils-extension:announcements"
	@touch $@

$(EXTRAS): $(STAMP)
	$(BIN)/python -m pip install $(PIP_FROM) -c constraints.txt -e '.[$(COURSE),demo,browser,site]'
	@touch $@
