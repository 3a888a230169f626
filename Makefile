PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The peers of the benchmarks have a place of their own, so that they cannot change what is tested.
BENCH := .venv-bench

.PHONY: demo test test-slow lint docs bench clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,docs]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/pyro-lvm demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 -m slow

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p pyro_lvm

# Warnings are errors, and so are broken links and anchors: docs/extensions/site_check.py.
docs: $(VENV)/.installed
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env -d build/doctrees docs site
	@echo "site/index.html"

$(BENCH)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	touch $@

bench: $(BENCH)/.installed
	$(BENCH)/bin/python -m benchmarks.run --render $(ARGS)

clean:
	rm -rf $(VENV) $(BENCH) build dist runs site docs/api *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage
