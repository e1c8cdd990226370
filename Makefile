# Everything runs in .venv, which `make` builds once from constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: ready demo test check slow nodes clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

ready: $(READY)  ## the environment alone

demo: $(READY)   ## make a small degraded archive, restore it, compare
	$(BIN)/python jobs/make_demo.py

test: $(READY)   ## the quick suite
	$(BIN)/python -m pytest -q

check: $(READY)  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slow: $(READY)   ## the tests that take minutes
	$(BIN)/python -m pytest -q -m slow

nodes: $(READY)  ## clusters of several Ray nodes, plan against run: on a quiet machine
	$(BIN)/python -m pytest -q -s -m nodes

clean:
	rm -rf $(VENV) demo
