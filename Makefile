# make demo: the main job on the embedded sample world.
# make test: the default tests, TEST_PROCESSES files at a time; make test-thorough: the others that take long.
# TORCH_INDEX=URL: where torch comes from; https://download.pytorch.org/whl/cpu has builds without CUDA.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TEST_PROCESSES ?= 2
# a file at a time, in the order of tests/tiers.py
SIDE_BY_SIDE = -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
STORAGE ?= outputs
TORCH_INDEX ?=
USUAL_INDEX := the usual index, on Linux with CUDA: several GB (a CPU build: see TORCH_INDEX in README.md)
INSTALLED := $(VENV)/.installed

LOWER := .venv-lower

# without it every process that a test starts would compile the packages anew, and each of pytest's all the tests
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test test-thorough test-all test-faults test-lower check lint layout types imports house docs dist bench clean

install: $(INSTALLED)

# torch first: a plain `torch` elsewhere in the list would pull the largest build there is
$(INSTALLED): constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing torch from $(if $(TORCH_INDEX),$(TORCH_INDEX),$(USUAL_INDEX))"
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $$(grep '^torch==' constraints.txt)
	@echo "installing ray, transformers, mlflow and others, 1.8 GB on disk; no models and no data"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/python -m sweep.run search_spaces/sample.py --storage $(STORAGE)

test: install
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

# those that take long and have a cheaper one beside them in the default tests (tests/tiers.py)
test-thorough: install
	$(BIN)/python -m pytest --only-thorough $(SIDE_BY_SIDE)

# all of these and the slow ones: several raylets, a real MLflow server, its pages in Chromium, all sample models
test-all: install
	$(BIN)/python -m pytest --thorough -m 'not gpu and not real_data'

# breaks workers, nodes, disks, storages, servers and signals, in real processes, and prints a table
test-faults: install
	$(BIN)/python -m pytest --thorough -m faults -rN

# the default tests with the oldest version of each direct dependency that pyproject.toml allows; torch comes alone:
# what pip takes along with it is new, and stays
test-lower: $(LOWER)/.installed
	$(LOWER)/bin/python -m pytest $(SIDE_BY_SIDE)

$(LOWER)/.installed: install pyproject.toml
	test -x $(LOWER)/bin/python || $(PYTHON) -m venv $(LOWER)
	$(LOWER)/bin/python -m pip install --quiet --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $$(grep -o '"torch>=[^",]*' pyproject.toml | sed 's/"torch>=/torch==/')
	$(BIN)/uv pip install --quiet --python $(LOWER)/bin/python --resolution lowest-direct -r pyproject.toml --extra dev --extra s3
	$(LOWER)/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

check: lint layout types imports

lint: install
	$(BIN)/ruff check .

layout: install
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

# arrows between the packages go one way: the contracts are in pyproject.toml
imports: install
	$(BIN)/lint-imports --no-logo --no-cache

# the picture in docs/design.md
house: install
	$(BIN)/python docs/draw_house.py

# the site, from docs/, into build/site; the reference is written from the code
docs: install
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/python docs/make_reference.py
	$(BIN)/python docs/draw_terms.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

dist: install
	$(BIN)/python -m build --no-isolation

bench: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(LOWER) outputs build dist .pytest_cache .mypy_cache .ruff_cache *.egg-info
