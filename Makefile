# `make` says what there is. Everything it builds stays in this folder: .venv*, .cache, site and demo_output.

PYTHON ?= python3
UV ?= $(shell command -v uv 2>/dev/null)
DEMO_OUTPUT ?= demo_output
PYTEST_ARGS ?=

# Another interpreter gets an environment of its own: `make test PYTHON=python3.12` leaves .venv alone.
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := demo,docs,lint,test

# Compiling is most of the time of a short run, so compiled programs are kept between runs.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
# Huge pages, which cod train asks for itself, for the tests and the demo too.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.DEFAULT_GOAL := help
.PHONY: help env demo test slow soak docs notebook lint check clean

help:
	@echo "make demo   compare the included model with JPEG and WebP, and fine-tune it; under 5 minutes on 2 CPU cores"
	@echo "make test   the tests, at most 10 minutes on 2 CPU cores"
	@echo "make slow   the tests that take longer, at most an hour"
	@echo "make soak   the tests that take longer still; for a night"
	@echo "make docs   the documentation as a site, in the folder site"
	@echo "make notebook  runs docs/notebook.ipynb again, whose pictures are kept with it"
	@echo "make lint   formatting, lint rules, types, shell scripts and the Dockerfile"
	@echo "make check  lint and test"
	@echo "make env    only make the Python environment $(VENV)"
	@echo "make clean  remove environments, caches and the demo's output"
	@echo "PYTHON=python3.12 chooses another interpreter, in an environment of its own."

env: $(STAMP)

# An error here and not in the shell is a single line.
$(STAMP): pyproject.toml
	$(if $(shell command -v $(PYTHON) 2>/dev/null),,$(error there is no $(PYTHON) here; name another interpreter, for example make PYTHON=python3.12))
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "cod_jax needs Python 3.11 or newer and $(PYTHON) is " + sys.version.split()[0] + "; name another one, for example make PYTHON=python3.12")'
ifneq ($(UV),)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	$(UV) pip install --quiet --python $(BIN)/python -e '.[$(EXTRAS)]'
else
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[$(EXTRAS)]'
endif
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m demo --output $(DEMO_OUTPUT)

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow and not soak" --durations=15 --numprocesses 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# The largest networks get a process of their own: all others' compiled programs and theirs do not fit into 24 GB.
LARGEST := tests/parity/test_transformers.py

slow: $(STAMP)
	$(BIN)/python -m pytest -m "slow and not soak" --durations=15 --numprocesses 2 --dist loadfile $(PYTEST_ARGS) --ignore=$(LARGEST)
	$(BIN)/python -m pytest -m "slow and not soak" --durations=15 $(PYTEST_ARGS) $(LARGEST)

soak: $(STAMP)
	$(BIN)/python -m pytest -m soak --durations=15 $(PYTEST_ARGS)

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Its pictures are part of the repository. The times of cells would change with every run.
notebook: $(STAMP)
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False docs/notebook.ipynb

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/shellcheck launch/*.sh .ci/run
	$(BIN)/hadolint launch/Dockerfile

check: lint test

# Only environments that were made here; others may be called .venv as well.
clean:
	@for folder in .venv .venv-*; do if [ -e "$$folder/.installed" ]; then echo "rm -rf $$folder"; rm -rf "$$folder"; fi; done
	rm -rf .cache demo_output site build dist cod_jax.egg-info .pytest_cache .ruff_cache .hypothesis
	find $(wildcard cod_jax configs data demo examples launch tests) -name __pycache__ -type d -prune -exec rm -rf {} +
