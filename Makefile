# make demo: the main job on the embedded sample world.   make test: the default tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STORAGE ?= outputs
INSTALLED := $(VENV)/.installed

.PHONY: install demo test test-all check bench clean

install: $(INSTALLED)

# torch first: a plain `torch` elsewhere in the list would pull the largest build there is
$(INSTALLED): constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/python -m sweep.run search_spaces/sample.py --storage $(STORAGE)

test: install
	$(BIN)/python -m pytest

# the default tests and the slow ones: several raylets, a real MLflow server, its pages in Chromium, all sample models
test-all: install
	$(BIN)/python -m pytest -m 'not gpu and not real_data'

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) outputs .pytest_cache .mypy_cache .ruff_cache *.egg-info
